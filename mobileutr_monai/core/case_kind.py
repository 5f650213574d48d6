"""What kinds of input there are."""

from __future__ import annotations

from enum import Enum

__all__ = ["CaseKind"]


class CaseKind(str, Enum):
    """What a case is: a still is one frame, a cine the frames of one file, a series the slices of a volume."""

    IMAGE = "image"
    NIFTI = "NIfTI"
    STILL = "DICOM still"
    CINE = "DICOM cine"
    SERIES = "DICOM series"

    def __str__(self) -> str:
        return str(self.value)
