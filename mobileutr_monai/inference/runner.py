"""Batch inference over a folder with a bundle's own objects."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from PIL import Image
from tqdm import tqdm

from mobileutr_monai.data.cases import VOLUME_SUFFIXES, find_images, find_other_files, find_volumes, strip_suffix
from mobileutr_monai.data.datalist import IMAGE_SUFFIXES
from mobileutr_monai.inference.outputs import save_label_image, save_label_volume, save_picture, write_whole
from mobileutr_monai.inference.overlay import draw_contours, draw_volume
from mobileutr_monai.inference.report import NOTICE, Row, measure_labels
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.networks.weights import load_weights

__all__ = ["BatchRunner", "UsageError"]

logger = logging.getLogger(__name__)

INPUTS = {
    2: (find_images, IMAGE_SUFFIXES, "PNG, JPEG, BMP or TIFF image"),
    3: (find_volumes, VOLUME_SUFFIXES, "NIfTI volume"),
}
"""What a bundle of 2 or 3 dimensions takes: how it is found, its suffixes, its name."""

MM3_PER_ML = 1000.0


class UsageError(ValueError):
    """Something that the caller gave cannot be used; the message says what, and the way out."""


@dataclass
class Case:
    """An image or volume, where its outputs go (without suffix), and the seconds spent on it so far."""

    source: Path
    name: str
    output: Path
    seconds: float = 0.0


class BatchRunner:
    """Segments every image of a folder (2D bundles) or every NIfTI volume (3D) with the objects of a bundle's config.

    For each ``DIR/NAME.EXT`` it writes ``OUT/DIR/NAME_mask.png``, for volumes ``NAME_mask.nii.gz`` (label indices at
    the input's own size and geometry, 0 is background), and, if asked, ``OUT/DIR/NAME_overlay.png``. ``report.csv``
    gets a row a label of a case as they are done, and ``report.json`` says at the end what ran. A case that fails is
    reported and does not stop the others. Every file but ``report.csv`` is whole or absent.

    The constructor touches no file; ``run`` checks everything, so that a bundle without weights can be inspected.

    Args:
        dataset_dir: folder with images or volumes, searched with its subfolders.
        output_dir: folder to write to, outside ``dataset_dir``.
        segmenter: the bundle's network, transforms and inferer.
        weights: state dict file, loaded strictly into the network.
        labels: names by index, with background at ``"0"``.
        batch_size: images that go through the network together.
        overlays: whether to draw contours.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        output_dir: str | Path,
        segmenter: Segmenter,
        weights: str | Path,
        labels: Mapping[str, str],
        batch_size: int = 8,
        overlays: bool = True,
    ) -> None:
        self.dataset_dir, self.output_dir = Path(dataset_dir), Path(output_dir)
        self.segmenter, self.weights = segmenter, Path(weights)
        self.labels = {int(index): name for index, name in labels.items() if int(index) > 0}
        self.batch_size = batch_size
        self.overlays = overlays

    def run(self) -> None:
        """Runs over the folder.

        Raises:
            SystemExit: with code 2 when folder, weights or options cannot be used, with code 1 when cases failed.
        """
        try:
            failed, total = self._run()
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:  # a full disk, say, outside of any case
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        if failed:
            report = self.output_dir / "report.csv"
            print(f"{failed} of {total} cases failed; the reasons are in {report}", file=sys.stderr)
            raise SystemExit(1)

    def _run(self) -> tuple[int, int]:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        cases = self._find_cases()
        self.load_network()
        self._make_output_dir()
        counts = {"ok": 0, "failed": 0}
        started = time.perf_counter()
        with (self.output_dir / "report.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=[f.name for f in fields(Row)])
            writer.writeheader()
            for rows in self._segment(cases):
                counts[rows[0].status] += 1
                writer.writerows(asdict(row) for row in rows)
                file.flush()
        self._write_summary(counts, time.perf_counter() - started)
        return counts["failed"], len(cases)

    def _find_cases(self) -> list[Case]:
        if not self.dataset_dir.is_dir():
            raise UsageError(f"{str(self.dataset_dir)!r} is not a folder; give the folder that holds the images")
        source, target = self.dataset_dir.resolve(), self.output_dir.resolve()
        if target == source or source in target.parents:
            raise UsageError(f"output folder {target} lies inside the input folder; choose one outside")
        find, suffixes, wanted = INPUTS[self.segmenter.spatial_dims]
        sources = [Path(path) for path in find(self.dataset_dir)]
        others = len(find_other_files(self.dataset_dir, suffixes))
        if not sources:
            raise UsageError(f"no {wanted} in {self.dataset_dir} ({others} other files)")
        if others:
            logger.warning("%d files are no %s and are left out", others, wanted)
        relative = [path.relative_to(self.dataset_dir) for path in sources]
        return [
            Case(source=source, name=path.as_posix(), output=self.output_dir / output)
            for source, path, output in zip(sources, relative, _name_outputs(relative), strict=True)
        ]

    def load_network(self) -> None:
        """Loads the weights and switches the network to evaluation.

        Raises:
            UsageError: they do not exist, cannot be read or do not fit.
        """
        try:
            load_weights(self.segmenter.network, self.weights)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(str(error)) from error
        self.segmenter.network.eval()

    def _make_output_dir(self) -> None:
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the output folder {self.output_dir}: {error.strerror}") from error
        if not os.access(self.output_dir, os.W_OK):
            raise UsageError(f"cannot write to the output folder {self.output_dir}; choose another one")

    def _segment(self, cases: Sequence[Case]) -> Iterator[list[Row]]:
        for chunk in _chunks(tqdm(cases, desc="Segmenting", unit="case"), self.batch_size):
            loaded = []
            for case in chunk:
                started = time.perf_counter()
                try:
                    loaded.append((case, self.segmenter.read(case.source)))
                except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this case only
                    yield _failed(case, "unreadable image", error)
                case.seconds = time.perf_counter() - started
            for same_size in _group_by_shape(loaded):
                yield from self._segment_batch([case for case, _ in same_size], [data for _, data in same_size])

    def _segment_batch(self, cases: list[Case], data: list[dict]) -> Iterator[list[Row]]:
        started = time.perf_counter()
        results = self.segmenter.infer(data)
        share = (time.perf_counter() - started) / len(cases)
        for case, result in zip(cases, results, strict=True):
            case.seconds += share
            started = time.perf_counter()
            try:
                rows = self._write_case(case, self.segmenter.make_label_map(result))
            except OSError as error:
                yield _failed(case, "output cannot be written", error)
                continue
            case.seconds += time.perf_counter() - started
            for row in rows:
                row.seconds = round(case.seconds, 3)
            yield rows

    def _write_case(self, case: Case, label: np.ndarray) -> list[Row]:
        case.output.parent.mkdir(parents=True, exist_ok=True)
        write = _write_image if self.segmenter.spatial_dims == 2 else _write_volume
        mask, voxel_ml = write(case, label, self.overlays)
        return measure_labels(label, self.labels, case.name, mask.relative_to(self.output_dir).as_posix(), voxel_ml)

    def _write_summary(self, counts: Mapping[str, int], seconds: float) -> None:
        summary = {
            "notice": NOTICE,
            "cases": dict(counts),
            "seconds": round(seconds, 2),
            "weights_sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            "labels": self.labels,
            "device": str(self.segmenter.device),
            "precision": "float32",
            "versions": {name: version(name) for name in ("mobileutr-monai", "monai", "torch", "numpy", "pillow")},
            "python": platform.python_version(),
        }
        text = json.dumps(summary, indent=2) + "\n"
        write_whole(self.output_dir / "report.json", lambda file: file.write(text.encode()))


def _name_outputs(images: Sequence[Path]) -> list[Path]:
    """Returns each path without suffix; with it, or a number, where two would have the same."""
    uses = Counter(strip_suffix(path) for path in images)
    taken = {output for output, number in uses.items() if number == 1}
    outputs = []
    for path in images:
        output = strip_suffix(path)
        if output not in taken:
            name = path.name.replace(".", "_")
            candidates = (output.with_name(name if n == 1 else f"{name}_{n}") for n in count(1))
            output = next(candidate for candidate in candidates if candidate not in taken)
            taken.add(output)
        outputs.append(output)
    return outputs


def _chunks(items: Any, size: int) -> Iterator[list]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _group_by_shape(loaded: list[tuple[Case, dict]]) -> list[list[tuple[Case, dict]]]:
    groups: dict[tuple, list[tuple[Case, dict]]] = {}
    for item in loaded:
        groups.setdefault(tuple(item[1]["image"].shape), []).append(item)
    return list(groups.values())


def _failed(case: Case, reason: str, error: BaseException) -> list[Row]:
    while error.__cause__ is not None:  # MONAI wraps a transform's error in one about the transform
        error = error.__cause__
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    logger.warning("%s: %s (%s)", case.name, reason, detail)
    return [Row(case=case.name, status="failed", reason=f"{reason}: {detail}", seconds=round(case.seconds, 3))]


def _write_image(case: Case, label: np.ndarray, overlay: bool) -> tuple[Path, None]:
    mask = case.output.with_name(f"{case.output.name}_mask.png")
    save_label_image(label, mask)
    if overlay:
        with Image.open(case.source) as image:
            picture = draw_contours(image, label)
        save_picture(picture, case.output.with_name(f"{case.output.name}_overlay.png"))
    return mask, None


def _write_volume(case: Case, label: np.ndarray, overlay: bool) -> tuple[Path, float | None]:
    mask = case.output.with_name(f"{case.output.name}_mask.nii.gz")
    save_label_volume(label, case.source, mask)
    source = cast(nib.nifti1.Nifti1Image, nib.load(case.source))
    if overlay:
        picture = draw_volume(np.asarray(source.dataobj, dtype=np.float32), label, source.affine)
        save_picture(picture, case.output.with_name(f"{case.output.name}_overlay.png"))
    # The unit is often left out; the format's own convention is then mm, provided that the header has a geometry.
    known = source.header["sform_code"] > 0 or source.header["qform_code"] > 0
    unit = {"mm": 1.0, "unknown": 1.0, "micron": 1e-3, "meter": 1e3}[source.header.get_xyzt_units()[0]]
    voxel_mm3 = abs(float(np.linalg.det(source.affine[:3, :3]))) * unit**3
    return mask, voxel_mm3 / MM3_PER_ML if known else None
