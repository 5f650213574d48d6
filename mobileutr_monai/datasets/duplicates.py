"""Near-duplicate images: the same scan exported twice, cropped or recompressed.

They must stay on one side of a split, or the score is that of memory. The measure is the correlation of small
thumbnails, as in the list of near-duplicates that comes with our copy of BUSI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mobileutr_monai.readers.pillow_io import open_image, to_mode

__all__ = [
    "NEAR_DUPLICATE_CORRELATION",
    "find_near_duplicates",
    "group_pairs",
    "make_thumbnail",
    "pair_thumbnails",
]

NEAR_DUPLICATE_CORRELATION = 0.99
"""Pearson correlation of two thumbnails at and above which their images count as one."""

THUMBNAIL_SIDE = 24
"""Side of the square thumbnails in pixels."""

BLOCK = 1024
"""Thumbnails that are compared at once, so that memory does not grow with the square of their number."""


def find_near_duplicates(
    images: Mapping[str, str | Path], correlation: float = NEAR_DUPLICATE_CORRELATION
) -> list[tuple[str, str, float]]:
    """Returns pairs of names whose images are nearly the same, with their correlation, most alike first.

    Raises:
        ValueError: an image cannot be read.
    """
    return pair_thumbnails({name: _read_thumbnail(Path(path)) for name, path in images.items()}, correlation)


def pair_thumbnails(
    thumbnails: Mapping[str, np.ndarray], correlation: float = NEAR_DUPLICATE_CORRELATION
) -> list[tuple[str, str, float]]:
    """Returns pairs of names whose thumbnails, from ``make_thumbnail``, are nearly the same, as above."""
    names = sorted(thumbnails)
    pairs = []
    for start in range(0, len(names), BLOCK):
        block = np.stack([thumbnails[name] for name in names[start : start + BLOCK]])
        for other_start in range(start, len(names), BLOCK):
            others = np.stack([thumbnails[name] for name in names[other_start : other_start + BLOCK]])
            matrix = block @ others.T
            for row, column in zip(*np.nonzero(matrix >= correlation), strict=True):
                i, j = start + int(row), other_start + int(column)
                if i < j:
                    pairs.append((names[i], names[j], float(matrix[row, column])))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def make_thumbnail(image: Image.Image) -> np.ndarray:
    """Returns an image's thumbnail as a vector of mean 0 and length 1, or of zeros where all pixels are the same."""
    small = to_mode(image, "L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(small, dtype=np.float64).ravel()
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else values


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


def _read_thumbnail(path: Path) -> np.ndarray:
    with open_image(path, "image") as image:
        return make_thumbnail(image)
