"""DICOM for the tests: files made with pydicom, and the real ones next to the repository where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DICOM = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"

WriteDicom = Callable[..., Path]


@pytest.fixture(scope="session")
def dicom_folder() -> Path:
    """The real DICOM files."""
    if not DICOM.is_dir():
        pytest.skip(f"no {DICOM}")
    return DICOM


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Writes pixels, or encoded frames, and any attributes to a DICOM file; None leaves an attribute out."""

    def write(
        name: str,
        pixels: np.ndarray | None = None,
        frames: list[bytes] | None = None,
        syntax: str = ExplicitVRLittleEndian,
        preamble: bool = True,
        **attributes: Any,
    ) -> Path:
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.Modality, dataset.PatientName, dataset.PatientID = "OT", "SECRET^NAME", "SECRET-ID"
        if pixels is not None:
            is_colour = pixels.shape[-1] == 3 and pixels.ndim > 2
            shape = pixels.shape[:-1] if is_colour else pixels.shape
            dataset.Rows, dataset.Columns = shape[-2:]
            if len(shape) == 3:
                dataset.NumberOfFrames = shape[0]
            dataset.SamplesPerPixel = 3 if is_colour else 1
            dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
            if is_colour:
                dataset.PlanarConfiguration = 0
            dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
            dataset.HighBit = dataset.BitsStored - 1
            dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
            dataset.PixelData = encapsulate(frames) if frames else pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
            dataset["PixelData"].VR = "OB" if frames or dataset.BitsAllocated == 8 else "OW"
        for keyword, value in attributes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if preamble:
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path, enforce_file_format=True)
        else:
            dataset.save_as(path, implicit_vr=False, little_endian=True)
        return path

    return write
