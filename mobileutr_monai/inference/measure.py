"""What a run says of its cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.lengths import find_slice_diameters, measure_circumference, measure_diameters
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import read_pixel_size
from mobileutr_monai.readers.geometry import Geometry
from mobileutr_monai.readers.nifti_file import read_nifti_header, read_volume_geometry
from mobileutr_monai.readers.nifti_geometry import read_pixel_mm

__all__ = [
    "Assessment",
    "Measurement",
    "measure_components",
    "measure_frames",
    "measure_labels",
    "read_affine",
    "read_mm",
]

MM3_PER_ML = 1000.0
MOST_COMPONENTS = 100
"""Components of a label that are measured one by one, the largest; noise has any number of them."""

# From RAS, in which affines are, to the patient coordinates of DICOM: left, posterior, superior.
_RAS_TO_LPS = np.array((-1.0, -1.0, 1.0))


@dataclass
class Measurement:
    """One label of a case.

    Lengths in mm, areas and volumes are there where the file says how large a pixel is, otherwise None.

    Attributes:
        pixels: of an image, voxels of a volume, pixels of all frames of a cine.
        percent: of the whole image, volume or cine.
        diameter_px, diameter_mm: the largest distance of two pixels; in pixels only of images.
        short_diameter_px, short_diameter_mm: of an image, perpendicular to the longest diameter.
        slice_diameter_mm, slice_short_diameter_mm: of a volume, both diameters in the slice with the longest one.
        circumference_px, circumference_mm: of an image, length of the border, with that of holes.
        height_width_ratio: of an image, of the upright rectangle around the label.
        centroid_x_px, centroid_y_px, centroid_z_px: mean index along columns, rows and slices, from 0.
        centroid_left_mm, centroid_posterior_mm, centroid_superior_mm: of a volume, in DICOM's patient coordinates.
        components: pieces that do not touch, corners count as touch in neither 2D nor 3D.
        frames: of a cine, those in which the label is.
        outside_percent: of the label, how much lies outside of the regions of tissue that an ultrasound file states;
            None where it states none.
        component: of one component its number from 1, the largest first; None for the whole label.
        component_pixels: pixels of each component, the largest first; not in the report.
        ends: (row, column) of the ends of the longest, then of the short diameter; of a volume (x, y, z), in the slice
            with the longest one; not in the report.
    """

    label: str
    pixels: int = 0
    percent: float = 0.0
    area_mm2: float | None = None
    volume_ml: float | None = None
    diameter_px: float | None = None
    diameter_mm: float | None = None
    short_diameter_px: float | None = None
    short_diameter_mm: float | None = None
    slice_diameter_mm: float | None = None
    slice_short_diameter_mm: float | None = None
    circumference_px: float | None = None
    circumference_mm: float | None = None
    height_width_ratio: float | None = None
    centroid_x_px: float | None = None
    centroid_y_px: float | None = None
    centroid_z_px: float | None = None
    centroid_left_mm: float | None = None
    centroid_posterior_mm: float | None = None
    centroid_superior_mm: float | None = None
    components: int | None = None
    frames: int | None = None
    outside_percent: float | None = None
    component: int | None = None
    component_pixels: tuple[int, ...] = ()
    ends: tuple[tuple[int, ...], ...] = ()


class Assessment(NamedTuple):
    """How far the result of one label can be relied on: the Dice to expect, None if it is not known, and its flags."""

    confidence: float | None
    flags: list[str]


def read_mm(case: InputCase, dimensions: int) -> np.ndarray | None:
    """Returns the step along each axis of a case's label map in mm, as columns; None where it is not stated."""
    if case.kind is CaseKind.IMAGE:
        return None
    if case.kind is CaseKind.STILL:
        size = read_pixel_size(case.paths[0])
        return None if size is None else np.diag((size.row_mm, size.column_mm))
    if case.dicom is not None and case.dicom.affine is not None:
        return Geometry(case.dicom.affine).to_mm
    if dimensions == 3:
        return read_volume_geometry(case.paths[0]).to_mm
    pixel = read_pixel_mm(read_nifti_header(case.paths[0]))
    return None if pixel is None else np.diag(pixel)


