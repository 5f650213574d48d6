"""What kinds of input there are, and the suffixes of their files, in lower case."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "ITK_SUFFIXES",
    "VIDEO_SUFFIXES",
    "VOLUME_SUFFIXES",
    "CaseKind",
    "begins_like_image",
    "strip_suffix",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF87a", b"GIF89a")


class CaseKind(str, Enum):
    """What a case is: a still is one frame, a cine the frames of one file, a series the slices of a volume."""

    IMAGE = "image"
    NIFTI = "NIfTI"
    STILL = "DICOM still"
    CINE = "DICOM cine"
    VIDEO = "video"
    SERIES = "DICOM series"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def has_frames(self) -> bool:
        """Whether it is segmented frame by frame, as a stream."""
        return self in (CaseKind.CINE, CaseKind.VIDEO)


def begins_like_image(start: bytes) -> bool:
    """Whether a file that begins so is PNG, JPEG, BMP, TIFF, WebP or GIF; 12 bytes tell."""
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def strip_suffix(path: Path) -> Path:
    """Returns the path without the suffix of an input's format; ``.nii.gz`` is one, the end of a UID is none."""
    for suffix in (*reversed(VOLUME_SUFFIXES), *IMAGE_SUFFIXES, *DICOM_SUFFIXES, *ITK_SUFFIXES, *VIDEO_SUFFIXES):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    return path
