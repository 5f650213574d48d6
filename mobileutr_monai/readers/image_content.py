"""What an image file holds, and what reading it as 8-bit grey or RGB drops; with Pillow alone.

Pillow keeps the high bytes of 16-bit colour, opens the first of several pages, leaves images as the camera held them
and does not invert 16-bit TIFF whose 0 is white, all of it silently. Here each of these is a conversion, an
error, or words for whoever reads the result.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

__all__ = ["TRANSPARENT_MODES", "ImageContent", "as_shown", "explain_tiff", "find_between_bars", "read_content"]

TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
"""Pillow's modes with an alpha channel."""

LEAST_HIGH_BYTE = 128
"""Highest value of the high bytes of 16-bit colour under which more than half of the 256 levels would be lost."""

BAR_TOLERANCE = 0.03
"""How far the values of a bar may lie apart, as a share of the image's range: lossy compression blurs its edge."""

MIN_BAR = 0.04
"""Bars that take less of a side than this stay: they do not matter, and scanners draw thin frames."""

MIN_BETWEEN_BARS = 0.2
"""What has to be left of each side; otherwise nothing is cropped, since so little is no image between bars."""

MOST_PAGES = 1000
"""Of a TIFF so many are counted: each takes half a millisecond to find, and a file of 11 MB can have 100,000."""

_ORIENTATION, _PHOTOMETRIC, _PLANAR, _SUBFILE = 0x0112, 262, 284, 254
_BITS, _SAMPLE_FORMAT, _COMPRESSION = 258, 339, 259
_PLANES, _REDUCED_OR_MASK = 2, 1 | 4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NUMBERS = {1: "integer", 2: "signed integer", 3: "floating-point"}
_PILLOWS = (KeyError, IndexError, ValueError, TypeError, SyntaxError, OSError, struct.error, AttributeError)


@dataclass(frozen=True)
class ImageContent:
    """What the file of an image declares, before it is decoded.

    Attributes:
        format: Pillow's name of it.
        size: width and height as the image is shown, after it was turned.
        mode: Pillow's, such as ``RGB``.
        bits: of a channel, as stored.
        pages: images in the file, without reduced copies and masks of them; an animation has its frames. Those of a
            TIFF are counted up to ``MOST_PAGES``.
        orientation: of EXIF or TIFF, from 1 (as stored) to 8.
        is_white_zero: whether 0 is white in values that Pillow does not invert.
        is_planar: whether each channel is stored by itself.
    """

    format: str
    size: tuple[int, int]
    mode: str
    bits: int
    pages: int
    orientation: int
    is_white_zero: bool = False
    is_planar: bool = False

    @property
    def has_alpha(self) -> bool:
        return self.mode in TRANSPARENT_MODES

    @property
    def is_deep_colour(self) -> bool:
        """Whether it has more than 8 bits in each of several channels, of which Pillow keeps the high ones."""
        return self.bits > 8 and self.mode not in ("F", "1", "L", "P") and not self.mode.startswith("I")

    @property
    def is_stack(self) -> bool:
        """Whether it holds several images to segment; a photograph with a preview does not."""
        return self.pages > 1 and self.format != "MPO"

    @property
    def refusal(self) -> str:
        """Why it cannot be read rightly, and what to do; empty if it can."""
        if self.is_stack:
            number = f"{self.pages} or more" if self.pages >= MOST_PAGES else self.pages
            return f"it holds {number} images, and a mask is of one; save each as a file of its own"
        if self.is_deep_colour and self.is_planar:
            return f"its {self.bits}-bit channels are stored one after the other; save it as 8 bit for each channel"
        return ""

    @property
    def losses(self) -> tuple[str, ...]:
        """What is changed or dropped when it is read, in words for the report."""
        found = []
        if self.orientation != 1:
            found.append(f"turned as its orientation tag ({self.orientation}) says, and so is the mask")
        if self.pages > 1 and self.format == "MPO":
            found.append(f"the first of {self.pages} images is used")
        if self.is_deep_colour:
            found.append(f"{self.bits}-bit colour is reduced to 8 bits")
        if self.has_alpha:
            found.append("transparency is ignored")
        if self.mode in ("CMYK", "LAB", "HSV"):
            found.append(f"{self.mode} is converted to RGB without its profile")
        return tuple(found)