def read_affine(case: InputCase, dimensions: int) -> np.ndarray | None:
    """Returns the affine of a volume from voxel indices to RAS in mm; None for anything else, or where it has none."""
    if dimensions != 3:
        return None
    if case.dicom is not None:
        return case.dicom.affine
    geometry = read_volume_geometry(case.paths[0])
    return geometry.affine if geometry.is_stated else None


def measure_labels(
    label: np.ndarray,
    names: Mapping[int, str],
    spacing: Sequence[float] | np.ndarray | None = None,
    outside: np.ndarray | None = None,
    affine: np.ndarray | None = None,
) -> list[Measurement]:
    """Measures every label, also those that are not in the label map; in millimetres what is not outside.

    Args:
        names: index -> name.
        spacing: mm along the axes; or the step along each axis in mm as columns of a matrix, where axes need not be
            perpendicular; None if it is not known.
        outside: which pixels are outside of what is stated to be tissue, or None if that is not known.
        affine: of a volume, from indices to RAS in mm; None if it is not known.

    Shape:
        - label: (rows, columns) or (x, y, z); outside: (rows, columns).
    """
    to_mm = _to_matrix(spacing)
    return [_measure(label == index, name, to_mm, outside, affine) for index, name in names.items()]


def measure_components(
    label: np.ndarray,
    names: Mapping[int, str],
    spacing: Sequence[float] | np.ndarray | None = None,
    outside: np.ndarray | None = None,
    affine: np.ndarray | None = None,
) -> list[list[Measurement]]:
    """Measures the components of every label, the largest first, ``MOST_COMPONENTS`` at most; see ``measure_labels``.

    Returns:
        one list per label.
    """
    to_mm = _to_matrix(spacing)
    return [
        [
            replace(_measure(region, name, to_mm, outside, affine), components=None, component=number)
            for number, region in enumerate(_split(label == index), start=1)
        ]
        for index, name in names.items()
    ]


def measure_frames(
    sums: Mapping[str, Sequence[int]], frame_pixels: int, outside: Mapping[str, int] | None = None
) -> list[Measurement]:
    """Measures a cine from the pixels of each label in each frame.

    Args:
        sums: label -> pixels, one number a frame.
        frame_pixels: of one frame.
        outside: label -> those of its pixels that are outside of what is stated to be tissue.
    """
    return [
        Measurement(
            label=name,
            pixels=sum(pixels),
            percent=round(100 * sum(pixels) / (frame_pixels * max(1, len(pixels))), 3),
            frames=sum(value > 0 for value in pixels),
            outside_percent=None if outside is None else _to_percent(outside[name], sum(pixels)),
        )
        for name, pixels in sums.items()
    ]


def _to_percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 3) if whole else None


def _to_matrix(spacing: Sequence[float] | np.ndarray | None) -> np.ndarray | None:
    to_mm = None if spacing is None else np.asarray(spacing, np.float64)
    return np.diag(to_mm) if to_mm is not None and to_mm.ndim == 1 else to_mm


