"""Near-duplicate images: the same scan exported twice, cropped or recompressed.

They must stay on one side of a split, or the score is that of memory. The measure is the correlation of small
thumbnails, as in the list of near-duplicates that comes with our copy of BUSI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mobileutr_monai.data.images import to_mode

__all__ = ["NEAR_DUPLICATE_CORRELATION", "find_near_duplicates", "group_pairs"]

NEAR_DUPLICATE_CORRELATION = 0.99
"""Pearson correlation of two thumbnails at and above which their images count as one."""

THUMBNAIL_SIDE = 24
"""Side of the square thumbnails in pixels."""


def find_near_duplicates(
    images: Mapping[str, str | Path], correlation: float = NEAR_DUPLICATE_CORRELATION
) -> list[tuple[str, str, float]]:
    """Returns pairs of names whose images are nearly the same, with their correlation, most alike first."""
    names = sorted(images)
    if len(names) < 2:
        return []
    thumbnails = np.stack([_thumbnail(Path(images[name])) for name in names])
    matrix = thumbnails @ thumbnails.T
    rows, columns = np.nonzero(np.triu(matrix >= correlation, k=1))
    pairs = [(names[i], names[j], float(matrix[i, j])) for i, j in zip(rows, columns, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def group_pairs(names: Iterable[str], pairs: Iterable[Sequence]) -> list[list[str]]:
    """Joins names that are linked by pairs, directly or in a chain, into sorted groups; the rest stay alone."""
    group_of = {name: [name] for name in names}
    for first, second, *_ in pairs:
        if first not in group_of or second not in group_of or group_of[first] is group_of[second]:
            continue
        larger, smaller = sorted((group_of[first], group_of[second]), key=len, reverse=True)
        larger += smaller
        for name in smaller:
            group_of[name] = larger
    unique = {id(group): sorted(group) for group in group_of.values()}
    return sorted(unique.values())


def _thumbnail(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        small = to_mode(image, "L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(small, dtype=np.float64).ravel()
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else values
