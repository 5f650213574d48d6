"""Where the voxels of a volume lie and how large they are, in mm: for reader, network, report and writers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mobileutr_monai.core.limits import MAX_VOLUME_MM3

__all__ = ["Geometry", "check_affine"]

# Directions whose volume is a smaller part of the product of their lengths are not independent.
_FLAT = 1e-6


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume in space.

    Axes need not be perpendicular: where slices are sheared (a tilted gantry), the volume of a voxel is less than the
    product of the lengths of its sides.

    Attributes:
        affine: from voxel indices to RAS, in mm whatever the unit of the file.
        is_stated: whether the file says where and how large the voxels are; without it nothing is measured in mm.
        notes: what somebody who reads the result should know about the file's geometry.
    """

    affine: np.ndarray = field(compare=False)
    is_stated: bool = True
    notes: tuple[str, ...] = ()

    @property
    def to_mm(self) -> np.ndarray | None:
        """The step along each axis in mm, as columns of a matrix; None where the file does not state it.

        Shape:
            (3, 3).
        """
        return np.asarray(self.affine[:3, :3], np.float64) if self.is_stated else None

    @property
    def voxel_sizes(self) -> tuple[float, float, float]:
        """Lengths of a voxel's sides, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


def check_affine(affine: np.ndarray, shape: Sequence[int]) -> None:
    """Raises an error unless an affine gives a volume a place and a plausible size.

    Args:
        affine: to mm.
        shape: of the volume; of more than three axes the first three count.

    Raises:
        ValueError: it has NaN, infinite or dependent directions, or the volume is larger than ``MAX_VOLUME_MM3``.
    """
    if not np.isfinite(affine).all():
        raise ValueError("its affine has values that are no numbers (NaN or infinite)")
    directions = np.asarray(affine, np.float64)[:3, :3]
    lengths = np.linalg.norm(directions, axis=0)
    if not lengths.all() or abs(np.linalg.det(directions / lengths)) < _FLAT:
        raise ValueError("its affine is singular: a voxel has no volume")
    sides = [size * length for size, length in zip((*shape, 1, 1)[:3], lengths.tolist(), strict=True)]
    if math.prod(sides) > MAX_VOLUME_MM3:
        raise ValueError(f"it is {' x '.join(f'{side:.4g}' for side in sides)} mm, more than any patient")
