"""Pictures of a label map's contours on its image."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

from mobileutr_monai.data.images import to_mode

__all__ = ["draw_contours", "draw_volume", "to_grey"]

COLOURS = ((80, 255, 80), (255, 80, 255), (255, 220, 64), (64, 220, 255), (255, 150, 60), (255, 64, 64))
"""Contour colours of labels 1, 2, ..., repeated when there are more: first those that tissue does not have."""

MIN_VIEW_SIDE = 256
"""Small volumes are enlarged, by a whole number, until the picture's shorter side has this many pixels."""

WINDOW_PERCENTILES = (1.0, 99.0)
"""Percentiles of a volume's values that are drawn black and white."""

PIXELS_PER_LINE_WIDTH = 250
"""Longer image side for which the contour is one pixel wide."""


def draw_contours(image: Image.Image, label: np.ndarray) -> Image.Image:
    """Draws the inner contour of every label on an image, with a black line around it that sets it off.

    Shape:
        - label: (rows, columns), integer, of the image's size.
    """
    canvas = np.array(to_mode(image, "RGB"))
    width = max(1, round(max(label.shape) / PIXELS_PER_LINE_WIDTH))
    canvas[ndimage.binary_dilation(label > 0) & (label == 0)] = 0
    for value in np.unique(label[label > 0]):
        region = label == value
        inner = ndimage.binary_erosion(region, iterations=width, border_value=0)
        canvas[region & ~inner] = COLOURS[(int(value) - 1) % len(COLOURS)]
    return Image.fromarray(canvas)


def to_grey(values: np.ndarray) -> np.ndarray:
    """Scales values of any range to bytes, as ``WINDOW_PERCENTILES`` says."""
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    grey: np.ndarray = (255 * np.clip((values - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    return grey


def draw_volume(volume: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Image.Image:
    """Draws three slices through the middle of the labels: axial, coronal, sagittal, as radiologists look at them.

    The patient's left is on the picture's right, front and head are up.

    Shape:
        - volume, label: (x, y, z) in any orientation; affine: (4, 4), to RAS in mm.
    """
    orientation = nib.io_orientation(affine)
    volume, label = (nib.apply_orientation(array, orientation) for array in (volume, label))
    spacing = nib.affines.voxel_sizes(affine)[np.argsort(orientation[:, 0])]
    voxels = np.argwhere(label > 0)
    centre = np.median(voxels, axis=0).astype(int) if len(voxels) else np.array(label.shape) // 2
    grey = to_grey(volume)
    views = [_draw_slice(grey, label, axis, int(centre[axis]), spacing) for axis in (2, 1, 0)]
    canvas = Image.new("RGB", (sum(view.width for view in views), max(view.height for view in views)))
    left = 0
    for view in views:
        canvas.paste(view, (left, 0))
        left += view.width
    return canvas


def _draw_slice(grey: np.ndarray, label: np.ndarray, axis: int, index: int, spacing: np.ndarray) -> Image.Image:
    # Rows downwards are the last axis backwards; columns are the first axis backwards (right is drawn left).
    picture, region = (np.take(array, index, axis=axis)[::-1, ::-1].T for array in (grey, label))
    across, down = np.delete(spacing, axis)
    rows, columns = picture.shape
    unit = min(across, down)
    scale = max(1, -(-MIN_VIEW_SIDE // int(min(rows * down, columns * across) / unit)))
    size = (round(columns * across / unit * scale), round(rows * down / unit * scale))
    enlarged = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    return draw_contours(enlarged, np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST)))
