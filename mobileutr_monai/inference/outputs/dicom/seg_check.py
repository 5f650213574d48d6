"""A DICOM Segmentation that was written, compared with what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from mobileutr_monai.inference.outputs.dicom.provenance import OutputCheckError
from mobileutr_monai.inference.outputs.dicom.sources import SourceSlice

__all__ = ["check_written", "find_segment_number", "read_frame"]


def check_written(path: Path, output: Path, slices: Sequence[SourceSlice], pixels: np.ndarray, count: int) -> None:
    """Reads a segmentation again and compares every frame with its slice.

    By hand and bit by bit, not with highdicom, which wrote it: what a library does wrong in both directions would not
    show.

    Args:
        output: name for the error.
        count: number of segments, without the background.

    Shape:
        - pixels: (slices, rows, columns), segment numbers; (slices, rows, columns, segments), values of a fractional
          segmentation.

    Raises:
        OutputCheckError: if frames are missing, twice there, of other slices, or other masks.
    """
    dataset = dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    described = [item for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0]
    if int(dataset.NumberOfFrames) != len(groups) or len(described) != count:
        raise OutputCheckError(f"{output}: segmentation has frames or segments missing")
    places = {(item.header.sop_uid, item.frame): place for place, item in enumerate(slices)}
    found = set()
    for index, group in enumerate(groups):
        number = find_segment_number(dataset, group)
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = places.get((reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")))
        is_new = place is not None and (number, place) not in found
        if place is None or not is_new or not np.array_equal(read_frame(dataset, index), _pick(pixels[place], number)):
            raise OutputCheckError(f"{output}: frame {index} of the segmentation is not the mask of its slice")
        found.add((number, place))
    is_labelmap = dataset.SegmentationType == "LABELMAP"
    expected = {(number, place) for place, plane in enumerate(pixels) for number in _list_numbers(plane, is_labelmap)}
    if lost := len(expected - found):
        raise OutputCheckError(f"{output}: {lost} masks are missing in the segmentation")


def find_segment_number(dataset: Dataset, group: Dataset) -> int | None:
    """Returns the number of the segment that a frame is of; None for frames of a LABELMAP, which hold every segment.

    Args:
        group: per-frame functional groups of the frame.
    """
    if dataset.SegmentationType == "LABELMAP":
        return None
    holder = group if "SegmentIdentificationSequence" in group else dataset.SharedFunctionalGroupsSequence[0]
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def read_frame(dataset: Dataset, index: int) -> np.ndarray:
    """Returns a frame of uncompressed pixel data.

    Shape:
        - output: (rows, columns).
    """
    size = dataset.Rows * dataset.Columns
    if dataset.BitsAllocated == 1:
        first, offset = divmod(index * size, 8)
        data = np.frombuffer(dataset.PixelData, np.uint8)[first : first + size // 8 + 2]
        values = np.unpackbits(data, bitorder="little")[offset : offset + size]
    else:
        dtype = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        values = np.frombuffer(dataset.PixelData, dtype, size, index * size * dtype.itemsize)
    return values.reshape(dataset.Rows, dataset.Columns)


def _pick(plane: np.ndarray, number: int | None) -> np.ndarray:
    """Returns what the frame of a segment, or of all, must hold."""
    if number is None:
        return plane
    return plane == number if plane.ndim == 2 else plane[..., number - 1]


def _list_numbers(plane: np.ndarray, is_labelmap: bool) -> list[int] | list[None]:
    """Returns the segments of which a slice must have a frame."""
    if is_labelmap:
        return [None] if plane.any() else []
    if plane.ndim == 2:
        return np.unique(plane[plane > 0]).tolist()  # type: ignore[no-any-return]
    return (np.flatnonzero(plane.any(axis=(0, 1))) + 1).tolist()
