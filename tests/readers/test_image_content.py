"""What Pillow drops silently is a conversion, an error, or words for the report."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.datasets.masks import read_mask
from mobileutr_monai.readers.foreign_formats import find_format
from mobileutr_monai.readers.pillow_io import look_at, open_image, to_mode

GREY = np.linspace(0, 255, 12 * 16).astype(np.uint8).reshape(12, 16)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


def read(path: Path, mode: str = "L") -> np.ndarray:
    with open_image(path, "image") as image:
        return np.asarray(to_mode(image, mode))


def write_png16(path: Path, pixels: np.ndarray) -> None:
    """Writes 16-bit RGB, which Pillow does not write."""
    rows, columns, _ = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">2L5B", columns, rows, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    data = b"".join(struct.pack(">L", len(d)) + k + d + struct.pack(">L", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def write_tiff(path: Path, data: bytes, **tags: tuple[int, ...]) -> None:
    """Writes an uncompressed TIFF of 16 x 12 pixels with any tags."""
    numbers = {"bits": 258, "photometric": 262, "samples": 277, "planar": 284, "format": 339, "orientation": 274}
    entries = {
        256: (16,),
        257: (12,),
        258: (16,),
        259: (1,),
        262: (1,),
        273: (0,),
        277: (1,),
        278: (12,),
        279: (len(data),),
    }
    entries |= {numbers[name]: value for name, value in tags.items()}
    extra, place = b"", 8 + 2 + 12 * len(entries) + 4
    offset = place + sum(2 * len(value) for value in entries.values() if len(value) > 2)
    entries[273] = (offset,)
    directory = struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        kind, packed = (
            (4, struct.pack("<L", value[0])) if tag in (273, 279) else (3, struct.pack(f"<{len(value)}H", *value))
        )
        if len(packed) > 4:
            directory += struct.pack("<HHLL", tag, kind, len(value), place + len(extra))
            extra += packed
        else:
            directory += struct.pack("<HHL", tag, kind, len(value)) + packed.ljust(4, b"\0")
    path.write_bytes(b"II*\0" + struct.pack("<L", 8) + directory + bytes(4) + extra + data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_an_image_is_turned_as_viewers_turn_it_and_that_is_said(tmp_path: Path, orientation: int, suffix: str):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(path, exif=exif, quality=100, lossless=True)
    rows = np.arange(12)[:, None].repeat(16, 1)
    columns = np.arange(16)[None].repeat(12, 0)
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: a[::-1].T,
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: a[:, ::-1].T,
    }
    turn = turns[orientation]
    found = read(path).astype(int)
    assert found.shape == turn(GREY).shape
    assert np.abs(found - GREY[turn(rows), turn(columns)]).max() <= 8  # JPEG
    content = look_at(path)
    assert content.size == found.shape[::-1]
    assert [f"({orientation})" in loss for loss in content.losses] == ([True] if orientation > 1 else [])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_turns_nothing(tmp_path: Path):
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\1\2\3")
    assert np.array_equal(read(tmp_path / "a.png"), GREY)


@pytest.mark.parametrize(
    ("kind", "top", "bits", "sample"),
    [("<u2", 65535, 16, 1), ("<u2", 4095, 16, 1), ("<f4", 1.0, 32, 3), ("u1", 255, 8, 1)],
)
def test_a_tiff_whose_0_is_white_is_inverted_at_any_depth(
    tmp_path: Path, kind: str, top: float, bits: int, sample: int
):
    black = (GREY / 255 * top).astype(kind)
    black[0, 0], black[-1, -1] = 0, top
    for name, values, photometric in (("black", black, 1), ("white", (top - black).astype(kind), 0)):
        data = values.tobytes()
        write_tiff(tmp_path / f"{name}.tif", data, bits=(bits,), photometric=(photometric,), format=(sample,))
    found, expected = read(tmp_path / "white.tif"), read(tmp_path / "black.tif")
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert expected.max() == 255 and expected.min() == 0


def test_16_bit_colour_is_reduced_and_said_or_refused_where_few_levels_are_left(tmp_path: Path):
    write_png16(tmp_path / "full.png", COLOUR.astype(np.uint16) * 257)
    assert np.array_equal(read(tmp_path / "full.png", "RGB"), COLOUR)
    assert look_at(tmp_path / "full.png").losses == ("16-bit colour is reduced to 8 bits",)
    write_png16(tmp_path / "ten.png", COLOUR.astype(np.uint16) * 4)
    with pytest.raises(ValueError, match=r"ten\.png cannot be read: its 16-bit colour uses 4 of 256 levels"):
        read(tmp_path / "ten.png")
    write_tiff(
        tmp_path / "ten.tif", (COLOUR.astype("<u2") * 4).tobytes(), bits=(16,) * 3, photometric=(2,), samples=(3,)
    )
    with pytest.raises(ValueError, match="its 16-bit colour uses 4 of 256 levels"):
        read(tmp_path / "ten.tif")


def test_deep_planar_colour_is_refused_and_8_bit_is_read(tmp_path: Path):
    planes = np.moveaxis(COLOUR, 2, 0)
    tags = {"photometric": (2,), "samples": (3,), "planar": (2,)}
    write_tiff(tmp_path / "deep.tif", (planes.astype("<u2") * 257).tobytes(), bits=(16,) * 3, **tags)
    with pytest.raises(ValueError, match="its 16-bit channels are stored one after the other"):
        read(tmp_path / "deep.tif")


def make_pages(path: Path, count: int, **options: object) -> Path:
    first, *others = (Image.fromarray(np.roll(GREY, n)) for n in range(count))
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.gif", "a.webp"])
def test_a_file_of_several_images_is_refused_with_their_number(tmp_path: Path, name: str):
    path = make_pages(tmp_path / name, 3)
    assert look_at(path).pages == 3
    for reading in (read, read_mask):
        with pytest.raises(ValueError, match="it holds 3 images, and a mask is of one"):
            reading(path)
    assert look_at(make_pages(tmp_path / f"one{name}", 1)).pages == 1


def test_a_reduced_copy_in_a_tiff_is_no_page(tmp_path: Path):
    small = Image.fromarray(GREY).resize((8, 6))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(GREY).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        image.seek(1)
        assert image.tag_v2[254] == 1
    assert np.array_equal(read(tmp_path / "a.tif"), GREY)


def test_a_preview_in_a_photograph_is_said(tmp_path: Path):
    Image.fromarray(COLOUR).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.fromarray(COLOUR)]
    )
    assert read(tmp_path / "a.jpg").shape == GREY.shape
    assert look_at(tmp_path / "a.jpg").losses == ("the first of 2 images is used",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_that_is_ignored_is_said(tmp_path: Path, mode: str):
    Image.fromarray(COLOUR).convert(mode).save(tmp_path / "a.png")
    assert look_at(tmp_path / "a.png").losses == ("transparency is ignored",)


@pytest.mark.parametrize("missing", [b"\xff\xd9", b"\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_whole_and_one_cut_off_is_not(
    tmp_path: Path, missing: bytes, progressive: bool
):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
    whole = BytesIO()
    Image.fromarray(pixels).save(whole, "JPEG", progressive=progressive)
    data = whole.getvalue()
    (tmp_path / "a.jpg").write_bytes(data.removesuffix(missing))
    (tmp_path / "whole.jpg").write_bytes(data)
    assert np.array_equal(read(tmp_path / "a.jpg", "RGB"), read(tmp_path / "whole.jpg", "RGB"))
    for length in (len(data) // 2, len(data) - 40, len(data) - 6):
        (tmp_path / "cut.jpg").write_bytes(data[:length])
        with pytest.raises(ValueError, match="truncated"):
            read(tmp_path / "cut.jpg")


FTYP = b"\0\0\0\x18ftyp"
FOREIGN = {
    "a.jpg": (FTYP + b"heic", "HEIC is not supported; convert it to PNG, for example with ImageMagick"),
    "b.png": (FTYP + b"avif", "AVIF is not supported"),
    "c.tif": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not supported"),
    "d.bmp": (FTYP + b"isom", "video is not supported; save its frames as PNG, for example with ffmpeg"),
    "e.png": (b"NRRD0005\n", "NRRD is not supported; convert it to NIfTI, for example with 3D Slicer or SimpleITK"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_format_under_an_images_name_is_named(tmp_path: Path, name: str):
    content, words = FOREIGN[name]
    (tmp_path / name).write_bytes(content + bytes(64))
    with pytest.raises(ValueError, match=words):
        read(tmp_path / name)


def test_a_tiff_of_a_kind_that_is_not_read_says_which(tmp_path: Path):
    write_tiff(tmp_path / "a.tif", GREY.astype("<f2").tobytes(), format=(3,))
    with pytest.raises(ValueError, match=r"TIFF with 16-bit floating-point values .* is not supported"):
        read(tmp_path / "a.tif")


def test_a_file_whose_name_alone_says_what_it_is_is_told_by_it(tmp_path: Path):
    (tmp_path / "a.mgz").write_bytes(b"\x1f\x8b" + bytes(64))
    (tmp_path / "a.txt").write_bytes(b"words of some kind")
    found = find_format(tmp_path / "a.mgz")
    assert found is not None and "mri_convert" in found.remedy
    assert find_format(tmp_path / "a.txt") is None


def test_a_constant_negative_image_is_one_grey(tmp_path: Path):
    write_tiff(tmp_path / "a.tif", np.full((12, 16), -3, "<f4").tobytes(), bits=(32,), format=(3,))
    assert np.array_equal(read(tmp_path / "a.tif"), np.zeros((12, 16)))
