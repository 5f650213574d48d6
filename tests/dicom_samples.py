"""Real images as DICOM: a still of the ultrasound samples, a series of the MR samples."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

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


def write_cine(still: Path, path: Path) -> str:
    """Writes a still twice as the frames of a cine in a series of its own; returns its series UID."""
    cine = dcmread(still)
    cine.SOPClassUID = cine.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    cine.SOPInstanceUID = cine.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    cine.StudyInstanceUID, cine.SeriesInstanceUID = generate_uid(), generate_uid()
    cine.NumberOfFrames, cine.PixelData = 2, 2 * cine.PixelData
    cine.save_as(path)
    return str(cine.SeriesInstanceUID)


def write_ultrasound_series(pictures: list[Path], folder: Path) -> tuple[str, list[str]]:
    """Writes stills and, behind them, a cine of the first as one series, as ultrasound machines do.

    Returns:
        its series UID, and the SOP instance UIDs of the stills.
    """
    datasets = []
    for index, picture in enumerate(pictures):
        write_still(picture, "RGB" if index else "L", folder / f"{index}.dcm")
        datasets.append(dcmread(folder / f"{index}.dcm"))
    cine = dcmread(folder / "0.dcm")
    cine.SOPClassUID = cine.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    cine.SOPInstanceUID = cine.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    cine.NumberOfFrames, cine.PixelData = 2, 2 * cine.PixelData
    for number, dataset in enumerate([*datasets, cine], 1):
        dataset.StudyInstanceUID = datasets[0].StudyInstanceUID
        dataset.SeriesInstanceUID = datasets[0].SeriesInstanceUID
        dataset.InstanceNumber = number
        dataset.save_as(folder / f"{number - 1}.dcm")
    return str(cine.SeriesInstanceUID), [str(dataset.SOPInstanceUID) for dataset in datasets]


def complete_series(source: Path, folder: Path, rows: slice, columns: slice) -> str:
    """Copies a real series whose UIDs were taken out of its headers, cut to a part; returns its new series UID.

    A PACS takes no instance without UIDs. Pixels stay JPEG 2000.
    """
    study, series = generate_uid(), generate_uid()
    for path in sorted(source.iterdir()):
        dataset = dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = study, series, "test"
        pixels = np.ascontiguousarray(dataset.pixel_array[rows, columns])
        corner = np.array([*dataset.PixelSpacing]) * (rows.start, columns.start)
        across, down = np.reshape(dataset.ImageOrientationPatient, (2, 3))
        moved = np.array(dataset.ImagePositionPatient) + across * corner[1] + down * corner[0]
        dataset.ImagePositionPatient = [round(float(value), 6) for value in moved]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.compress(JPEG2000Lossless, pixels, generate_instance_uid=False)
        dataset.save_as(folder / path.name)
    return str(series)
