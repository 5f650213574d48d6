"""Images in the pixel mode that a network takes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from monai.data import PILReader
from monai.transforms import LoadImage
from PIL import Image

from mobileutr_monai.readers.image_reader import ImageFileReader
from mobileutr_monai.readers.pillow_io import to_mask, to_mode


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
    "F": Example(Image.fromarray(np.array([[0, 0.5, 1]], "f4")), [(g, g, g) for g in (0, 127, 255)], [0, 127, 255]),
    "I": Example(make_16_bit_image("<i4"), [(g, g, g) for g in GREYS_OF_16_BIT], GREYS_OF_16_BIT),
}


@pytest.mark.parametrize(("mode", "example"), EXAMPLES.items(), ids=EXAMPLES)
def test_keeps_what_the_pixels_show(mode: str, example: Example) -> None:
    assert example.image.mode == mode
    colour, grey = to_mode(example.image, "RGB"), to_mode(example.image, "L")
    assert (colour.mode, grey.mode) == ("RGB", "L")
    assert np.asarray(colour).tolist() == [[list(pixel) for pixel in example.rgb]]
    assert np.asarray(grey).tolist() == [example.grey]


@pytest.mark.parametrize("factor", [1, 4, 16, 257], ids=["8 bit", "10 bit", "12 bit", "16 bit"])
def test_grey_in_16_bit_words_keeps_its_levels_however_deep_it_is(factor: int) -> None:
    image = Image.fromarray((np.arange(256, dtype=np.uint16) * factor).reshape(16, 16))
    assert np.abs(np.asarray(to_mode(image, "L")).ravel().astype(int) - np.arange(256)).max() <= 1


def test_16_bit_grey_uses_the_full_range() -> None:
    image = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert np.array_equal(np.asarray(to_mode(image, "L")).ravel(), np.arange(256))


def test_an_image_in_the_mode_is_returned_as_it_is() -> None:
    image = make_image("RGB", [RED])
    assert to_mode(image, "RGB") is image


# Values of a 32-bit image, and its grey levels.
DEEP: dict[str, tuple[str, list[float], list[int]]] = {
    "floats of 8 bit": ("f4", [0, 100.4, 255], [0, 100, 255]),
    "floats of 16 bit": ("f4", [0, 32767.5, 65535], [0, 127, 255]),
    "below zero": ("f4", [-1000, 0, 1000], [0, 127, 255]),
    "no number": ("f4", [0, float("nan"), 255], [0, 0, 255]),
    "integers above 16 bit": ("i4", [0, 500_000, 1_000_000], [0, 127, 255]),
}


@pytest.mark.parametrize(("dtype", "values", "greys"), DEEP.values(), ids=DEEP)
def test_deep_values_are_scaled_and_not_clipped(dtype: str, values: list[float], greys: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=dtype))
    assert np.asarray(to_mode(image, "L")).tolist() == [greys]


def make_mask(mode: str, pixels: list, palette: tuple[int, ...] = ()) -> Image.Image:
    image = make_image(mode, pixels)
    if palette:
        image.putpalette(palette)
    return image


BLACK, WHITE, BLUE = (0, 0, 0), (255, 255, 255), (0, 0, 255)
# A mask of one row, and its values.
MASKS: dict[str, tuple[Image.Image, list[float]]] = {
    **{f"16 bit, {top}": (Image.fromarray(np.array([[0, top]], np.uint16)), [0, top]) for top in (1, 255, 65535)},
    "float": (Image.fromarray(np.array([[0, 0.5]], "f4")), [0, 0.5]),
    "1-bit": (make_mask("1", [0, 1]), [0, 255]),
    "grey": (make_mask("L", [0, 7]), [0, 7]),
    "grey as RGB": (make_mask("RGB", [BLACK, WHITE]), [0, 255]),
    "colours": (make_mask("RGB", [BLACK, RED, BLUE, WHITE]), [0, -0xFF0000, -0x0000FF, 255]),
    "nearly black": (make_mask("RGB", [BLACK, (1, 0, 0), (2, 0, 0)]), [0, -0x010000, -0x020000]),
    "palette of classes": (make_mask("P", [0, 2, 1], (*BLACK, *RED, *BLUE)), [0, 2, 1]),
    "palette without colours": (make_mask("P", [0, 1], BLACK * 256), [0, 1]),
    "palette of greys": (make_mask("P", [0, 1], (*WHITE, *BLACK)), [255, 0]),
    "sorted palette": (make_mask("P", [0, 1], (*RED, *BLACK)), [-0xFF0000, 0]),
    "opaque": (make_mask("RGBA", [(*BLACK, 255), (*RED, 255)]), [0, -0xFF0000]),
    "all transparent": (make_mask("RGBA", [(*BLACK, 0), (*RED, 0)]), [0, -0xFF0000]),
    "transparent background": (make_mask("RGBA", [(*WHITE, 0), (*RED, 128)]), [0, -0xFF0000]),
    "mask in the alpha channel": (make_mask("RGBA", [(*BLACK, 0), (*BLACK, 255)]), [0, 255]),
    "grey and opaque": (make_mask("LA", [(0, 255), (255, 255)]), [0, 255]),
}


@pytest.mark.parametrize(("mask", "values"), MASKS.values(), ids=MASKS)
def test_masks_keep_their_values(mask: Image.Image, values: list[float]) -> None:
    assert to_mask(mask).tolist() == [values]


def test_a_tinted_jpeg_mask_is_grey(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = (255, 250, 240)
    Image.fromarray(pixels).save(tmp_path / "mask.jpg")
    with Image.open(tmp_path / "mask.jpg") as image:
        values = to_mask(image)
    assert values.min() >= 0
    assert values[0, 0] < 10 and values[0, -1] > 240


def test_a_picture_is_read_as_monai_reads_it_in_the_mode_asked_for(tmp_path):
    EXAMPLES["RGB"].image.save(tmp_path / "a.png")
    reader = ImageFileReader("L")
    values, meta = reader.get_data(reader.read(tmp_path / "a.png"))
    assert values[:, 0].tolist() == EXAMPLES["RGB"].grey
    assert meta["spatial_shape"].tolist() == [2, 1]


def test_files_of_one_channel_each_are_stacked_as_monai_does(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        EXAMPLES["L"].image.save(path)
    values, expected = (LoadImage(reader=reader)(paths) for reader in (ImageFileReader("L"), PILReader()))
    assert values.shape == expected.shape == (2, 3, 1)
    assert np.array_equal(values.numpy(), expected.numpy())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_size_beyond_the_limit_is_an_error_before_anything_is_decoded(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">LL", 9000, 11000)
    data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    reader = ImageFileReader()
    with pytest.raises(ValueError, match="9000 x 11000 pixels are declared, limit"):
        reader.get_data(reader.read(tmp_path / "a.png"))


@pytest.mark.parametrize(("content", "words"), [(b"", "the file is empty"), (b"GIF87", "cut off, or not the image")])
def test_what_is_no_picture_is_an_error_that_names_it(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    reader = ImageFileReader()
    with pytest.raises(ValueError, match=words) as error:
        reader.get_data(reader.read(tmp_path / "a.png"))
    assert str(tmp_path / "a.png") in str(error.value)
