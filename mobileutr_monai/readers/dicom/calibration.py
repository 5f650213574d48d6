"""What a pixel of a DICOM image measures, in mm, where that is known.

PS3.3 C.8.5.5 (ultrasound regions), 10.7 (pixel spacing and its calibration).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom.errors import as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, is_dicom, numbers, read_header

__all__ = [
    "PixelSize",
    "UltrasoundRegion",
    "explain_missing_tissue",
    "find_tissue",
    "mask_outside_tissue",
    "read_pixel_size",
    "read_tissue",
    "read_ultrasound_regions",
]

# Modalities whose PixelSpacing is a distance in the patient. In projections it is one at the detector, or of no known
# depth, and in secondary captures it is what the software liked.
CROSS_SECTIONS = ("CT", "MR", "PT")
CALIBRATIONS = ("GEOMETRY", "FIDUCIAL")
# PixelSpacing and ImagerPixelSpacing that differ by more, as a fraction, are not the same: it was calibrated.
SAME_SPACING = 1e-3
# Regions whose pixels differ by more, as a fraction, have different scales.
SAME_SCALE = 1e-3
# Pixels that a region may reach out of the image; some machines count its last pixel from 1.
REGION_OVERHANG = 1

_TISSUE, _CENTIMETRES = 1, 3
_KEYWORDS = (
    "Rows",
    "Columns",
    "Modality",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelSpacingCalibrationType",
    "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


@dataclass(frozen=True)
class PixelSize:
    """Height and width of a pixel, in mm."""

    row_mm: float
    column_mm: float


@dataclass(frozen=True)
class UltrasoundRegion:
    """A rectangle of an ultrasound image, in pixels; the last row and column are not in it.

    Attributes:
        is_tissue: a 2D image of tissue, neither M-mode, Doppler nor graphics.
        pixel_size: only where both axes of tissue are calibrated in cm.
    """

    top: int
    left: int
    bottom: int
    right: int
    is_tissue: bool
    pixel_size: PixelSize | None


def read_ultrasound_regions(file: str | Path | DicomHeader) -> list[UltrasoundRegion]:
    """Returns the regions of an ultrasound image, in the file's order.

    Regions that reach out of the image are left out: the image was resized after it was calibrated.

    Raises:
        DicomError: if the file is no DICOM, or broken.
    """
    header = _header(file)
    with as_dicom_errors(header.path, Reason.BAD_HEADER):
        regions = header.dataset.get("SequenceOfUltrasoundRegions") or []
        found = [_read_region(region, header.rows, header.columns) for region in regions]
    return [region for region in found if region is not None]


def find_tissue(regions: Sequence[UltrasoundRegion]) -> tuple[int, int, int, int] | None:
    """Returns (top, left, bottom, right) of the rectangle around all tissue, to crop to; None if it is not known."""
    tissue = [region for region in regions if region.is_tissue]
    if not tissue:
        return None
    return (
        min(region.top for region in tissue),
        min(region.left for region in tissue),
        max(region.bottom for region in tissue),
        max(region.right for region in tissue),
    )


def read_tissue(path: str | Path) -> tuple[int, int, int, int] | None:
    """Returns what ``find_tissue`` does for an ultrasound file, None for any other."""
    return find_tissue(read_ultrasound_regions(path)) if is_dicom(path) else None


def explain_missing_tissue(file: str | Path | DicomHeader) -> str:
    """Returns why ``find_tissue`` finds none in an ultrasound image, as the end of a sentence.

    Raises:
        DicomError: if the file is no DICOM, or broken.
    """
    header = _header(file)
    with as_dicom_errors(header.path, Reason.BAD_HEADER):
        formats = [
            region.get("RegionSpatialFormat") for region in header.dataset.get("SequenceOfUltrasoundRegions") or []
        ]
    if _TISSUE in formats:
        return "the region of tissue that the file defines does not lie within the image"
    return "none of the regions that the file defines is of tissue" if formats else "the file defines no tissue regions"


def mask_outside_tissue(path: str | Path) -> np.ndarray | None:
    """Returns which pixels of an ultrasound file lie in none of the regions of tissue that it states.

    None for other files, and where ``find_tissue`` finds no tissue: nothing is known of them.

    Shape:
        (rows, columns), bool.

    Raises:
        DicomError: if the file is broken.
    """
    if not is_dicom(path):
        return None
    header = _header(path)
    tissue = [region for region in read_ultrasound_regions(header) if region.is_tissue]
    if not tissue:
        return None
    outside = np.ones((header.rows, header.columns), bool)
    for region in tissue:
        outside[region.top : region.bottom, region.left : region.right] = False
    return outside


def read_pixel_size(file: str | Path | DicomHeader) -> PixelSize | None:
    """Returns the size of an image's pixels in the patient, None unless it is calibrated.

    Cross-sections: PixelSpacing. Ultrasound: its tissue regions, if they agree. Others: PixelSpacing if it says to be
    calibrated, or differs from that of the detector.

    Raises:
        DicomError: if the file is no DICOM, or broken.
    """
    header = _header(file)
    with as_dicom_errors(header.path, Reason.BAD_HEADER):
        if header.dataset.get("SequenceOfUltrasoundRegions"):
            return _agree([region.pixel_size for region in read_ultrasound_regions(header) if region.is_tissue])
        spacing = numbers(frame_attributes(header.dataset, 0), "PixelSpacing", 2)
        if spacing is None or min(spacing) <= 0:
            return None
        is_real = header.modality in CROSS_SECTIONS or _is_calibrated(header.dataset, spacing)
        return PixelSize(*spacing) if is_real else None


def _header(file: str | Path | DicomHeader) -> DicomHeader:
    return file if isinstance(file, DicomHeader) else read_header(file, _KEYWORDS)


def _is_calibrated(dataset: Dataset, spacing: tuple[float, ...]) -> bool:
    if dataset.get("PixelSpacingCalibrationType") in CALIBRATIONS:
        return True
    imager = numbers(dataset, "ImagerPixelSpacing", 2)
    return imager is not None and any(abs(s - i) > SAME_SPACING * i for s, i in zip(spacing, imager, strict=True))


def _agree(sizes: Sequence[PixelSize | None]) -> PixelSize | None:
    first = sizes[0] if sizes else None
    if first is None or any(size is None or not _are_close(size, first) for size in sizes):
        return None
    return first


def _are_close(one: PixelSize, other: PixelSize) -> bool:
    pairs = ((one.row_mm, other.row_mm), (one.column_mm, other.column_mm))
    return all(abs(a - b) <= SAME_SCALE * b for a, b in pairs)


def _read_region(region: Dataset, rows: int, columns: int) -> UltrasoundRegion | None:
    bounds = [numbers(region, f"RegionLocation{name}", 1) for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
    if None in bounds:
        return None
    top, left, last_row, last_column = (int(bound[0]) for bound in bounds if bound is not None)
    if not (0 <= top < last_row < rows + REGION_OVERHANG and 0 <= left < last_column < columns + REGION_OVERHANG):
        return None
    is_tissue = region.get("RegionSpatialFormat") == _TISSUE
    return UltrasoundRegion(
        top,
        left,
        min(last_row + 1, rows),
        min(last_column + 1, columns),
        is_tissue,
        _read_deltas(region) if is_tissue else None,
    )


def _read_deltas(region: Dataset) -> PixelSize | None:
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    down, across = numbers(region, "PhysicalDeltaY", 1), numbers(region, "PhysicalDeltaX", 1)
    if units != (_CENTIMETRES, _CENTIMETRES) or not down or not across or not down[0] or not across[0]:
        return None
    return PixelSize(abs(down[0]) * 10, abs(across[0]) * 10)
