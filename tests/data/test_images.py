"""Images in the pixel mode that a network takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.data.images import to_mask, to_mode


class Example(NamedTuple):
    """An image of one row, and its pixels in the two modes."""

    image: Image.Image
    rgb: list[tuple[int, int, int]]
    grey: list[int]


GREEN, RED = (10, 200, 30), (255, 0, 0)
GREEN_GREY, RED_GREY = 124, 76  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B


def make_image(mode: str, pixels: list) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


def make_palette_image() -> Image.Image:
    image = make_image("P", [1, 0])
    image.putpalette([*RED, *GREEN])
    image.info["transparency"] = 1
    return image


def make_16_bit_image(dtype: str) -> Image.Image:
    return Image.fromarray(np.array([[0, 1 * 257, 128 * 257, 65535]], dtype=dtype))


GREYS_OF_16_BIT = [0, 1, 128, 255]

EXAMPLES = {
    "L": Example(make_image("L", [0, 7, 255]), [(0, 0, 0), (7, 7, 7), (255, 255, 255)], [0, 7, 255]),
    "RGB": Example(make_image("RGB", [GREEN, RED]), [GREEN, RED], [GREEN_GREY, RED_GREY]),
    "RGBA": Example(
        make_image("RGBA", [(*GREEN, 0), (*GREEN, 128), (*RED, 255)]),
        [GREEN, GREEN, RED],
        [GREEN_GREY, GREEN_GREY, RED_GREY],
    ),
    "LA": Example(make_image("LA", [(90, 0), (90, 255)]), [(90, 90, 90), (90, 90, 90)], [90, 90]),
    "P": Example(make_palette_image(), [GREEN, RED], [GREEN_GREY, RED_GREY]),
    "1": Example(make_image("1", [0, 1]), [(0, 0, 0), (255, 255, 255)], [0, 255]),
    "I;16": Example(make_16_bit_image("<u2"), [(g, g, g) for g in GREYS_OF_16_BIT], GREYS_OF_16_BIT),
    "I;16B": Example(make_16_bit_image(">u2"), [(g, g, g) for g in GREYS_OF_16_BIT], GREYS_OF_16_BIT),
    "I": Example(make_16_bit_image("<i4"), [(g, g, g) for g in GREYS_OF_16_BIT], GREYS_OF_16_BIT),
}


@pytest.mark.parametrize(("mode", "example"), EXAMPLES.items(), ids=EXAMPLES)
def test_keeps_what_the_pixels_show(mode: str, example: Example) -> None:
    assert example.image.mode == mode
    colour, grey = to_mode(example.image, "RGB"), to_mode(example.image, "L")
    assert (colour.mode, grey.mode) == ("RGB", "L")
    assert np.asarray(colour).tolist() == [[list(pixel) for pixel in example.rgb]]
    assert np.asarray(grey).tolist() == [example.grey]


def test_16_bit_grey_uses_the_full_range() -> None:
    image = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert np.array_equal(np.asarray(to_mode(image, "L")).ravel(), np.arange(256))


def test_an_image_in_the_mode_is_returned_as_it_is() -> None:
    image = make_image("RGB", [RED])
    assert to_mode(image, "RGB") is image


@pytest.mark.parametrize("foreground", [1, 255, 65535])
def test_masks_of_16_bits_keep_their_foreground(foreground):
    values = np.array([[0, foreground]], np.uint16)
    assert np.asarray(to_mask(Image.fromarray(values))).tolist() == [[0, foreground]]


def test_palette_masks_keep_their_indices_whatever_the_colours():
    mask = Image.frombytes("P", (2, 1), bytes([0, 1]))
    mask.putpalette([0, 0, 0] * 256)
    assert np.asarray(to_mask(mask)).tolist() == [[0, 1]]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA"])
def test_masks_of_other_modes_become_grey(mode):
    mask = Image.fromarray(np.array([[0, 255]], np.uint8)).convert(mode)
    assert np.asarray(to_mask(mask)).tolist() == [[0, 255]]
