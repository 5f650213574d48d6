"""Writes images that no 2D bundle is for: slices of CT and MR volumes, and test patterns, one folder per kind.

``calibrate_bundle.py --foreign NAME=DIR`` measures how many of them get the flag ``unlike the training images``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

CT_WINDOW = (-160.0, 240.0)
"""Soft tissue, in HU."""
SLICES_AN_AXIS = 14
SIDE = 256


def cut_slices(path: Path, window: tuple[float, float] | None = None) -> Iterator[np.ndarray]:
    """Yields slices along each axis; without a window, grey values are those between the 1 % and the 99 % quantile."""
    volume = np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    low, high = window or np.quantile(volume, (0.01, 0.99))
    grey = (255 * np.clip((volume - low) / (high - low), 0, 1)).astype(np.uint8)
    for axis in range(3):
        for share in np.linspace(0.2, 0.8, SLICES_AN_AXIS):
            yield np.rot90(np.take(grey, int(share * grey.shape[axis]), axis))


def draw_patterns() -> Iterator[np.ndarray]:
    """Yields checkerboards, stripes, ramps, discs, noise and colour bars."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(x - SIDE / 2, y - SIDE / 2)
    yield from (np.where((x // side + y // side) % 2, 255, 0) for side in (4, 8, 16, 32, 64))
    yield from (np.where((x // side) % 2, 255, 0) for side in (4, 16, 64))
    yield from (x, y, (x + y) // 2, 255 - radius)
    yield from (np.where(radius < limit, 255, 0) for limit in (40, 80, 110))
    yield from (rng.integers(0, 256, (SIDE, SIDE)), rng.integers(0, 256, (SIDE, SIDE, 3)))
    yield rng.normal(128, 30, (SIDE, SIDE))
    yield np.kron(rng.integers(0, 256, (16, 16)), np.ones((16, 16)))
    yield np.stack([255 * ((7 - x // 32) >> bit & 1) for bit in range(3)], axis=-1)


def main() -> None:
    """Writes the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ct", type=Path, help="a CT volume, NIfTI")
    parser.add_argument("--mr", type=Path, help="an MR volume, NIfTI")
    arguments = parser.parse_args()
    kinds = {"patterns": list(draw_patterns())}
    kinds |= {"ct": list(cut_slices(arguments.ct, CT_WINDOW))} if arguments.ct else {}
    kinds |= {"mr": list(cut_slices(arguments.mr))} if arguments.mr else {}
    for kind, images in kinds.items():
        (arguments.output / kind).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            if np.ptp(image):
                pixels = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
                Image.fromarray(pixels).save(arguments.output / kind / f"{number:02}.png")


if __name__ == "__main__":
    main()
