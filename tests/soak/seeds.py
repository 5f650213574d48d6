"""What the corpus is made from: small synthetic files of every kind, the bundles' samples, real DICOM where it is."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

__all__ = ["SHARED_DICOM", "Seed", "compress", "find_seeds", "make_dicom", "make_image", "make_nifti"]

ROOT = Path(__file__).resolve().parents[2]
SHARED_DICOM = ROOT.parent / "shared" / "data" / "dicom"
LARGEST = 300_000
"""Bytes of the largest real file that is taken: mutations of the pixels of larger ones rarely matter."""
MOST_OF_A_SERIES = 2

KINDS = {".png": "png", ".jpg": "jpeg", ".tif": "tiff", ".bmp": "bmp", ".nii": "nifti", ".gz": "nifti", ".dcm": "dicom"}


@dataclass(frozen=True)
class Seed:
    """A file that readers take, and what kind of mutation fits it."""

    name: str
    kind: str
    data: bytes


def find_seeds(real: bool = True) -> list[Seed]:
    """Returns the seeds in a fixed order.

    Args:
        real: also the bundles' samples, and the DICOM files next to the repository.
    """
    seeds = [Seed(name, KINDS[Path(name).suffix], data) for name, data in _make_seeds().items()]
    if real:
        paths = sorted(ROOT.glob("bundles/*/sample_data/images/*"))
        small = sorted(p for p in SHARED_DICOM.rglob("*.dcm") if p.stat().st_size <= LARGEST)
        series = {p.parent: [q for q in small if q.parent == p.parent] for p in small if "_series" in p.parent.name}
        paths += [p for p in small if p not in series.get(p.parent, [])[MOST_OF_A_SERIES:]]
        seeds += [Seed(path.name.replace(" ", "_"), KINDS[path.suffix], path.read_bytes()) for path in paths]
    return seeds


def make_image(format: str, mode: str = "RGB", size: tuple[int, int] = (40, 24), **options: object) -> bytes:
    """Returns a picture of noise."""
    noise = Image.effect_noise(size, 80)
    picture = {"I;16": lambda: Image.fromarray(np.asarray(noise).astype(np.uint16) * 100)}.get(
        mode, lambda: noise.convert(mode)
    )()
    out = BytesIO()
    if format == "TIFF" and options.pop("pages", 1) > 1:
        options |= {"save_all": True, "append_images": [picture, picture]}
    picture.save(out, format, **options)
    return out.getvalue()


def make_nifti(
    shape: tuple[int, ...] = (20, 24, 16), kind: str = "int16", order: str = "<", second: bool = False
) -> bytes:
    """Returns a volume of a ramp, with a geometry."""
    values = (np.arange(np.prod(shape)) % 200).reshape(shape).astype(kind)
    make = nib.Nifti2Image if second else nib.Nifti1Image
    header = (nib.Nifti2Header if second else nib.Nifti1Header)(endianness=order)
    header.set_data_dtype(kind)
    image = make(values, np.diag([-1.0, 1.0, 2.0, 1.0]), header)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def make_dicom(
    pixels: np.ndarray, frames: list[bytes] | None = None, syntax: str = ExplicitVRLittleEndian, **attributes: object
) -> bytes:
    """Returns a DICOM file of pixels, or of encoded frames, with any attributes."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.826.0.1.3680043.10.1.1"
    dataset.Modality, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        "US",
        "1.2.826.0.1",
        "1.2.826.0.1.1000000001",
    )
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    dataset.Rows, dataset.Columns = shape[-2:]
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = encapsulate(frames) if frames else pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if frames or dataset.BitsAllocated == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _make_seeds() -> dict[str, bytes]:
    ramp = (np.arange(24 * 40) % 251).reshape(24, 40)
    grey, deep = ramp.astype(np.uint8), (ramp * 16).astype(np.uint16)
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    jpegs = [_encode(Image.fromarray(np.roll(colour, shift, 0)), "JPEG") for shift in range(5)]
    slices = {
        "Modality": "MR",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    }
    return {
        "rgb.png": make_image("PNG"),
        "grey.png": make_image("PNG", "L"),
        "alpha.png": make_image("PNG", "RGBA"),
        "palette.png": make_image("PNG", "P"),
        "bits.png": make_image("PNG", "1"),
        "deep.png": make_image("PNG", "I;16"),
        "rgb.jpg": make_image("JPEG"),
        "grey.jpg": make_image("JPEG", "L"),
        "cmyk.jpg": make_image("JPEG", "CMYK"),
        "progressive.jpg": make_image("JPEG", progressive=True),
        "rgb.bmp": make_image("BMP"),
        "palette.bmp": make_image("BMP", "P"),
        "raw.tif": make_image("TIFF"),
        "lzw.tif": make_image("TIFF", compression="tiff_lzw"),
        "deflate.tif": make_image("TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": make_image("TIFF", compression="jpeg"),
        "fax.tif": make_image("TIFF", "1", compression="group4"),
        "deep.tif": make_image("TIFF", "I;16"),
        "float.tif": make_image("TIFF", "F"),
        "pages.tif": make_image("TIFF", pages=3),
        "int16.nii": make_nifti(),
        "float32.nii": make_nifti(kind="float32"),
        "swapped.nii": make_nifti(order=">"),
        "second.nii": make_nifti(second=True),
        "packed.nii.gz": gzip.compress(make_nifti(), 6, mtime=0),
        "flat.nii.gz": gzip.compress(make_nifti((40, 24)), 6, mtime=0),
        "grey.dcm": make_dicom(grey),
        "deep.dcm": make_dicom(deep, WindowCenter=1000, WindowWidth=2000),
        "colour.dcm": make_dicom(colour),
        "slice.dcm": make_dicom(deep, **slices),
        "cine.dcm": make_dicom(np.stack([colour] * 4)),
        "cine_jpeg.dcm": make_dicom(
            np.stack([colour] * 5), jpegs, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"
        ),
        "deflated.dcm": make_dicom(deep, syntax=DeflatedExplicitVRLittleEndian),
        "rle.dcm": compress(make_dicom(deep), RLELossless),
        "jpegls.dcm": compress(make_dicom(deep), JPEGLSLossless),
        # openjpeg's encoder wants 32 pixels a side
        "jpeg2000.dcm": compress(make_dicom(np.tile(deep, (2, 1))), JPEG2000Lossless),
    }


def _encode(picture: Image.Image, format: str) -> bytes:
    out = BytesIO()
    picture.save(out, format)
    return out.getvalue()


def compress(data: bytes, syntax: str) -> bytes:
    """Returns a DICOM file in another encoding."""
    dataset = dcmread(BytesIO(data))
    dataset.compress(syntax, generate_instance_uid=False)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()
