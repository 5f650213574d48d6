"""What reading an input changed or assumed, in words for the report."""

from __future__ import annotations

from mobileutr_monai.readers.cases import CaseKind, InputCase
from mobileutr_monai.readers.dicom.notes import find_dicom_notes
from mobileutr_monai.readers.nifti_file import read_volume_geometry
from mobileutr_monai.readers.pillow_io import look_at

__all__ = ["find_notes"]


def find_notes(case: InputCase) -> tuple[str, ...]:
    """Returns what somebody who uses the result of a case should know of how it was read.

    Raises:
        ValueError: the file can no longer be read.
    """
    if case.kind is CaseKind.IMAGE:
        return look_at(case.paths[0]).losses
    if case.kind is CaseKind.NIFTI and case.spatial_dims == 3:
        return read_volume_geometry(case.paths[0]).notes
    return find_dicom_notes(case.paths[0]) if case.dicom is not None else ()
