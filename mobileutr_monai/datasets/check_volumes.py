"""Finds what is wrong with NIfTI volumes and their labels, and proposes the voxel size and windows to train with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.check import Problem, Report
from mobileutr_monai.datasets.volumes import VolumeLayout, find_volumes

__all__ = ["check_volumes"]

TOLERANCE = 0.05
"""By which a corner of a label may miss that of its image, as a share of a voxel's side."""

WINDOW_SIDES = (16, 96)
"""Shortest and longest side of a proposed window, in voxels."""

_UNREADABLE = (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError)


def check_volumes(root: Path) -> Report:
    """Reads the headers of all volumes and the values of all labels.

    Raises:
        FileNotFoundError: the folder has no such layout.
        ValueError: ``dataset.json`` cannot be read.
    """
    layout = find_volumes(root)
    report = Report(root, cases=len(layout.images), masks=len(layout.labels))

    def add(kind: str, path: Path, detail: str = "") -> None:
        report.problems.append(Problem(kind, (path.relative_to(root).as_posix(),), detail))

    for name in sorted(layout.images.keys() - layout.labels.keys()):
        add("missing_mask", layout.images[name][0])
    for name in sorted(layout.labels.keys() - layout.images.keys()):
        add("extra_mask", layout.labels[name])
    most = max((len(files) for files in layout.images.values()), default=0)
    spacings, sides, counts = [], [], dict[int, int]()
    for name in tqdm(layout.names, desc="Reading volumes", disable=None):
        files = layout.images[name]
        if len(files) != most:
            add("missing_channel", files[0], f"{pluralize(len(files), 'file')}, others have {most}")
        try:
            images: list[Any] = [nib.load(path) for path in files]
        except _UNREADABLE as error:
            add("unreadable_image", files[0], " ".join(str(error).split()))
            continue
        first = images[0]
        others = [path for path, image in zip(files, images, strict=True) if not _same_grid(image, first)]
        for path in others:
            add("grid_mismatch", path, f"another grid than {files[0].name}")
        try:
            label: Any = nib.load(layout.labels[name])
            values = np.unique(np.asanyarray(label.dataobj))
        except _UNREADABLE as error:
            add("unreadable_mask", layout.labels[name], " ".join(str(error).split()))
            continue
        if label.shape[:3] != first.shape[:3]:
            sizes = [" x ".join(map(str, image.shape[:3])) for image in (label, first)]
            add("size_mismatch", layout.labels[name], f"{sizes[0]}, the image is {sizes[1]}")
        elif not _same_grid(label, first):
            add("grid_mismatch", layout.labels[name], f"lies up to {_distance(label, first):.3g} mm from its image")
        if (values != np.round(values)).any() or values.min() < 0:
            add("unexpected_value", layout.labels[name], f"values such as {values[values != np.round(values)][:1]}")
        found = {int(value) for value in values if int(value) > 0}
        unknown = found - layout.label_names.keys() if layout.label_names else set()
        if unknown:
            add("unexpected_value", layout.labels[name], f"{sorted(unknown)}, which dataset.json does not name")
        if not found:
            add("empty_mask", layout.labels[name])
        for value in found:
            counts[value] = counts.get(value, 0) + 1
        closest = nib.as_closest_canonical(first)
        spacings.append(nib.affines.voxel_sizes(closest.affine)[:3])
        sides.append(closest.shape[:3])
    report.notes = _describe(layout, most, counts, np.array(spacings), np.array(sides))
    return report


def _describe(
    layout: VolumeLayout, channels: int, counts: dict[int, int], spacings: np.ndarray, sides: np.ndarray
) -> list[str]:
    """Returns lines about labels, sizes and spacing, with a proposal for a new bundle."""
    if not len(spacings):
        return []
    named = {value: layout.label_names.get(value, f"label{value}") for value in sorted(counts)}
    lines = [f"labels: {', '.join(f'{v} {n} (in {counts[v]} volumes)' for v, n in named.items()) or 'none'}"]
    if channels > 1:
        lines.append(f"channels: {channels} {', '.join(layout.channel_names)}")
    spacing, size = np.median(spacings, axis=0), np.median(sides, axis=0)
    lines.append(
        f"voxels in mm, left-right, back-front, bottom-top: median {_join(spacing)}, "
        f"{_join(spacings.min(axis=0))} to {_join(spacings.max(axis=0))}"
    )
    lines.append(f"size in voxels: median {_join(size)}, {_join(sides.min(axis=0))} to {_join(sides.max(axis=0))}")
    chosen = np.array([float(f"{value:.3g}") for value in spacing])
    resampled = size * spacing / chosen
    low, high = WINDOW_SIDES
    window = [int(min(high, max(low, 16 * np.floor(side / 16)))) for side in resampled]
    labels = ",".join(str(name).replace(",", " ") for name in named.values())
    extra = f" --in-channels {channels}" if channels > 1 else ""
    lines.append(
        f"proposal: mobileutr new-bundle NAME --from BUNDLE --labels {labels} --spacing {_join(chosen, ',')} "
        f"--roi-size {_join(window, ',')}{extra} --weights none"
    )
    lines += [] if list(named) == list(range(1, len(named) + 1)) else ["labels must be numbered 1, 2 ... without gaps"]
    return lines


def _join(values: object, separator: str = " x ") -> str:
    return separator.join(f"{value:.4g}" for value in np.asarray(values).tolist())


def _corners(image: Any) -> np.ndarray:
    shape = np.array(image.shape[:3]) - 1
    grid = np.array(np.meshgrid(*([0, side] for side in shape), indexing="ij")).reshape(3, -1).T
    corners: np.ndarray = nib.affines.apply_affine(image.affine, grid)
    return corners


def _distance(first: Any, second: Any) -> float:
    return float(np.linalg.norm(_corners(first) - _corners(second), axis=1).max())


def _same_grid(first: Any, second: Any) -> bool:
    if first.shape[:3] != second.shape[:3]:
        return False
    return _distance(first, second) <= TOLERANCE * float(nib.affines.voxel_sizes(second.affine)[:3].min())
