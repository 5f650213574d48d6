"""Finds what is wrong with NIfTI volumes and their labels, and proposes the voxel size and windows to train with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.datalist import find_json, read_sections
from mobileutr_monai.datasets.duplicates import pair_thumbnails
from mobileutr_monai.datasets.nifti_folders.duplicates import (
    NEAR_DUPLICATE_CORRELATION,
    UNREADABLE,
    read_volume_thumbnail,
)
from mobileutr_monai.datasets.nifti_folders.layout import VolumeLayout, find_volumes
from mobileutr_monai.datasets.problems import KINDS, ProblemAdder, Report

__all__ = ["check_volumes", "examine_volumes"]

TOLERANCE = 0.05
"""By which a corner of a label may miss that of its image, as a share of a voxel's side."""

WHOLE = 1e-3
"""By which a label's value may miss a whole number, as ``label_volume`` has it."""

WINDOW_SIDES = (16, 96)
"""Shortest and longest side of a proposed window, in voxels."""


def check_volumes(root: Path) -> Report:
    """Reads all volumes and labels of a folder, with what its ``datalist.json``, if there is one, says of its sections.

    Raises:
        FileNotFoundError: the folder has no such layout.
        ValueError: ``dataset.json`` or the list cannot be read.
    """
    layout = find_volumes(root)
    report = Report(root, cases=len(layout.images), masks=len(layout.labels))
    path = find_json(root)
    section_of = {} if path is None else _read_sections(layout, root, path, report)
    report.notes = examine_volumes(layout, report, section_of)
    return report


def examine_volumes(layout: VolumeLayout, report: Report, section_of: Mapping[str, str]) -> list[str]:
    """Reads volumes and labels, compares them with each other, and adds what is wrong to a report.

    Args:
        section_of: name -> section of the list, where there is one.

    Returns:
        Lines about labels, sizes and spacing.
    """
    add = ProblemAdder(report)
    for name in sorted(layout.images.keys() - layout.labels.keys()):
        add("missing_mask", layout.images[name][:1])
    for name in sorted(layout.labels.keys() - layout.images.keys()):
        add("extra_mask", [layout.labels[name]])
    most = max((len(files) for files in layout.images.values()), default=0)
    spacings, sides, counts = [], [], dict[int, int]()
    thumbnails: dict[str, np.ndarray] = {}
    for name in tqdm(layout.names, desc="Reading volumes", disable=None):
        files = layout.images[name]
        if len(files) != most:
            add("missing_channel", files[:1], f"{pluralize(len(files), 'file')}, others have {most}")
        try:
            images: list[Any] = [nib.load(path) for path in files]
            thumbnails[name] = read_volume_thumbnail(files[0])
        except UNREADABLE as error:
            add("unreadable_image", files[:1], " ".join(str(error).split()))
            continue
        first = images[0]
        for path, image in zip(files, images, strict=True):
            if not _same_grid(image, first):
                add("grid_mismatch", [path], f"another grid than {files[0].name}")
        try:
            label: Any = nib.load(layout.labels[name])
            values = _read_values(layout.labels[name])
        except UNREADABLE as error:
            add("unreadable_mask", [layout.labels[name]], " ".join(str(error).split()))
            continue
        if label.shape[:3] != first.shape[:3]:
            sizes = [" x ".join(map(str, image.shape[:3])) for image in (label, first)]
            add("size_mismatch", [layout.labels[name]], f"{sizes[0]}, the image is {sizes[1]}")
        elif not _same_grid(label, first):
            add("grid_mismatch", [layout.labels[name]], f"lies up to {_distance(label, first):.3g} mm from its image")
        found = _look_at_values(values, layout, layout.labels[name], add)
        for value in found:
            counts[value] = counts.get(value, 0) + 1
        closest = nib.as_closest_canonical(first)
        spacings.append(nib.affines.voxel_sizes(closest.affine)[:3])
        sides.append(closest.shape[:3])
    report.pairs = pair_thumbnails(thumbnails, NEAR_DUPLICATE_CORRELATION)
    for one, other, correlation in report.pairs:
        pair, likeness = [layout.images[one][0], layout.images[other][0]], f"correlation {correlation:.4f}"
        same = hash_file(pair[0]) == hash_file(pair[1])
        add("exact_duplicate" if same else "near_duplicate", pair, "" if same else likeness)
        first_section, second_section = section_of.get(one), section_of.get(other)
        if first_section and second_section and first_section != second_section:
            add("split_leak", pair, f"{first_section} and {second_section}, {likeness}")
    report.problems.sort(key=lambda problem: list(KINDS).index(problem.kind))
    return _describe(layout, most, counts, np.array(spacings), np.array(sides))


def _look_at_values(values: np.ndarray, layout: VolumeLayout, path: Path, add: ProblemAdder) -> set[int]:
    """Notes what is wrong with the values of a label; returns the labels that it has."""
    rounded = np.round(values)
    broken = values[~(np.abs(values - rounded) <= WHOLE) | (rounded < 0)]
    if len(broken):
        add("unexpected_value", [path], f"values such as {broken[0]:g}")
    found = {int(value) for value in rounded[np.isfinite(rounded)] if value > 0}
    unknown = found - layout.label_names.keys() if layout.label_names else set()
    if unknown:
        add("unexpected_value", [path], f"{sorted(unknown)}, which dataset.json does not name")
    if not found:
        add("empty_mask", [path])
    return found


def _read_values(path: Path) -> np.ndarray:
    """Returns the different values of a label; a file that has not changed is read once."""
    state = path.stat()
    return _read_values_of(str(path), (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=10_000)
def _read_values_of(path: str, state: tuple[int, int]) -> np.ndarray:  # noqa: ARG001
    label: Any = nib.load(path)
    values: np.ndarray = np.unique(np.asanyarray(label.dataobj))
    return values


def _read_sections(layout: VolumeLayout, root: Path, path: Path, report: Report) -> dict[str, str]:
    """Returns name -> section of the cases of a list, and notes how many each section has and what is missing."""
    add = ProblemAdder(report)
    names = {file.resolve(): name for name, files in layout.images.items() for file in files}
    section_of: dict[str, str] = {}
    for section, items in read_sections(path).items():
        for item in items:
            files = item["image"] if isinstance(item["image"], list) else [item["image"]]
            name = names.get((root / files[0]).resolve())
            place = f"fold {item['fold']}" if "fold" in item and section == "training" else section
            if not any(role in section for role in ("train", "val", "test")):
                continue
            report.sections[place] = report.sections.get(place, 0) + 1
            if name is None:
                if not (root / files[0]).is_file():
                    add("missing_file", [root / files[0]], f"in {section} of {path.name}")
            elif section_of.setdefault(name, place) != place:
                add("split_overlap", layout.images[name][:1], f"in {section_of[name]} and in {place}")
    if section_of:
        for name in layout.names:
            if name not in section_of:
                add("not_in_list", layout.images[name][:1])
    return section_of


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
    # Weights fit any voxel size and window, but not another number of channels.
    extra = f" --in-channels {channels} --weights none" if channels > 1 else ""
    lines.append(
        f"proposal: mobileutr new-bundle NAME --from BUNDLE --labels {labels} --spacing {_join(chosen, ',')} "
        f"--roi-size {_join(window, ',')}{extra}"
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
