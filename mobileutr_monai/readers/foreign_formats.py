"""Formats that are not read, told by content or else by name, and what converts them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.kinds import VIDEO_SUFFIXES

__all__ = ["ForeignFormat", "explain_format", "find_format", "is_itk", "is_video"]


class ForeignFormat(NamedTuple):
    """A format that is not read.

    Attributes:
        name: as people call it.
        suffixes: of its files; only for formats that are told by their name.
        remedy: what to do with it.
    """

    name: str
    remedy: str
    suffixes: tuple[str, ...] = ()


_TO_PNG = "convert it to PNG, for example with ImageMagick"
_TO_NIFTI = "convert it to NIfTI, for example with 3D Slicer or SimpleITK"
_TO_FRAMES = "save its frames as PNG, for example with ffmpeg"

_JPEG_2000 = ForeignFormat("JPEG 2000", _TO_PNG, (".jp2", ".j2k", ".jpx"))
_HEIC = ForeignFormat("HEIC", _TO_PNG, (".heic", ".heif"))
_AVIF = ForeignFormat("AVIF", _TO_PNG, (".avif",))
_VIDEO = ForeignFormat("video", _TO_FRAMES, VIDEO_SUFFIXES)
_OTHER_VIDEO = ForeignFormat(
    "video that is not MP4, MOV, AVI, Matroska or WebM", _TO_FRAMES, (".wmv", ".mpg", ".mpeg", ".ts", ".flv")
)
_NRRD = ForeignFormat("NRRD", _TO_NIFTI, (".nrrd", ".nhdr"))
_META_IMAGE = ForeignFormat("MetaImage", _TO_NIFTI, (".mha", ".mhd"))

# Bytes, where they are, and the format.
_SIGNATURES = (
    (0, b"\0\0\0\x0cjP  ", _JPEG_2000),
    (0, b"\xff\x4f\xff\x51", _JPEG_2000),
    (0, b"NRRD0", _NRRD),
    (0, b"ObjectType", _META_IMAGE),
    (0, b"NDims", _META_IMAGE),
    (0, b"\x1aE\xdf\xa3", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"\0\0\x01\xba", _OTHER_VIDEO),
    (0, b"\0\0\x01\xb3", _OTHER_VIDEO),
    (0, b"0&\xb2u\x8ef\xcf\x11", _OTHER_VIDEO),
    (0, b"FLV\x01", _OTHER_VIDEO),
    (0, b"\xff\x0a", ForeignFormat("JPEG XL", _TO_PNG)),
    (0, b"\0\0\0\x0cJXL ", ForeignFormat("JPEG XL", _TO_PNG)),
    (0, b"8BPS", ForeignFormat("Photoshop", _TO_PNG)),
    (0, b"v/1\x01", ForeignFormat("OpenEXR", _TO_PNG)),
    (0, b"%!PS", ForeignFormat("PostScript", _TO_PNG)),
    *((0, b"P%d\n" % number, ForeignFormat("PNM", _TO_PNG)) for number in range(1, 7)),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIC),
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P "), ForeignFormat("audio", "it has no image")),
    b"crx ": ForeignFormat("a camera's raw format", _TO_PNG),
}
_BY_NAME = (
    *(_JPEG_2000, _HEIC, _AVIF, _VIDEO, _OTHER_VIDEO, _NRRD, _META_IMAGE),
    ForeignFormat("FreeSurfer's MGH", "convert it to NIfTI, for example with mri_convert", (".mgh", ".mgz")),
    ForeignFormat("MINC", _TO_NIFTI, (".mnc",)),
    ForeignFormat("PNM", _TO_PNG, (".ppm", ".pgm", ".pbm", ".pnm")),
    ForeignFormat("TGA", _TO_PNG, (".tga",)),
    ForeignFormat("JPEG XL", _TO_PNG, (".jxl",)),
)
_SNIFFED_BYTES = 16


def find_format(path: Path) -> ForeignFormat | None:
    """Returns the format of a file that is not read, by its content or else by its name; None if it is unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(_SNIFFED_BYTES)
    except OSError:
        return None
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], _VIDEO)
    by_content = (found for place, magic, found in _SIGNATURES if start[place : place + len(magic)] == magic)
    by_name = (found for found in _BY_NAME if path.name.lower().endswith(found.suffixes))
    return next(by_content, None) or next(by_name, None)


def is_itk(path: Path) -> bool:
    """Whether a file is NRRD or MetaImage, which SimpleITK converts."""
    return find_format(path) in (_NRRD, _META_IMAGE)


def is_video(path: Path) -> bool:
    """Whether a file is a video in a container that PyAV is asked to read."""
    return find_format(path) is _VIDEO


def explain_format(path: Path) -> str:
    """Returns what a file is that is not read, and what to do; empty if it is unknown."""
    found = find_format(path)
    return "" if found is None else f"{found.name} is not supported; {found.remedy}"
