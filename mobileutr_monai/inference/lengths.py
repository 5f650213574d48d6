"""Lengths of a label: diameters, the short one as in RECIST 1.1, and the circumference."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

__all__ = ["Diameters", "find_slice_diameters", "measure_circumference", "measure_diameters"]

_FLAT = 1e-9
"""Extent of a label across a plane or line that it lies in, over its largest one: rounding errors."""

# Half of the directions to a pixel's neighbours; the others are their opposites.
_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))

Place = tuple[int, ...]


class Diameters(NamedTuple):
    """Diameters of a label, between the centres of two of its pixels.

    Attributes:
        longest: the largest distance of two pixels.
        short: the largest extent perpendicular to the longest diameter, from a pixel to one that the perpendicular line
            through it crosses; None for a volume.
        ends: indices of both pixels of the longest diameter, then of the short one; empty for an empty label or volume.
    """

    longest: float
    short: float | None
    ends: tuple[Place, ...] = ()


def measure_diameters(box: np.ndarray, to_mm: np.ndarray) -> Diameters:
    """Returns the diameters of a label.

    Args:
        to_mm: step along each axis, as columns of a matrix; the unit matrix for pixels.

    Shape:
        - box: (rows, columns) or (x, y, z), bool.
    """
    plane = box.ndim == 2
    indices = _find_row_ends(box)
    if not len(indices):
        return Diameters(0.0, 0.0 if plane else None)
    points = indices @ to_mm.T
    first, second = _find_farthest(points)
    longest = float(np.linalg.norm(points[second] - points[first]))
    if not plane:
        return Diameters(longest, None)
    low, high, short = _find_perpendicular(box, points[second] - points[first], to_mm)
    ends = (indices[first], indices[second], low, high)
    return Diameters(longest, short, tuple(tuple(map(int, end)) for end in ends))


def find_slice_diameters(box: np.ndarray, to_mm: np.ndarray) -> tuple[int, Diameters]:
    """Returns the slice of a volume in which a label is longest, and the label's diameters there.

    Shape:
        - box: (x, y, z), bool, slices along z.
        - to_mm: (3, 3).
    """
    # The same lengths and angles in two dimensions.
    in_plane = np.linalg.qr(to_mm[:, :2])[1]
    slices = (measure_diameters(box[..., index], in_plane) for index in range(box.shape[2]))
    return max(enumerate(slices), key=lambda item: item[1].longest)


def measure_circumference(box: np.ndarray, to_mm: np.ndarray) -> float:
    """Returns the length of a label's border, with that of its holes, by Crofton's formula for four directions.

    A border is crossed by lines along rows, columns and both diagonals; how often says how long it is. scikit-image
    has it as ``perimeter_crofton`` for square pixels.

    Shape:
        - box: (rows, columns), bool.
        - to_mm: (2, 2).
    """
    padded = np.pad(box, 1)
    steps = np.array(_DIRECTIONS) @ to_mm.T
    angles = np.arctan2(steps[:, 0], steps[:, 1]) % np.pi
    order = np.argsort(angles)
    behind = np.diff(angles[order], append=angles[order[0]] + np.pi)
    shares = np.empty(len(order))
    shares[order] = (behind + np.roll(behind, 1)) / 2
    distances = abs(np.linalg.det(to_mm)) / np.linalg.norm(steps, axis=1)
    crossings = [int((padded != np.roll(padded, step, (0, 1))).sum()) for step in _DIRECTIONS]
    return float((shares * distances * crossings).sum() / 2)


def _find_row_ends(box: np.ndarray) -> np.ndarray:
    """Returns the first and the last place of a region in each row, in order: all corners of its hull are among them.

    Shape:
        - output: (places, axes).
    """
    rows = np.argwhere(box.any(axis=-1))
    inside = box[tuple(rows.T)]
    ends = np.stack((inside.argmax(axis=-1), inside.shape[-1] - 1 - inside[:, ::-1].argmax(axis=-1)), axis=1)
    return np.hstack((rows.repeat(2, axis=0), ends.reshape(-1, 1)))


def _find_farthest(points: np.ndarray) -> tuple[int, int]:
    """Returns which two points are farthest from each other."""
    if not np.ptp(points, axis=0).any():
        return 0, 0
    # A label may lie in one plane or on one line: the hull is made in as many dimensions as it has.
    middle = points - points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(middle, full_matrices=False)
    flat = middle @ directions[sizes > _FLAT * sizes[0]].T
    if flat.shape[1] == 1:
        return int(flat.argmin()), int(flat.argmax())
    corners = np.sort(ConvexHull(flat).vertices)
    place = int(pdist(flat[corners]).argmax())
    starts = np.cumsum(np.arange(len(corners) - 1, 0, -1))  # pdist has the pairs of the first point first
    first = int(np.searchsorted(starts, place, side="right"))
    second = place - (int(starts[first - 1]) if first else 0) + first + 1
    return int(corners[first]), int(corners[second])


def _find_perpendicular(box: np.ndarray, along: np.ndarray, to_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the ends of the short diameter, and how far they are apart perpendicular to ``along``."""
    # A line that leaves a region does so at a pixel of its border.
    indices = np.argwhere(box & ~ndimage.binary_erosion(box, np.ones((3, 3))))
    length = np.linalg.norm(along)
    if not length:
        return indices[0], indices[0], 0.0
    direction = along / length
    places = indices @ to_mm.T
    position, height = places @ direction, places @ (-direction[1], direction[0])
    order = np.argsort(position, kind="stable")
    indices, position, height = indices[order], position[order], height[order]
    # A line crosses a pixel if its centre is not farther from it than half of the pixel's width across the line.
    reach = np.abs(direction @ to_mm).sum() / 2 + _FLAT * length
    begins, ends = np.searchsorted(position, position - reach), np.searchsorted(position, position + reach, "right")
    bounds = np.stack((begins, ends), axis=1).ravel()
    highest = np.maximum.reduceat(np.append(height, -np.inf), bounds)[::2]
    low = int((highest - height).argmax())
    high = int(begins[low] + height[begins[low] : ends[low]].argmax())
    return indices[low], indices[high], float(height[high] - height[low])
