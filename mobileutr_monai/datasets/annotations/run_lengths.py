"""COCO's run lengths, compressed and not, read by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

__all__ = ["decode_runs"]


def decode_runs(runs: Mapping[str, Any], size: tuple[int, int], name: str) -> Image.Image:
    """Returns a mask of 0 and 255.

    Args:
        runs: ``size``, rows and columns, and ``counts``, a text (compressed) or numbers.
        size: columns and rows of the image.
        name: of the file and image, for errors.

    Raises:
        ValueError: pycocotools is not installed, or the runs are not those of an image of this size.
    """
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise ValueError(
            f"{name} has a mask in run lengths, which pycocotools reads: pip install 'mobileutr-monai[coco]', or "
            "export polygons"
        ) from None
    rows, columns = (int(side) for side in runs["size"])
    if (columns, rows) != size:
        raise ValueError(f"{name} has a mask of {columns} x {rows}, the image is {size[0]} x {size[1]}")
    try:
        counts = _unpack(runs["counts"]) if isinstance(runs["counts"], str) else [int(run) for run in runs["counts"]]
        # pycocotools writes beyond its memory where runs are too long, so they are counted first.
        if min(counts, default=0) < 0 or sum(counts) != rows * columns:
            raise ValueError(f"they cover {sum(counts)} pixels of {rows * columns}")
        packed = coco.frPyObjects({"size": [rows, columns], "counts": counts}, rows, columns)
        return Image.fromarray(coco.decode(packed) * 255)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{name} has run lengths that cannot be read: {error}") from None


def _unpack(text: str) -> list[int]:
    """Returns the runs of COCO's compressed text: 5 bits a letter, from the third on relative to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the letter {letter!r} is none of theirs")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the text ends within a number")
    return runs
