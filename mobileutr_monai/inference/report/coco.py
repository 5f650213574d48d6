"""``coco.json``: the label maps of a run's images in COCO's format, made from its results when all cases are done.

There is one annotation per label per image, in run lengths by pycocotools: they are exact, while a polygon of COCO has
no holes, and tools fill it differently at its border. All is read and written case by case. The file ends with the
SHA-256 of what comes before it, so that one that somebody has changed is recognised, and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Any, NamedTuple

import nibabel as nib
import numpy as np
from pydicom import dcmread

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.output_folder import IN_THE_WAY
from mobileutr_monai.core.text import NOTICE
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.report.csv import GONE, read_cases
from mobileutr_monai.readers.pillow_io import open_image

__all__ = ["COCO", "check_coco", "clear_coco", "write_coco"]

COCO = "coco.json"

_KINDS = (CaseKind.IMAGE, CaseKind.NIFTI, CaseKind.STILL)
_INFO = b',\n"info": '


class _Image(NamedTuple):
    number: int
    row: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = map(int, self.row["shape"].split(" x "))
        return rows, columns


def check_coco(folder: Path) -> None:
    """Checks that no other ``coco.json`` is in the output folder.

    Raises:
        ValueError: there is one that no run has written, or that somebody has changed.
    """
    if (folder / COCO).exists() and not _is_ours(folder / COCO):
        raise ValueError(f"{folder / COCO} {IN_THE_WAY}")


def clear_coco(folder: Path) -> None:
    """Removes the file of an earlier run, which is of other results, unless somebody has changed it."""
    if _is_ours(folder / COCO):
        (folder / COCO).unlink()


def write_coco(folder: Path, labels: Sequence[SegmentLabel], description: str) -> Path:
    """Writes ``coco.json`` of the images that were segmented and whose input is there; returns it.

    Args:
        folder: the output folder, with a finished ``report.csv``.
        labels: of the bundle; a category's id is the label's index.
        description: of the run.

    Raises:
        OSError: a result is gone.
        ValueError: a result cannot be read, or pycocotools is not installed.
    """
    check_coco(folder)
    info = {"description": description, "contributor": "mobileutr", "notice": NOTICE}
    categories = [{"id": label.index, "name": label.name, "supercategory": ""} for label in labels]

    def write(file: IO[bytes]) -> None:
        digest = hashlib.sha256()
        for text in _render(folder, categories, labels):
            file.write(text.encode())
            digest.update(text.encode())
        file.write(_INFO + json.dumps({**info, "sha256": digest.hexdigest()}).encode() + b"}\n")

    write_atomic(folder / COCO, write)
    return folder / COCO


def _render(folder: Path, categories: Any, labels: Sequence[SegmentLabel]) -> Iterator[str]:
    yield f'{{"categories": {json.dumps(categories)}'
    yield from _render_list("images", map(_describe_image, _find_images(folder)))
    yield from _render_list("annotations", _annotate_all(folder, labels))


def _render_list(name: str, items: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f',\n"{name}": ['
    for number, item in enumerate(items):
        yield f"{',' if number else ''}\n{json.dumps(item)}"
    yield "]"


def _find_images(folder: Path) -> Iterator[_Image]:
    numbers = count(1)
    for row, *_ in read_cases(folder / "report.csv"):
        if row["status"] == "ok" and row["kind"] in [kind.value for kind in _KINDS] and GONE not in row["flag"]:
            yield _Image(next(numbers), row)


def _describe_image(image: _Image) -> dict[str, Any]:
    rows, columns = image.size
    return {"id": image.number, "file_name": image.row["case"], "width": columns, "height": rows}


def _annotate_all(folder: Path, labels: Sequence[SegmentLabel]) -> Iterator[dict[str, Any]]:
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise ValueError('format coco needs a package: pip install "mobileutr-monai[coco]"') from None
    numbers = count(1)
    for image in _find_images(folder):
        for index, region in _read_regions(folder / image.row["output"], image.size, labels):
            runs = coco.encode(np.asfortranarray(region, np.uint8))
            yield {
                "id": next(numbers),
                "image_id": image.number,
                "category_id": index,
                "segmentation": {"size": list(image.size), "counts": runs["counts"].decode("ascii")},
                "area": int(coco.area(runs)),
                "bbox": coco.toBbox(runs).tolist(),
                "iscrowd": 0,
            }


def _read_regions(
    path: Path, size: tuple[int, int], labels: Sequence[SegmentLabel]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the index of every label that is in a result, and its pixels, (rows, columns)."""
    label = _read_segments(path, labels) if path.suffix == ".dcm" else _read_plain(path, size)
    if label.shape != size:
        raise ValueError(f"{path} is {label.shape}, report.csv has {size}")
    for item in labels:
        if (region := label == item.index).any():
            yield item.index, region


def _read_plain(path: Path, size: tuple[int, int]) -> np.ndarray:
    if path.suffix == ".png":
        with open_image(path, "mask") as image:
            return np.asarray(image)
    # The NIfTI of an image has its columns along the first axis.
    return np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj).reshape(size[::-1]).T


def _read_segments(path: Path, labels: Sequence[SegmentLabel]) -> np.ndarray:
    """Returns the label map of an image's DICOM Segmentation, binary or LABELMAP."""
    dataset = dcmread(path)
    if dataset.SegmentationType == "LABELMAP":
        indices = np.array([0, *(item.index for item in labels)], np.uint8)
        label: np.ndarray = indices[dataset.pixel_array.reshape(dataset.Rows, dataset.Columns)]
        return label
    shared = dataset.SharedFunctionalGroupsSequence[0]
    label = np.zeros((dataset.Rows, dataset.Columns), np.uint8)
    frames = dataset.pixel_array.reshape(-1, *label.shape)
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        label[frame > 0] = labels[number - 1].index
    return label


def _is_ours(path: Path) -> bool:
    """Whether a run has written a file, and nobody has changed it since."""
    try:
        content, _, info = path.read_bytes().rpartition(_INFO)
        return bool(json.loads(info.rstrip()[:-1])["sha256"] == hashlib.sha256(content).hexdigest())
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