def read_content(image: Image.Image) -> ImageContent:
    """Returns what an image that was opened, and not loaded yet, declares of itself."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = _count_bits(image, tags)
    return ImageContent(
        format=str(image.format or ""),
        size=image.size if tags or _read_orientation(image, tags) < 5 else image.size[::-1],
        mode=image.mode,
        bits=bits,
        pages=_count_pages(image),
        orientation=_read_orientation(image, tags),
        # Pillow inverts up to 8 bits itself.
        is_white_zero=bits > 8 and tags.get(_PHOTOMETRIC) == 0,
        is_planar=tags.get(_PLANAR) == _PLANES,
    )


def as_shown(image: Image.Image) -> tuple[Image.Image, ImageContent]:
    """Decodes an image as viewers show it: turned as its orientation tag says, 0 black at any depth.

    Returns:
        the image, and what was read of its file.

    Raises:
        ValueError: reading would lose what nobody would notice; see ``ImageContent.refusal``.
    """
    content = read_content(image)
    if content.refusal:
        raise ValueError(content.refusal)
    image.load()
    if content.is_deep_colour:
        _check_high_bytes(image, content.bits)
    shown = image
    if content.is_white_zero:
        shown = _invert(image)
    if content.orientation != 1 and content.format != "TIFF":  # Pillow turns TIFF itself
        shown = shown.transpose(_TURNS[content.orientation])
    if shown is not image:
        shown.format = image.format
    return shown, content


def explain_tiff(path: Path) -> str:
    """Returns what a TIFF that Pillow does not know holds, in words; empty if that cannot be told."""
    try:
        with path.open("rb") as file:
            tags: Any = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        bits, numbers = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))[0]
        compression = TiffImagePlugin.COMPRESSION_INFO.get(tags.get(_COMPRESSION, 1), "unknown")
    except _PILLOWS:
        return ""
    channels = f" in {len(bits)} channels" if len(bits) > 1 else ""
    kind = _NUMBERS.get(numbers, "complex")
    return (
        f"TIFF with {bits[0]}-bit {kind} values{channels} (compression: {compression}) is not supported; "
        "save it with 8-bit or 16-bit integers"
    )


def _read_orientation(image: Image.Image, tags: Any) -> int:
    try:
        found = tags.get(_ORIENTATION) if tags else image.getexif().get(_ORIENTATION)
        return int(found) if found is not None and int(found) in _TURNS else 1
    except _PILLOWS:  # as viewers do with broken EXIF
        return 1


def _count_bits(image: Image.Image, tags: Any) -> int:
    if tags:
        return int(max(tags.get(_BITS, (1,))))
    raw = next((str(tile[3]) for tile in getattr(image, "tile", []) if isinstance(tile[3], str)), "")
    if image.format == "PNG" and raw.endswith(";16B"):
        return 16
    return {"1": 1, "F": 32, "I": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _count_pages(image: Image.Image) -> int:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(getattr(image, "n_frames", 1))
    pages = 0
    try:
        for index in range(MOST_PAGES):
            image.seek(index)
            pages += not int(image.tag_v2.get(_SUBFILE, 0)) & _REDUCED_OR_MASK
    except EOFError:
        pass
    image.seek(0)
    return max(1, pages)


def _check_high_bytes(image: Image.Image, bits: int) -> None:
    pixels = np.asarray(image)
    channels = pixels[..., :-1] if image.mode in TRANSPARENT_MODES else pixels
    highest = int(channels.max())
    if 0 < highest < LEAST_HIGH_BYTE:
        raise ValueError(
            f"its {bits}-bit colour uses {highest + 1} of 256 levels after reduction to 8 bits; "
            "scale it to 8 bit for each channel"
        )


def _invert(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f":
        return Image.fromarray(values.max() + values.min() - values)
    # 10 or 12 bits are kept in words of 16.
    top = max(1, 2 ** int(values.max()).bit_length() - 1)
    return Image.fromarray((top - values.astype(np.int64)).astype(values.dtype.newbyteorder("=")))


def find_between_bars(image: np.ndarray) -> tuple[int, int, int, int]:
    """Returns the rectangle between bars of one grey level or colour, the whole image where there are none.

    A bar consists of whole rows, or columns, from a border on, whose pixels all have the level of the border's first
    pixel, within ``BAR_TOLERANCE``. Bars above and below are looked for first, then those at the sides of what is left.

    Shape:
        - image: (rows, columns) or (rows, columns, channels).

    Returns:
        (top, left, bottom, right) in pixels, the last row and column not in it.
    """
    pixels = image.reshape(*image.shape[:2], -1)
    tolerance = BAR_TOLERANCE * (float(pixels.max()) - float(pixels.min()))
    top, bottom = _trim(pixels, tolerance)
    left, right = _trim(pixels[top:bottom].swapaxes(0, 1), tolerance)
    return top, left, bottom, right


def _trim(lines: np.ndarray, tolerance: float) -> tuple[int, int]:
    before, after = (_count_bar(order, tolerance) for order in (lines, lines[::-1]))
    left = len(lines) - before - after
    if before + after < MIN_BAR * len(lines) or left < MIN_BETWEEN_BARS * len(lines):
        return 0, len(lines)
    return before, len(lines) - after


def _count_bar(lines: np.ndarray, tolerance: float) -> int:
    level = lines[0, 0].astype(np.float64)
    for index, line in enumerate(lines):  # most images end at the first line
        if (np.abs(line - level) > tolerance).any():
            return index
    return 0
