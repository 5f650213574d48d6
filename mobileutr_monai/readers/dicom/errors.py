"""Why a DICOM file or series is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.errors import BytesLengthException, InvalidDicomError

from mobileutr_monai.core import read_errors
from mobileutr_monai.core.reasons import Reason

__all__ = ["READ_ERRORS", "DicomError", "as_dicom_errors"]

# What pydicom and the decoders raise on broken files.
READ_ERRORS = (*read_errors.READ_ERRORS, BytesLengthException, InvalidDicomError)


class DicomError(ValueError):
    """A DICOM file or series that cannot be used, in one line that names the file.

    Args:
        path: the file, or the first one of a series.
        reason: why.
        detail: what was found and, if something can be done, what.
    """

    def __init__(self, path: str | Path, reason: Reason, detail: str = "") -> None:
        self.path = Path(path)
        self.reason = reason
        self.detail = " ".join(detail.split())
        super().__init__(f"{self.path}: {reason.value}" + (f": {self.detail}" if self.detail else ""))

    def __reduce__(self) -> tuple[type[DicomError], tuple[Path, Reason, str]]:
        return type(self), (self.path, self.reason, self.detail)


_BROKEN = {
    Reason.BAD_HEADER: "an element is broken; dcmdump or another tool shows which one",
    Reason.INCOMPLETE: "a value is not of the kind that its element holds",
}
_FAILED = "it is damaged"


@contextmanager
def as_dicom_errors(path: str | Path, reason: Reason) -> Iterator[None]:
    """Turns whatever a broken file raises into one kind of error, without the values that its message may quote.

    That message is not chained either: a traceback would print it.
    """
    try:
        yield
    except DicomError:
        raise
    except READ_ERRORS as error:
        raise DicomError(path, reason, f"{_BROKEN.get(reason, _FAILED)} ({type(error).__name__})") from None
