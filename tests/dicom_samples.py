"""Real images as DICOM: a still of the ultrasound samples, a series of the MR samples."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, UltrasoundImageStorage, generate_uid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def make_dataset(sop_class: str, modality: str, pixels: np.ndarray) -> Dataset:
    """Returns an image object; pixels are (rows, columns) or (rows, columns, 3)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Test^Image", "test", modality
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20260101", "120000", "1", ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.PixelData = pixels.tobytes()
    return dataset


def write_still(picture: Path, mode: str, path: Path) -> str:
    """Writes a picture as an ultrasound still, grey ("L") or "RGB"; returns its series UID."""
    pixels = np.asarray(Image.open(picture).convert(mode))
    pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
    dataset = make_dataset(UltrasoundImageStorage, "US", np.ascontiguousarray(pixels))
    dataset.save_as(path, enforce_file_format=True)
    return str(dataset.SeriesInstanceUID)


def write_series(volume: Path, folder: Path) -> str:
    """Writes a volume as an MR series, its files in no order; returns its series UID."""
    image = nib.load(volume)
    values = np.asarray(image.dataobj)
    values = np.rint((values - values.min()) * (4000 / np.ptp(values))).astype(np.uint16)
    affine = LPS_TO_RAS @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / spacing
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index in range(values.shape[2]):
        dataset = make_dataset(MRImageStorage, "MR", np.ascontiguousarray(values[..., index].T))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.InstanceNumber = (index * 7) % values.shape[2] + 1
        dataset.ImageOrientationPatient = [*map(float, directions[:, 0]), *map(float, directions[:, 1])]
        dataset.ImagePositionPatient = list(map(float, affine[:3, 3] + index * affine[:3, 2]))
        dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        dataset.SliceThickness = float(spacing[2])
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
    return str(series)
