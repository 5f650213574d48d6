"""What kinds of input there are, and the suffixes of their files, in lower case."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

__all__ = ["DICOM_SUFFIXES", "IMAGE_SIGNATURES", "IMAGE_SUFFIXES", "VOLUME_SUFFIXES", "CaseKind", "strip_suffix"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
"""What PNG, JPEG, BMP and TIFF begin with."""


class CaseKind(str, Enum):
    """What a case is: a still is one frame, a cine the frames of one file, a series the slices of a volume."""

    IMAGE = "image"
    NIFTI = "NIfTI"
    STILL = "DICOM still"
    CINE = "DICOM cine"
    SERIES = "DICOM series"

    def __str__(self) -> str:
        return str(self.value)


def strip_suffix(path: Path) -> Path:
    """Returns the path without the suffix of an image, NIfTI or DICOM file; ``.nii.gz`` is one, a UID's end none."""
    for suffix in (*reversed(VOLUME_SUFFIXES), *IMAGE_SUFFIXES, *DICOM_SUFFIXES):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    return path
