"""Pictures and masks in the pixel mode that a network takes, with Pillow and NumPy alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mobileutr_monai.core.limits import MAX_IMAGE_PIXELS, BoundedReader
from mobileutr_monai.core.read_errors import READ_ERRORS
from mobileutr_monai.readers.foreign_formats import explain_format
from mobileutr_monai.readers.image_content import TRANSPARENT_MODES, ImageContent, as_shown, explain_tiff, read_content

__all__ = ["FORMATS", "GREY_SPREAD", "TRANSPARENT_MODES", "look_at", "open_image", "to_mask", "to_mode"]

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
"""What is read, whatever the name; not all that Pillow can: for PostScript it runs a program."""

GREY_SPREAD = 32
"""Difference of the colour channels, in grey levels, up to which a lossy mask is grey: compression tints it."""

# Pillow logs what it raises as well; without a handler Python would print it as a line of its own.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Where the end of a JPEG is looked for, how large one without an end may be, and pixels that one cut off would show.
_TAIL, _MAX_UNENDED, _MORE = 2**12, 2**28, b"\x5a\xa5" * 512
_READ_ERRORS = (*READ_ERRORS, Image.DecompressionBombError)


@contextmanager
def open_image(path: str | Path, what: str) -> Iterator[Image.Image]:
    """Opens an image as viewers show it, see ``as_shown``; whatever is wrong with it is one error that names it.

    Args:
        what: what it is called in the error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read.
    """
    try:
        with _open_file(path) as file, _open(file) as image:
            yield as_shown(image)[0]
    except FileNotFoundError:
        raise
    except _READ_ERRORS as error:
        raise ValueError(f"{what} {path} cannot be read: {_explain(error, Path(path))}") from error


def look_at(path: str | Path) -> ImageContent:
    """Returns what an image file declares of itself, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image that can be opened.
    """
    try:
        with _open_file(path) as file, _open(file) as image:
            return read_content(image)
    except FileNotFoundError:
        raise
    except _READ_ERRORS as error:
        raise ValueError(f"image {path} cannot be read: {_explain(error, Path(path))}") from error


def _open_file(path: str | Path) -> BoundedReader | BytesIO:
    """Opens a file; a JPEG that lacks only its last two bytes, which end it, is given them.

    Without them Pillow calls it cut off. Bytes behind complete pixels change none of them, so that it is complete if
    other bytes make no difference.
    """
    file = BoundedReader(path)
    if file.read(2) != _JPEG_START or file.size > _MAX_UNENDED:
        file.seek(0)
        return file
    file.seek(max(0, file.size - _TAIL))
    has_end = _JPEG_END in file.read()
    file.seek(0)
    if has_end:
        return file
    start = file.read().removesuffix(_JPEG_END[:1])
    ended = start + _JPEG_END
    try:
        pixels = [Image.open(BytesIO(start + more + _JPEG_END), formats=["JPEG"]).tobytes() for more in (b"", _MORE)]
    except _READ_ERRORS:
        pixels = []
    if len(pixels) == 2 and pixels[0] == pixels[1]:
        file.close()
        return BytesIO(ended)
    file.seek(0)
    return file


def _open(file: BoundedReader | BytesIO) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_IMAGE_PIXELS:
        size = f"{image.width} x {image.height}"
        image.close()
        raise ValueError(f"{size} pixels are declared, limit {MAX_IMAGE_PIXELS}")
    return image


def _explain(error: BaseException, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        if not path.stat().st_size:
            return "the file is empty"
        found = explain_format(path) or explain_tiff(path)
        return found or "the file is cut off, or not the image that its name says"
    return " ".join(str(error).split()) or type(error).__name__


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts any Pillow image to ``"RGB"`` or ``"L"`` (grey): grey, colour, palette, 1-bit, 16-bit and float images.

    Transparency is dropped, not blended: annotation tools store the image under it. Deep grey is scaled to 8 bit, which
    Pillow's own ``convert`` would clip: floats in [0, 1] by 255, values above 255 by the highest one (10, 12 and 16
    bit alike), negative ones from the lowest to the highest. Others in [0, 255] keep their values.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_scale_to_8_bit(np.asarray(image)))
    return image if image.mode == mode else image.convert(mode)


def to_mask(image: Image.Image) -> np.ndarray:
    """Returns a mask's values as they are stored: grey levels of any depth, a palette's indices, or colours.

    - A colour is a negative number, -0xRRGGBB, so that no colour is taken for a grey level. A lossy file whose channels
      differ by at most ``GREY_SPREAD`` is grey.
    - A palette of colours whose entry 0 is black stands for class indices, as annotation tools write it, and so does
      one without any difference. Otherwise a program may have sorted it, and what it shows counts.
    - Transparent pixels are 0, unless all are. Where all pixels have one colour and the alpha channel has several
      values, the alpha channel is the mask.

    Shape:
        - output: (rows, columns).
    """
    if image.mode == "P" and not _has_index_palette(image):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "P":
        return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width)
    if image.mode in TRANSPARENT_MODES:
        return _read_transparent(image.convert("RGBA"))
    if image.mode == "F" or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return _to_values(np.asarray(image.convert("RGB")), lossy=image.format in _LOSSY_FORMATS)


def _scale_to_8_bit(values: np.ndarray) -> np.ndarray:
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    floating = np.issubdtype(values.dtype, np.floating)
    if low < 0:
        finite = (finite - low) * (255 / (high - low) if high > low else 0.0)
    elif high > 255:
        finite = finite * (255 / high)
    elif floating and high <= 1:
        finite = finite * 255
    return finite.astype(np.uint8)


def _has_index_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0, 0, 0], np.uint8).reshape(-1, 3)
    one_colour = bool((colours == colours[0]).all())
    all_grey = bool((colours == colours[:, :1]).all())
    return one_colour or not (all_grey or colours[0].any())


def _read_transparent(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.min() == alpha.max():
        return _to_values(colours)
    if (colours == colours[0, 0]).all():
        return alpha
    return np.where(alpha > 0, _to_values(colours), 0)


def _to_values(colours: np.ndarray, lossy: bool = False) -> np.ndarray:
    red, green, blue = (colours[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red
    if lossy and int(np.ptp(colours.astype(np.int16), axis=-1).max()) <= GREY_SPREAD:
        return np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert("L"))
    packed = -(red.astype(np.int32) << 16 | green.astype(np.int32) << 8 | blue)
    return np.where((red == green) & (green == blue), red.astype(np.int32), packed)
