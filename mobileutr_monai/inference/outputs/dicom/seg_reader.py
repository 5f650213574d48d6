"""DICOM Segmentations, ours and those of other software, as label maps of the image that they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.series import DicomCase

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

__all__ = ["read_segmentation"]


def read_segmentation(case: DicomCase, path: Path, labels: Sequence[SegmentLabel]) -> np.ndarray:
    """Returns the label map that a binary segmentation of the case holds, or one of the type LABELMAP.

    A segment is the label of its name, in any capitals; where no name is a label's, segment numbers count. Segments
    that are no label's are left out.

    Shape:
        - output: (rows, columns) of a still, (columns, rows, slices) of a volume, uint8.

    Raises:
        DicomError: it is fractional, or of another image.
    """
    from highdicom.seg import SegmentationTypeValues, segread

    with as_dicom_errors(path, Reason.BAD_HEADER):
        dataset = segread(path)
        if dataset.segmentation_type is SegmentationTypeValues.FRACTIONAL:
            raise DicomError(path, Reason.UNSUPPORTED_IMAGE, "a fractional segmentation holds no label map")
        indices = _match(dataset, labels)
        if (dataset.Rows, dataset.Columns) != (case.rows, case.columns):
            raise DicomError(path, Reason.MIXED_SIZES, "segmentation of an image of another size")
        _check_sources(dataset, case, path)
        numbers = _read_segment_numbers(dataset, case, [number for number, index in indices.items() if index])
        table = np.zeros(max(indices) + 1, np.uint8)
        table[list(indices)] = list(indices.values())
        planes: np.ndarray = table[numbers]
    return planes[0] if case.kind is not CaseKind.SERIES else planes.transpose(2, 1, 0)


def _check_sources(dataset: Dataset, case: DicomCase, path: Path) -> None:
    """Checks that each frame refers to one slice of the case.

    highdicom reads frames that refer to anything else as empty: their masks would be lost without an error.

    Raises:
        DicomError: a frame does not.
    """
    for group in dataset.PerFrameFunctionalGroupsSequence:
        sources = [source for item in group.DerivationImageSequence for source in item.SourceImageSequence]
        if len(sources) != 1:
            detail = f"a frame refers to {len(sources)} source images; resample the segmentation to the image's slices"
            raise DicomError(path, Reason.UNSUPPORTED_IMAGE, detail)
        if sources[0].ReferencedSOPInstanceUID not in case.sop_uids:
            raise DicomError(path, Reason.MIXED_SERIES, "segmentation of another image")
        if case.frame_order and int(sources[0].get("ReferencedFrameNumber", 0)) - 1 not in case.frame_order:
            raise DicomError(path, Reason.UNSUPPORTED_IMAGE, "a frame does not say which frame of the image it is of")


def _read_segment_numbers(dataset: Segmentation, case: DicomCase, segments: Sequence[int]) -> np.ndarray:
    """Returns the number of one of the segments for every pixel, 0 where there is none; the highest where they overlap.

    Shape:
        - output: (slices, rows, columns).
    """
    if not segments:
        return np.zeros((case.frames, case.rows, case.columns), np.uint8)
    # Frames without a pixel need not be there, and a still has no place in space.
    given: dict[str, Any] = {"combine_segments": True, "skip_overlap_checks": True, "ignore_spatial_locations": True}
    given |= {"assert_missing_frames_are_empty": True, "segment_numbers": segments}
    if case.frame_order:
        frames = [frame + 1 for frame in case.frame_order]
        found = dataset.get_pixels_by_source_frame(case.sop_uids[0], frames, **given)
    else:
        found = dataset.get_pixels_by_source_instance(case.sop_uids, **given)
    return np.asarray(found)


def _match(dataset: Dataset, labels: Sequence[SegmentLabel]) -> dict[int, int]:
    """Segment number -> label index."""
    by_name = {label.name.lower(): label.index for label in labels}
    described = [
        item for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0
    ]  # 0 is a LABELMAP's background
    segments = {int(item.SegmentNumber): str(item.SegmentLabel).lower() for item in described}
    if any(name in by_name for name in segments.values()):
        return {number: by_name.get(name, 0) for number, name in segments.items()}
    known = [label.index for label in labels]
    return {number: number if number in known else 0 for number in segments}
