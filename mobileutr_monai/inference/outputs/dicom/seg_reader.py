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
    """Returns the label map that a binary segmentation of the case holds.

    A segment is the label of its name, in any capitals; where no name is a label's, segment numbers count.

    Shape:
        - output: (rows, columns) of a still, (columns, rows, slices) of a volume, uint8.

    Raises:
        DicomError: it is no binary segmentation, or of another image.
    """
    from highdicom.seg import SegmentationTypeValues, segread

    with as_dicom_errors(path, Reason.BAD_HEADER):
        dataset = segread(path)
        if dataset.segmentation_type is not SegmentationTypeValues.BINARY:
            raise DicomError(path, Reason.UNSUPPORTED_IMAGE, "not a binary segmentation")
        indices = _match(dataset, labels)
        if (dataset.Rows, dataset.Columns) != (case.rows, case.columns):
            raise DicomError(path, Reason.MIXED_SIZES, "segmentation of an image of another size")
        if not {uid for _, _, uid in dataset.get_source_image_uids()} <= set(case.sop_uids):
            raise DicomError(path, Reason.MIXED_SERIES, "segmentation of another image")
        numbers = _read_segment_numbers(dataset, case)
        table = np.zeros(max(indices) + 1, np.uint8)
        table[list(indices)] = list(indices.values())
        planes: np.ndarray = table[numbers]
    return planes[0] if case.kind is not CaseKind.SERIES else planes.transpose(2, 1, 0)


def _read_segment_numbers(dataset: Segmentation, case: DicomCase) -> np.ndarray:
    """Returns the segment number of every pixel, 0 where there is none; where segments overlap, the highest one.

    Shape:
        - output: (slices, rows, columns).
    """
    # Frames without a pixel need not be there, and a still has no place in space.
    given: dict[str, Any] = {"combine_segments": True, "skip_overlap_checks": True, "ignore_spatial_locations": True}
    given["assert_missing_frames_are_empty"] = True
    if case.frame_order:
        frames = [frame + 1 for frame in case.frame_order]
        found = dataset.get_pixels_by_source_frame(case.sop_uids[0], frames, **given)
    else:
        found = dataset.get_pixels_by_source_instance(case.sop_uids, **given)
    return np.asarray(found)


def _match(dataset: Dataset, labels: Sequence[SegmentLabel]) -> dict[int, int]:
    """Segment number -> label index."""
    by_name = {label.name.lower(): label.index for label in labels}
    segments = {int(item.SegmentNumber): str(item.SegmentLabel).lower() for item in dataset.SegmentSequence}
    if any(name in by_name for name in segments.values()):
        return {number: by_name.get(name, 0) for number, name in segments.items()}
    known = [label.index for label in labels]
    return {number: number if number in known else 0 for number in segments}
