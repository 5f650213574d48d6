"""What reading a DICOM file changed or ignored, in words for the report."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import UID

from mobileutr_monai.core.limits import BoundedReader
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom.errors import as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, read_header
from mobileutr_monai.readers.dicom.jpeg_headers import read_first_fragment, read_frame_bits
from mobileutr_monai.readers.dicom.luts import explain_unusable

__all__ = ["find_dicom_notes"]


def find_dicom_notes(path: Path) -> tuple[str, ...]:
    """Returns what somebody who uses the result should know of how a file was read.

    Raises:
        DicomError: the file is no DICOM, or broken.
    """
    header = read_header(path)
    notes = []
    with as_dicom_errors(path, Reason.BAD_HEADER):
        declared = header.dataset.file_meta.get("TransferSyntaxUID")
        if declared and declared != header.syntax:
            notes.append(f"encoded as {UID(header.syntax).name}, though it declares {UID(declared).name}")
        notes += _compare_depth(header)
        if header.samples == 1:
            notes += explain_unusable(frame_attributes(header.dataset, 0))
    return tuple(notes)


def _compare_depth(header: DicomHeader) -> list[str]:
    """Returns a note if the first frame is encoded with fewer bits than are declared: it may look too dark."""
    stored = int(header.dataset.get("BitsStored") or 0)
    if not UID(header.syntax).is_encapsulated or header.pixel_bytes is not None:
        return []
    with BoundedReader(header.path) as file:
        bits = read_frame_bits(read_first_fragment(file, header.pixel_place))
    return [f"encoded with {bits} bits, though it declares {stored}"] if bits is not None and bits < stored else []
