"""Images and masks in the pixel mode that a network takes."""

from __future__ import annotations

from PIL import Image

__all__ = ["to_mask", "to_mode"]


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts any Pillow image to ``"RGB"`` or ``"L"`` (grey): grey, colour, palette, 1-bit and 16-bit images.

    Transparency is dropped, not blended: annotation tools store the image under it. 16-bit grey is scaled to 8 bit by
    its full range, which Pillow's own ``convert`` would clip.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    return image if image.mode == mode else image.convert(mode)


def to_mask(image: Image.Image) -> Image.Image:
    """Returns a mask's values as they are stored: grey levels of any depth, or a palette's indices.

    Colours become grey levels, without their transparency.
    """
    if image.mode == "P":
        return Image.frombytes("L", image.size, image.tobytes())
    if image.mode.startswith("I"):
        return image.convert("I")
    return image.convert("L")
