"""DICOM Segmentations, ours and those of other software, as label maps of the image that they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.series import DicomCase

__all__ = ["read_segmentation"]


def read_segmentation(case: DicomCase, path: Path, labels: Sequence[SegmentLabel]) -> np.ndarray:
    """Returns the label map that a binary segmentation of the case holds.

    A segment is the label of its name, in any capitals; where no name is a label's, segment numbers count.

    Shape:
        - output: (rows, columns) of a still, (columns, rows, slices) of a volume, uint8.

    Raises:
        DicomError: it is no binary segmentation, or of another image.
    """
    with as_dicom_errors(path, Reason.BAD_HEADER):
        dataset = dcmread(path)
        if dataset.get("SegmentationType") != "BINARY":
            raise DicomError(path, Reason.UNSUPPORTED_IMAGE, "not a binary segmentation")
        indices = _match(dataset, labels)
        planes = np.zeros((case.frames, case.rows, case.columns), np.uint8)
        frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        if frames.shape[1:] != planes.shape[1:]:
            raise DicomError(path, Reason.MIXED_SIZES, "segmentation of an image of another size")
        for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            shared = dataset.SharedFunctionalGroupsSequence[0]
            holder = group if "SegmentIdentificationSequence" in group else shared
            number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            planes[_find_place(case, path, group)][frame > 0] = indices[number]
    return planes[0] if case.kind is not CaseKind.SERIES else planes.transpose(2, 1, 0)


def _match(dataset: Dataset, labels: Sequence[SegmentLabel]) -> dict[int, int]:
    """Segment number -> label index."""
    by_name = {label.name.lower(): label.index for label in labels}
    segments = {int(item.SegmentNumber): str(item.SegmentLabel).lower() for item in dataset.SegmentSequence}
    if any(name in by_name for name in segments.values()):
        return {number: by_name.get(name, 0) for number, name in segments.items()}
    known = [label.index for label in labels]
    return {number: number if number in known else 0 for number in segments}


def _find_place(case: DicomCase, path: Path, group: Dataset) -> int:
    """The slice of the case that a frame is of."""
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    if source.ReferencedSOPInstanceUID not in case.sop_uids:
        raise DicomError(path, Reason.MIXED_SERIES, "segmentation of another image")
    if case.frame_order:
        return case.frame_order.index(int(source.get("ReferencedFrameNumber", 1)) - 1)
    return case.sop_uids.index(source.ReferencedSOPInstanceUID)
