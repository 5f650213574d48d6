"""What kinds of input there are, and the suffixes of their files, in lower case."""

from __future__ import annotations

from enum import Enum

__all__ = ["DICOM_SUFFIXES", "IMAGE_SUFFIXES", "VOLUME_SUFFIXES", "CaseKind"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


class CaseKind(str, Enum):
    """What a case is: a still is one frame, a cine the frames of one file, a series the slices of a volume."""

    IMAGE = "image"
    NIFTI = "NIfTI"
    STILL = "DICOM still"
    CINE = "DICOM cine"
    SERIES = "DICOM series"

    def __str__(self) -> str:
        return str(self.value)
