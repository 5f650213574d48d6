"""What is done before and after an end-to-end model, without torch, by whoever runs one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mobileutr_monai.readers.image_content import find_between_bars

__all__ = ["label_pixels"]

Step = Callable[[np.ndarray], np.ndarray]


def label_pixels(run: Step, pixels: np.ndarray, *, crop_bars: bool, clean: Step | None) -> np.ndarray:
    """Returns the label map of an image.

    Args:
        run: the model: pixels -> label map.
        crop_bars: give it only what lies between bars of one grey level or colour; they are background.
        clean: changes the label map at the end.

    Shape:
        - pixels: (rows, columns, channels), uint8; output: (rows, columns), uint8.
    """
    whole = (0, 0, *pixels.shape[:2])
    top, left, bottom, right = find_between_bars(pixels) if crop_bars else whole
    label = np.zeros(pixels.shape[:2], np.uint8)
    label[top:bottom, left:right] = run(np.ascontiguousarray(pixels[top:bottom, left:right]))
    return label if clean is None else clean(label)
