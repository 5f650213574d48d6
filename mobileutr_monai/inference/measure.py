"""What a run says of its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import read_pixel_size
from mobileutr_monai.readers.geometry import Geometry
from mobileutr_monai.readers.nifti_file import read_nifti_header, read_volume_geometry
from mobileutr_monai.readers.nifti_geometry import read_pixel_mm

__all__ = ["Measurement", "measure_frames", "measure_labels", "read_mm"]

MM3_PER_ML = 1000.0
_FLAT = 1e-9
"""Extent of a label across a plane or line that it lies in, over its largest one: rounding errors."""


@dataclass
class Measurement:
    """One label of a case.

    Attributes:
        pixels: of an image, voxels of a volume, pixels of all frames of a cine.
        percent: of the whole image, volume or cine.
        area_mm2, volume_ml, diameter_mm: where the file says how large a pixel is, otherwise None.
        diameter_px: the largest distance of two pixels of an image's label.
        components: pieces that do not touch, corners count as touch in neither 2D nor 3D.
        frames: of a cine, those in which the label is.
        outside_percent: of the label, how much lies outside of the regions of tissue that an ultrasound file states;
            None where it states none.
        component_pixels: pixels of each component, the largest first; not in the report.
    """

    label: str
    pixels: int = 0
    percent: float = 0.0
    area_mm2: float | None = None
    volume_ml: float | None = None
    diameter_px: float | None = None
    diameter_mm: float | None = None
    components: int | None = None
    frames: int | None = None
    outside_percent: float | None = None
    component_pixels: tuple[int, ...] = ()


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


def measure_labels(
    label: np.ndarray,
    names: Mapping[int, str],
    spacing: Sequence[float] | np.ndarray | None = None,
    outside: np.ndarray | None = None,
) -> list[Measurement]:
    """Measures every label, also those that are not in the label map; in millimetres what is not outside.

    Args:
        names: index -> name.
        spacing: mm along the axes; or the step along each axis in mm as columns of a matrix, where axes need not be
            perpendicular; None if it is not known.
        outside: which pixels are outside of what is stated to be tissue, or None if that is not known.

    Shape:
        - label: (rows, columns) or (x, y, z); outside: (rows, columns).
    """
    to_mm = None if spacing is None else np.asarray(spacing, np.float64)
    if to_mm is not None and to_mm.ndim == 1:
        to_mm = np.diag(to_mm)
    return [_measure(label == index, name, to_mm, outside) for index, name in names.items()]


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


def _measure(region: np.ndarray, name: str, to_mm: np.ndarray | None, outside: np.ndarray | None) -> Measurement:
    pixels = int(region.sum())
    plane = region.ndim == 2
    box, corner = _crop_to_box(region)
    # The scale is that of the stated regions: what lies outside of them has pixels, but no millimetres.
    scaled, scaled_box = pixels, (box, corner)
    if outside is not None:
        inside = region & ~outside
        scaled, scaled_box = int(inside.sum()), _crop_to_box(inside)
    size = None if to_mm is None else scaled * abs(float(np.linalg.det(to_mm)))
    pieces, _ = ndimage.label(box)
    component_pixels = sorted(np.bincount(pieces.ravel())[1:].tolist(), reverse=True)
    return Measurement(
        label=name,
        pixels=pixels,
        percent=round(100 * pixels / region.size, 3),
        area_mm2=round(size, 3) if plane and size is not None else None,
        volume_ml=round(size / MM3_PER_ML, 4) if not plane and size is not None else None,
        diameter_px=_diameter(box, corner, np.eye(2)) if plane else None,
        diameter_mm=None if to_mm is None else _diameter(*scaled_box, to_mm),
        components=len(component_pixels),
        outside_percent=None if outside is None else _to_percent(pixels - scaled, pixels),
        component_pixels=tuple(component_pixels),
    )


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


def _diameter(box: np.ndarray, corner: Sequence[int], to_mm: np.ndarray) -> float:
    """Returns the largest distance between the middles of two pixels of a region, which is in a box at ``corner``."""
    points = (_row_ends(box) + corner) @ to_mm.T
    if not len(points) or not np.ptp(points, axis=0).any():
        return 0.0
    # A label may lie in one plane or on one line: the hull is made in as many dimensions as it has.
    middle = points - points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(middle, full_matrices=False)
    points = middle @ directions[sizes > _FLAT * sizes[0]].T
    corners = ConvexHull(points).vertices if points.shape[1] > 1 else [points.argmin(), points.argmax()]
    return round(float(pdist(points[corners]).max()), 2)


def _row_ends(box: np.ndarray) -> np.ndarray:
    """Returns the first and the last place of a region in each row, in order: all corners of its hull are among them.

    Shape:
        - output: (places, axes).
    """
    rows = np.argwhere(box.any(axis=-1))
    inside = box[tuple(rows.T)]
    ends = np.stack((inside.argmax(axis=-1), inside.shape[-1] - 1 - inside[:, ::-1].argmax(axis=-1)), axis=1)
    return np.hstack((rows.repeat(2, axis=0), ends.reshape(-1, 1)))
