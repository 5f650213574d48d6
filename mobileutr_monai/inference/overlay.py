"""Pictures of a label map's contours on its image."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from mobileutr_monai.data.images import to_mode

__all__ = ["draw_contours"]

COLOURS = ((255, 64, 64), (64, 220, 255), (255, 220, 64), (120, 255, 96), (230, 110, 255), (255, 150, 60))
"""Contour colours of labels 1, 2, ..., repeated when there are more."""

PIXELS_PER_LINE_WIDTH = 250
"""Longer image side for which the contour is one pixel wide."""


def draw_contours(image: Image.Image, label: np.ndarray) -> Image.Image:
    """Draws the inner contour of every label on an image.

    Shape:
        - label: (rows, columns), integer, of the image's size.
    """
    canvas = np.array(to_mode(image, "RGB"))
    width = max(1, round(max(label.shape) / PIXELS_PER_LINE_WIDTH))
    for value in np.unique(label[label > 0]):
        region = label == value
        inner = ndimage.binary_erosion(region, iterations=width, border_value=0)
        canvas[region & ~inner] = COLOURS[(int(value) - 1) % len(COLOURS)]
    return Image.fromarray(canvas)