def _split(region: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the components of a region, the largest first; of equal ones the first in the order of pixels."""
    pieces, _ = ndimage.label(region)
    sizes = np.bincount(pieces.ravel())[1:]
    for number in np.argsort(-sizes, kind="stable")[:MOST_COMPONENTS].tolist():
        yield pieces == number + 1


def _measure(
    region: np.ndarray, name: str, to_mm: np.ndarray | None, outside: np.ndarray | None, affine: np.ndarray | None
) -> Measurement:
    pixels = int(region.sum())
    box, corner = _crop_to_box(region)
    # The scale is that of the stated regions: what lies outside of them has pixels, but no millimetres.
    scaled, scaled_box, scaled_corner = pixels, box, corner
    if outside is not None:
        inside = region & ~outside
        scaled = int(inside.sum())
        scaled_box, scaled_corner = _crop_to_box(inside)
    pieces, _ = ndimage.label(box)
    component_pixels = sorted(np.bincount(pieces.ravel())[1:].tolist(), reverse=True)
    found = Measurement(
        label=name,
        pixels=pixels,
        percent=round(100 * pixels / region.size, 3),
        components=len(component_pixels),
        outside_percent=None if outside is None else _to_percent(pixels - scaled, pixels),
        component_pixels=tuple(component_pixels),
    )
    _add_centroid(found, box, corner, affine)
    if region.ndim == 2:
        _add_pixel_lengths(found, box, corner)
        if to_mm is not None:
            _add_area(found, scaled_box, scaled_corner, to_mm)
    elif to_mm is not None:
        _add_volume(found, box, corner, to_mm)
    return found


def _add_centroid(found: Measurement, box: np.ndarray, corner: Sequence[int], affine: np.ndarray | None) -> None:
    if not found.pixels:
        return
    middle = np.array([_mean_index(box, axis) for axis in range(box.ndim)]) + corner
    if box.ndim == 2:
        found.centroid_y_px, found.centroid_x_px = np.round(middle, 2).tolist()
        return
    found.centroid_x_px, found.centroid_y_px, found.centroid_z_px = np.round(middle, 2).tolist()
    if affine is not None:
        place = (affine[:3, :3] @ middle + affine[:3, 3]) * _RAS_TO_LPS
        found.centroid_left_mm, found.centroid_posterior_mm, found.centroid_superior_mm = np.round(place, 2).tolist()


def _mean_index(box: np.ndarray, axis: int) -> float:
    counts = box.sum(axis=tuple(other for other in range(box.ndim) if other != axis))
    return float(np.average(np.arange(len(counts)), weights=counts))


def _add_pixel_lengths(found: Measurement, box: np.ndarray, corner: Sequence[int]) -> None:
    lengths = measure_diameters(box, np.eye(2))
    found.diameter_px, found.short_diameter_px = _round(lengths.longest), _round(lengths.short)
    found.circumference_px = _round(measure_circumference(box, np.eye(2)))
    found.ends = _move(lengths.ends, corner)
    if found.pixels:
        found.height_width_ratio = round(box.shape[0] / box.shape[1], 3)


def _add_area(found: Measurement, box: np.ndarray, corner: Sequence[int], to_mm: np.ndarray) -> None:
    lengths = measure_diameters(box, to_mm)
    found.area_mm2 = round(int(box.sum()) * abs(float(np.linalg.det(to_mm))), 3)
    found.diameter_mm, found.short_diameter_mm = _round(lengths.longest), _round(lengths.short)
    found.circumference_mm = _round(measure_circumference(box, to_mm))
    found.ends = _move(lengths.ends, corner)
    if lengths.ends:
        height, width = np.linalg.norm(to_mm, axis=0) * box.shape
        found.height_width_ratio = round(float(height / width), 3)


def _add_volume(found: Measurement, box: np.ndarray, corner: Sequence[int], to_mm: np.ndarray) -> None:
    found.volume_ml = round(found.pixels * abs(float(np.linalg.det(to_mm))) / MM3_PER_ML, 4)
    found.diameter_mm = _round(measure_diameters(box, to_mm).longest)
    if not found.pixels:
        found.slice_diameter_mm = found.slice_short_diameter_mm = 0.0
        return
    index, lengths = find_slice_diameters(box, to_mm)
    found.slice_diameter_mm, found.slice_short_diameter_mm = _round(lengths.longest), _round(lengths.short)
    found.ends = _move([(*end, index) for end in lengths.ends], corner)


def _move(ends: Sequence[tuple[int, ...]], corner: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(index + begin) for index, begin in zip(end, corner, strict=True)) for end in ends)


def _round(length: float | None) -> float | None:
    return None if length is None else round(length, 2)


def _crop_to_box(region: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Returns the smallest box with all of a region, and where it begins; all of it for an empty one."""
    if not region.any():
        return region, [0] * region.ndim
    corner = []
    for axis in range(region.ndim):
        inside = np.flatnonzero(region.any(axis=tuple(other for other in range(region.ndim) if other != axis)))
        corner.append(int(inside[0]))
        region = region[(slice(None),) * axis + (slice(inside[0], inside[-1] + 1),)]
    return region, corner
