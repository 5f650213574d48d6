"""Pictures of a label map's contours on its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

from mobileutr_monai.readers.pillow_io import to_mode

__all__ = [
    "COLOURS",
    "View",
    "draw_contour_layer",
    "draw_contours",
    "draw_views",
    "draw_volume",
    "to_grey",
    "view_volume",
]

COLOURS = ((80, 255, 80), (255, 80, 255), (255, 220, 64), (64, 220, 255), (255, 150, 60), (255, 64, 64))
"""Contour colours of labels 1, 2, ..., repeated when there are more: first those that tissue does not have."""

MIN_VIEW_SIDE = 256
"""Small volumes are enlarged, by a whole number, until the picture's shorter side has this many pixels."""

WINDOW_PERCENTILES = (1.0, 99.0)
"""Percentiles of a volume's values that are drawn black and white."""

PIXELS_PER_LINE_WIDTH = 250
"""Longer image side for which the contour is one pixel wide."""

PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}
"""Axis across the slices -> the plane's name, in the order in which they are drawn."""

SURROUND = len(COLOURS) + 1
"""Stands for the black line around contours, where colours are numbers from 1 on."""


class View(NamedTuple):
    """A picture of a case, and what is to be drawn on it.

    Attributes:
        name: which part of the case it is; empty where it is all of it.

    Shape:
        - label: (rows, columns), integer, of the picture's size.
    """

    picture: Image.Image
    label: np.ndarray
    name: str = ""


def draw_contours(image: Image.Image, label: np.ndarray) -> Image.Image:
    """Draws the inner contour of every label on an image, with a black line around it that sets it off.

    Shape:
        - label: (rows, columns), integer, of the image's size.
    """
    canvas = np.array(to_mode(image, "RGB"))
    lines = _trace(label, max(1, round(max(label.shape) / PIXELS_PER_LINE_WIDTH)))
    canvas[lines == SURROUND] = 0
    for number, colour in enumerate(COLOURS, start=1):
        canvas[lines == number] = colour
    return Image.fromarray(canvas)


def draw_contour_layer(label: np.ndarray, width: int) -> Image.Image:
    """Draws contours ``width`` pixels wide with nothing under them: palette index 0 where the image is to be seen.

    Shape:
        - label: (rows, columns), integer.
    """
    layer = Image.fromarray(_trace(label, width))
    black = (0, 0, 0)
    layer.putpalette([value for colour in (black, *COLOURS, black) for value in colour])
    return layer


def _trace(label: np.ndarray, width: int) -> np.ndarray:
    """Returns the number of the colour, from 1 on, of each pixel of a contour, ``SURROUND`` around it, 0 elsewhere."""
    lines = np.zeros(label.shape, np.uint8)
    lines[ndimage.binary_dilation(label > 0) & (label == 0)] = SURROUND
    for value in np.unique(label[label > 0]):
        region = label == value
        inner = ndimage.binary_erosion(region, iterations=width, border_value=0)
        lines[region & ~inner] = (int(value) - 1) % len(COLOURS) + 1
    return lines


def to_grey(values: np.ndarray, window: Sequence[float] | None = None) -> np.ndarray:
    """Scales values of any range to bytes.

    Args:
        window: what is drawn black and white, ``WINDOW_PERCENTILES`` of the values by default.
    """
    low, high = np.percentile(values, WINDOW_PERCENTILES) if window is None else window
    grey: np.ndarray = (255 * np.clip((values - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    return grey


def view_volume(volume: np.ndarray, label: np.ndarray, affine: np.ndarray) -> list[View]:
    """Returns three slices through the middle of the labels: axial, coronal, sagittal, as radiologists look at them.

    The patient's left is on the picture's right, front and head are up.

    Shape:
        - volume, label: (x, y, z) in any orientation; affine: (4, 4), to RAS in mm.
    """
    orientation = nib.io_orientation(affine)
    volume, label = (nib.apply_orientation(array, orientation) for array in (volume, label))
    spacing = nib.affines.voxel_sizes(affine)[np.argsort(orientation[:, 0])]
    window = np.percentile(volume, WINDOW_PERCENTILES)
    views = []
    for axis, name in PLANES.items():
        index = _find_middle(label, axis)
        plane, region = (np.take(array, index, axis=axis) for array in (volume, label))
        views.append(_view_slice(to_grey(plane, window), region, np.delete(spacing, axis), name))
    return views


def draw_volume(volume: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Image.Image:
    """Draws what ``view_volume`` returns, side by side.

    Shape:
        - volume, label: (x, y, z) in any orientation; affine: (4, 4), to RAS in mm.
    """
    return draw_views(view_volume(volume, label, affine))


def draw_views(views: Sequence[View]) -> Image.Image:
    """Draws the contours on each view and puts them side by side."""
    pictures = [draw_contours(view.picture, view.label) for view in views]
    canvas = Image.new("RGB", (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)))
    left = 0
    for picture in pictures:
        canvas.paste(picture, (left, 0))
        left += picture.width
    return canvas


def _find_middle(label: np.ndarray, axis: int) -> int:
    """Returns the median along an axis of the voxels with labels, the axis' middle if there are none.

    The list of their places would take 24 bytes a voxel.
    """
    others = tuple(other for other in range(label.ndim) if other != axis)
    up_to = np.cumsum(np.count_nonzero(label, axis=others))
    total = int(up_to[-1])
    if not total:
        return int(label.shape[axis]) // 2
    return int(np.searchsorted(up_to, [(total - 1) // 2, total // 2], side="right").sum()) // 2


def _view_slice(plane: np.ndarray, label: np.ndarray, spacing: np.ndarray, name: str) -> View:
    # Rows downwards are the last axis backwards; columns are the first axis backwards (right is drawn left).
    picture, region = (array[::-1, ::-1].T for array in (plane, label))
    across, down = spacing
    rows, columns = picture.shape
    unit = min(across, down)
    scale = max(1, -(-MIN_VIEW_SIDE // int(min(rows * down, columns * across) / unit)))
    size = (round(columns * across / unit * scale), round(rows * down / unit * scale))
    enlarged = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    return View(enlarged, np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST)), name)
