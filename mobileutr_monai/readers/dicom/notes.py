"""What reading a DICOM file changed or ignored, in words for the report."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import UID

from mobileutr_monai.readers.dicom.header import frame_attributes, read_header
from mobileutr_monai.readers.dicom.luts import explain_unusable

__all__ = ["find_dicom_notes"]


def find_dicom_notes(path: Path) -> tuple[str, ...]:
    """Returns what somebody who uses the result should know of how a file was read.

    Raises:
        DicomError: the file is no DICOM, or broken.
    """
    header = read_header(path)
    notes = []
    declared = header.dataset.file_meta.get("TransferSyntaxUID")
    if declared and declared != header.syntax:
        notes.append(f"encoded as {UID(header.syntax).name}, though it declares {UID(declared).name}")
    if header.samples == 1:
        notes += explain_unusable(frame_attributes(header.dataset, 0))
    return tuple(notes)
