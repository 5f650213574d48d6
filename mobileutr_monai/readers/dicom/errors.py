"""Why a DICOM file or series is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from pydicom.errors import BytesLengthException, InvalidDicomError

from mobileutr_monai.core import read_errors

__all__ = ["READ_ERRORS", "DicomError", "DicomReason", "as_dicom_errors"]

# What pydicom and the decoders raise on broken files.
READ_ERRORS = (*read_errors.READ_ERRORS, BytesLengthException, InvalidDicomError)


class DicomReason(str, Enum):
    """Why a file, or a series, is not used."""

    NOT_DICOM = "not a DICOM file"
    DICOMDIR = "a DICOMDIR"
    NOT_AN_IMAGE = "not an image object"
    UNREADABLE = "unreadable header"
    NO_PIXELS = "no pixel data"
    INCOMPLETE = "incomplete image description"
    TOO_LARGE = "too large"
    UNSUPPORTED_SYNTAX = "unsupported transfer syntax"
    UNSUPPORTED_IMAGE = "unsupported kind of image"
    BAD_PIXELS = "pixels cannot be decoded"
    MIXED_SERIES = "more than one series or image"
    MIXED_SIZES = "mixed sizes in a series"
    MIXED_ORIENTATIONS = "mixed orientations in a series"
    DUPLICATE_POSITIONS = "duplicate positions in a series"
    SLICE_GAP = "unevenly spaced slices"
    NOT_A_VOLUME = "not a volume"
    NOT_ONE_FRAME = "more than one frame"

    @property
    def is_skip(self) -> bool:
        """Whether nothing is wrong with the file: it holds no image."""
        return self in (DicomReason.NOT_DICOM, DicomReason.DICOMDIR, DicomReason.NOT_AN_IMAGE)


class DicomError(ValueError):
    """A DICOM file or series that cannot be used, in one line that names the file.

    Args:
        path: the file, or the first one of a series.
        reason: why.
        detail: what was found and, if there is one, the way out.
    """

    def __init__(self, path: str | Path, reason: DicomReason, detail: str = "") -> None:
        self.path = Path(path)
        self.reason = reason
        self.detail = " ".join(detail.split())
        super().__init__(f"{self.path}: {reason.value}" + (f": {self.detail}" if self.detail else ""))

    def __reduce__(self) -> tuple[type[DicomError], tuple[Path, DicomReason, str]]:
        return type(self), (self.path, self.reason, self.detail)


@contextmanager
def as_dicom_errors(path: str | Path, reason: DicomReason) -> Iterator[None]:
    """Turns whatever a broken file raises into one kind of error, without the values that its message may quote.

    That message is not chained either: a traceback would print it.
    """
    try:
        yield
    except DicomError:
        raise
    except READ_ERRORS as error:
        raise DicomError(path, reason, type(error).__name__) from None
