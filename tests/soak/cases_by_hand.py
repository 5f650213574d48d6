"""Files that lie on purpose, each about one thing, and folders that trap who walks them."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from tests.soak.seeds import compress, make_dicom, make_image, make_nifti

__all__ = ["CASES", "make_traps"]

MIB = 2**20


def png(width: int, height: int, body: bytes | None = None, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG with any size; its pixels are a few zeros, or ``body``."""
    chunks = [(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(b"\0" * 1000) if body is None else body), (b"IEND", b"")]
    return _png(chunks)


def png_with(kind: bytes, body: bytes) -> bytes:
    """A sound PNG with a chunk before its pixels."""
    whole = make_image("PNG")
    chunk = struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
    return whole[:33] + chunk + whole[33:]


def jpeg(width: int, height: int) -> bytes:
    data = make_image("JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def tiff(**tags: tuple[int, int, int]) -> bytes:
    """A little TIFF of 8 x 8 grey pixels, with the given entries (type, count, value) by their number."""
    entries = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 400),
               277: (3, 1, 1), 278: (4, 1, 8), 279: (4, 1, 64)}  # fmt: skip
    entries |= {int(tag.lstrip("t")): value for tag, value in tags.items()}
    body = b"".join(struct.pack("<HHLL", tag, *entries[tag]) for tag in sorted(entries))
    data = b"II*\0" + struct.pack("<LH", 8, len(entries)) + body + struct.pack("<L", 0)
    return data.ljust(400, b"\0") + bytes(range(64))


def tiff_of_many_pages(pages: int) -> bytes:
    """A TIFF whose directories all describe the same pixels."""
    body = tiff()[8:-64].rstrip(b"\0")
    length = len(body) + 4
    first = 8
    out = [b"II*\0", struct.pack("<L", first)]
    place = first
    template = tiff()[8 : 8 + 2 + 12 * 9]
    length = len(template) + 4
    for page in range(pages):
        place += length
        out.append(template + struct.pack("<L", place if page + 1 < pages else 0))
    return b"".join(out) + bytes(64)


def nifti(shape: tuple[int, ...] = (8, 8, 8), data: bytes | None = None, **fields: tuple[str, object]) -> bytes:
    """A NIfTI of 8 x 8 x 8 bytes, with fields changed: name -> (offset and struct format, value or values)."""
    out = bytearray(make_nifti((8, 8, 8), "uint8"))
    rank = len(shape)
    fields = {"dim": ("40:<8h", (rank, *shape, *[1] * (7 - rank))), **fields}
    for where, values in fields.values():
        offset, kind = where.split(":")
        struct.pack_into(kind, out, int(offset), *(values if isinstance(values, tuple) else (values,)))
    return bytes(out[:352]) + (bytes(out[352:]) if data is None else data)


def gzip_bomb(start: bytes, mebibytes: int) -> bytes:
    """A header, and zeros without end, in as many members as there are MiB."""
    return gzip.compress(start, 9, mtime=0) + gzip.compress(bytes(MIB), 9, mtime=0) * mebibytes


def deflate_bomb(start: bytes, mebibytes: int) -> bytes:
    """A raw deflate stream of zeros; a block that was flushed can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * mebibytes + packer.flush(zlib.Z_FINISH)


def deflated_dicom(mebibytes: int) -> bytes:
    """A data set whose pixels inflate to that size."""
    whole = make_dicom(np.zeros((8, 8), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    plain = make_dicom(np.zeros((8, 8), np.uint8))
    meta_end = 132 + 12 + struct.unpack("<L", whole[140:144])[0]
    data_set = plain[132 + 12 + struct.unpack("<L", plain[140:144])[0] :]
    pixels = data_set.rindex(b"\xe0\x7f\x10\x00OB\0\0")
    # An element before the pixels, which reading the header has to pass.
    element = b"\x09\x00\x10\x10UN\0\0" + struct.pack("<L", min(mebibytes * MIB, 2**32 - 2))
    place = data_set.index(b"\x20\x00\x0d\x00UI") if b"\x20\x00\x0d\x00UI" in data_set else pixels
    return whole[:meta_end] + deflate_bomb(data_set[:place] + element, mebibytes)


def nested_dicom(depth: int) -> bytes:
    """Sequences within sequences, of undefined length."""
    whole = make_dicom(np.zeros((8, 8), np.uint8))
    place = whole.index(b"\x08\x00\x60\x00CS")
    sequence, item = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return whole[:place] + (sequence + item) * depth + whole[place:]


def many_items(items: int) -> bytes:
    """A sequence of empty items: 8 bytes each in the file, an object each in memory."""
    whole = make_dicom(np.zeros((8, 8), np.uint8))
    place = whole.index(b"\x08\x00\x60\x00CS")
    start = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff"
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    return whole[:place] + start + b"\xfe\xff\x00\xe0\0\0\0\0" * items + end + whole[place:]


def private_element(length: int) -> bytes:
    """A private element that says to be longer than the file."""
    whole = make_dicom(np.zeros((8, 8), np.uint8))
    place = whole.index(b"\x28\x00\x02\x00US")
    return whole[:place] + b"\x09\x00\x10\x10UN\0\0" + struct.pack("<L", length) + whole[place:]


def fragments(*pieces: bytes, lengths: tuple[int, ...] = (), **attributes: object) -> bytes:
    """An encapsulated cine with an empty offset table and fragments that may lie about their lengths."""
    data = make_dicom(np.zeros((8, 8), np.uint8), [b"\0\0"], JPEGBaseline8Bit, **attributes)
    body = b"\xfe\xff\x00\xe0\0\0\0\0"
    for index, piece in enumerate(pieces):
        length = lengths[index] if index < len(lengths) else len(piece)
        body += b"\xfe\xff\x00\xe0" + struct.pack("<L", length) + piece
    place = data.index(b"\xe0\x7f\x10\x00OB\0\0") + 12
    return data[:place] + body + b"\xfe\xff\xdd\xe0\0\0\0\0"


def wrapped_jpeg(width: int, height: int) -> bytes:
    """A DICOM still of 8 x 8 whose JPEG says another size."""
    return fragments(jpeg(width, height), PhotometricInterpretation="YBR_FULL_422", SamplesPerPixel=3,
                     PlanarConfiguration=0)  # fmt: skip


def wrapped_jpeg2000(width: int, height: int, tile: int, components: int = 1) -> bytes:
    """A DICOM still of 64 x 64 whose JPEG 2000 codestream says another size."""
    data = compress(make_dicom(np.zeros((64, 64), np.uint8)), JPEG2000Lossless)
    place = data.index(b"\xff\x4f\xff\x51") + 8
    size = struct.pack(">8L", width, height, 0, 0, tile, tile, 0, 0) + struct.pack(">H", components)
    return data[:place] + size + data[place + len(size) :]


def rle_bomb(mebibytes: int) -> bytes:
    """A still of 8 x 8 whose run lengths say that many MiB of zeros."""
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    runs = b"\x81\x00" * (mebibytes * MIB // 128)
    return make_dicom(np.zeros((8, 8), np.uint8), [header + runs], RLELossless)


def zip_of(*names: str, levels: int = 1) -> bytes:
    data = make_image("PNG")
    for level in range(levels):
        out = BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names if level == 0 else (f"level{level}.zip",):
                archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
        data = out.getvalue()
    return data


def zip_bomb(mebibytes: int) -> bytes:
    out, entry = BytesIO(), zipfile.ZipInfo("bomb.png", (2020, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w") as archive, archive.open(entry, "w", force_zip64=True) as file:
        file.write(make_image("PNG"))
        for _ in range(mebibytes):
            file.write(bytes(MIB))
    return out.getvalue()


def make_traps(folder: Path) -> list[str]:
    """Makes what is in a folder besides plain files; returns the names that a walk may take for files.

    A FIFO, a socket, links to devices and nowhere, loops, and names that are long, hidden, or no text. As root, a file
    without permissions is read all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = make_image("PNG")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_RDONLY)  # the path of a socket is short
        listener.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)
    (folder / "zeros.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("missing.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "loop").mkdir()
    (folder / "loop" / "up").symlink_to("..")
    (folder / "link_to_pipe.dcm").symlink_to("pipe.png")
    (folder / "directory.png").mkdir()
    names = {
        "new\nline.png": image,
        "form\x0cfeed\u2028.png": image,
        "quote\",'semi;.png": image,
        "x" * 251 + ".png": image,
        "y" * 230 + ".nii.gz": gzip.compress(make_nifti(), mtime=0),
        "-rf.png": image,
        "=1+1.png": image,
        "日本語.png": image,
        "..png": image,
        "trailing .png": image,
        "no_permission.png": image,
        "CON.png": image,
    }
    for name, data in names.items():
        (folder / name).write_bytes(data)
    (folder / "no_permission.png").chmod(0)
    raw = os.fsencode(folder) + b"/latin_\xe9\xff.png"
    Path(os.fsdecode(raw)).write_bytes(image)
    return [*(name for name in names if not name.startswith(".")), os.fsdecode(b"latin_\xe9\xff.png")]


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        out += struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
    return out


def _gif(width: int, height: int) -> bytes:
    out = BytesIO()
    Image.new("P", (8, 8)).save(out, "GIF")
    data = bytearray(out.getvalue())
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


NAN, INF = float("nan"), float("inf")
_EIGHT = np.zeros((8, 8), np.uint8)

CASES: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "one_byte.dcm": lambda: b"\0",
    "png_65535.png": lambda: png(65535, 65535),
    "png_12000.png": lambda: png(12000, 12000),
    "png_2e9.png": lambda: png(2**31 - 1, 2**31 - 1),
    "png_zero_side.png": lambda: png(0, 8),
    "png_long_and_thin.png": lambda: png(2**24, 4),
    "png_text_bomb.png": lambda: png_with(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 * MIB), 9)),
    "png_profile_bomb.png": lambda: png_with(b"iCCP", b"p\0\0" + zlib.compress(bytes(64 * MIB), 9)),
    "png_huge_chunk.png": lambda: make_image("PNG")[:33] + b"\x7f\xff\xff\xfftEXtk\0",
    "png_pixel_bomb.png": lambda: png(16, 16, zlib.compress(bytes(64 * MIB), 9)),
    "jpeg_65535.jpg": lambda: jpeg(65535, 65535),
    "jpeg_65500_narrow.jpg": lambda: jpeg(65500, 8),
    "bmp_huge.bmp": lambda: make_image("BMP")[:18] + struct.pack("<ll", 65535, -65535) + make_image("BMP")[26:],
    "bmp_negative.bmp": lambda: make_image("BMP")[:18] + struct.pack("<ll", -40, -24) + make_image("BMP")[26:],
    "gif_65535.png": lambda: _gif(65535, 65535),
    "postscript.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30000 30000\n%%EndComments\n{1 pop} loop\n",
    "tiff_65535.tif": lambda: tiff(t256=(4, 1, 65535), t257=(4, 1, 65535)),
    "tiff_2e9.tif": lambda: tiff(t256=(4, 1, 2**31 - 1), t257=(4, 1, 1)),
    "tiff_strips_lie.tif": lambda: tiff(t273=(4, 2**30, 400), t279=(4, 2**30, 400)),
    "tiff_strip_beyond.tif": lambda: tiff(t273=(4, 1, 2**32 - 1)),
    "tiff_many_tag_values.tif": lambda: tiff(t305=(2, 2**32 - 1, 8)),
    "tiff_samples.tif": lambda: tiff(t277=(3, 1, 65535)),
    "tiff_million_pages.tif": lambda: tiff_of_many_pages(100_000),
    "nifti_dims_32767.nii": lambda: nifti((32767,) * 7),
    "nifti_dims_32767.nii.gz": lambda: gzip.compress(nifti((32767,) * 7), mtime=0),
    "nifti_dims_2000.nii.gz": lambda: gzip.compress(nifti((2000, 2000, 2000)), mtime=0),
    "nifti_zero_dim.nii": lambda: nifti((8, 0, 8)),
    "nifti_negative_dim.nii": lambda: nifti((8, -8, 8)),
    "nifti_rank_9.nii": lambda: nifti(dim=("40:<8h", (9, 8, 8, 8, 1, 1, 1, 1))),
    "nifti_rank_0.nii": lambda: nifti(dim=("40:<8h", (0, 8, 8, 8, 1, 1, 1, 1))),
    "nifti_rank_-1.nii": lambda: nifti(dim=("40:<8h", (-1, 8, 8, 8, 1, 1, 1, 1))),
    "nifti_offset_beyond.nii": lambda: nifti(offset=("108:<f", 1e9)),
    "nifti_offset_negative.nii": lambda: nifti(offset=("108:<f", -352.0)),
    "nifti_offset_nan.nii": lambda: nifti(offset=("108:<f", NAN)),
    "nifti_offset_in_header.nii": lambda: nifti(offset=("108:<f", 4.0)),
    "nifti_slope_nan.nii": lambda: nifti(scale=("112:<2f", (NAN, NAN))),
    "nifti_slope_inf.nii": lambda: nifti(scale=("112:<2f", (INF, 0.0))),
    "nifti_slope_huge.nii": lambda: nifti(scale=("112:<2f", (3e38, 3e38))),
    "nifti_type_unknown.nii": lambda: nifti(kind=("70:<hh", (77, 8))),
    "nifti_type_complex.nii": lambda: nifti((4, 4, 4), kind=("70:<hh", (32, 64))),
    "nifti_type_rgb.nii": lambda: nifti((8, 8, 2), kind=("70:<hh", (128, 24))),
    "nifti_type_float128.nii": lambda: nifti((4, 4, 2), kind=("70:<hh", (1536, 128))),
    "nifti_bits_lie.nii": lambda: nifti(kind=("70:<hh", (2, 64))),
    "nifti_affine_nan.nii": lambda: nifti(code=("252:<hh", (0, 1)), rows=("280:<12f", (NAN,) * 12)),
    "nifti_affine_zero.nii": lambda: nifti(code=("252:<hh", (0, 1)), rows=("280:<12f", (0.0,) * 12)),
    "nifti_affine_singular.nii": lambda: nifti(code=("252:<hh", (0, 1)), rows=("280:<12f", (1.0,) * 12)),
    "nifti_affine_inf.nii": lambda: nifti(code=("252:<hh", (0, 1)), rows=("280:<12f", (INF,) * 12)),
    "nifti_quaternion_lies.nii": lambda: nifti(code=("252:<hh", (1, 0)), q=("256:<6f", (9.0, 9.0, 9.0, 0, 0, 0))),
    "nifti_voxels_10_m.nii": lambda: nifti(code=("252:<hh", (0, 1)),
        rows=("280:<12f", (1e4, 0, 0, 0, 0, 1e4, 0, 0, 0, 0, 1e4, 0))),
    "nifti_voxels_1_pm.nii": lambda: nifti(code=("252:<hh", (0, 1)),
        rows=("280:<12f", (1e-9, 0, 0, 0, 0, 1e-9, 0, 0, 0, 0, 1e-9, 0))),
    "nifti_pixdim_nan.nii": lambda: nifti(code=("252:<hh", (0, 0)), pixdim=("76:<8f", (1.0, *[NAN] * 7))),
    "nifti_pixdim_zero.nii": lambda: nifti(code=("252:<hh", (0, 0)), pixdim=("76:<8f", (0.0,) * 8)),
    "nifti_swapped.nii": lambda: make_nifti(order=">"),
    "nifti_short.nii": lambda: nifti()[:-100],
    "nifti_long.nii": lambda: nifti() + bytes(1000),
    "nifti_extension_lies.nii": lambda: nifti(extension=("348:<4Bii", (1, 0, 0, 0, 2**31 - 1, 4))),
    "nifti_pair_without_data.nii": lambda: nifti(magic=("344:<4s", b"ni1\0")),
    "nifti_bomb.nii.gz": lambda: gzip_bomb(nifti(), 10_240),
    "nifti_bomb_declared.nii.gz": lambda: gzip_bomb(nifti((2000, 2000, 2000), b""), 8_192),
    "nifti_bomb_offset.nii.gz": lambda: gzip_bomb(nifti(offset=("108:<f", 2.0**33)), 8_192),
    "nifti_bomb_extension.nii.gz": lambda: gzip_bomb(
        nifti(offset=("108:<f", 2.0**31), extension=("348:<4Bii", (1, 0, 0, 0, 2**31 - 16, 4))), 2_048),
    "bomb_without_header.nii.gz": lambda: gzip_bomb(b"\0", 10_240),
    "bomb_without_suffix": lambda: gzip_bomb(b"\0", 1_024),
    "gzip_in_gzip.nii.gz": lambda: gzip.compress(gzip.compress(nifti(), mtime=0), mtime=0),
    "gzip_garbage_behind.nii.gz": lambda: gzip.compress(nifti(), mtime=0) + b"garbage" * 100,
    "gzip_cut.nii.gz": lambda: gzip.compress(make_nifti(), mtime=0)[:-200],
    "gzip_checksum.nii.gz": lambda: gzip.compress(nifti(), mtime=0)[:-8] + bytes(8),
    "dicom_million_frames.dcm": lambda: fragments(make_image("JPEG", "L", (8, 8)), NumberOfFrames=1_000_000),
    "dicom_2e9_frames.dcm": lambda: fragments(make_image("JPEG", "L", (8, 8)), NumberOfFrames=2**31 - 1),
    "dicom_2e9_frames_native.dcm": lambda: make_dicom(_EIGHT, NumberOfFrames=2**31 - 1),
    "dicom_negative_frames.dcm": lambda: make_dicom(_EIGHT, NumberOfFrames=-5),
    "dicom_2e9_frames_enhanced.dcm": lambda: make_dicom(_EIGHT, NumberOfFrames=2**31 - 1,
        PerFrameFunctionalGroupsSequence=[_plane()]),
    "dicom_65535.dcm": lambda: make_dicom(_EIGHT, Rows=65535, Columns=65535),
    "dicom_65535_jpeg.dcm": lambda: fragments(jpeg(65535, 65535), Rows=65535, Columns=65535),
    "dicom_16000_rle.dcm": lambda: make_dicom(_EIGHT, [struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 100],
        RLELossless, Rows=16000, Columns=16000),
    "dicom_64_bits.dcm": lambda: make_dicom(_EIGHT, BitsAllocated=64, BitsStored=64, HighBit=63),
    "dicom_1_bit.dcm": lambda: make_dicom(_EIGHT, BitsAllocated=1, BitsStored=1, HighBit=0),
    "dicom_bits_stored.dcm": lambda: make_dicom(_EIGHT, BitsStored=65535),
    "dicom_jpeg_larger_inside.dcm": lambda: wrapped_jpeg(65500, 65500),
    "dicom_jpeg_smaller_inside.dcm": lambda: wrapped_jpeg(4, 4),
    "dicom_jpeg2000_larger_inside.dcm": lambda: wrapped_jpeg2000(65535, 65535, 65535),
    "dicom_jpeg2000_tiles.dcm": lambda: wrapped_jpeg2000(60000, 60000, 1),
    "dicom_jpeg2000_components.dcm": lambda: wrapped_jpeg2000(64, 64, 64, 16384),
    "dicom_rle_bomb.dcm": lambda: rle_bomb(2048),
    "dicom_fragment_4_GB.dcm": lambda: fragments(b"\0" * 100, lengths=(2**32 - 2,)),
    "dicom_fragments_lie.dcm": lambda: fragments(*[b"\0" * 8] * 5, lengths=(0, 1, 2**31, 7, 2**32 - 1),
        NumberOfFrames=5),
    "dicom_no_fragments.dcm": lambda: fragments(NumberOfFrames=3),
    "dicom_private_4_GB.dcm": lambda: private_element(2**32 - 2),
    "dicom_deflate_bomb.dcm": lambda: deflated_dicom(8192),
    "dicom_nested_10000.dcm": lambda: nested_dicom(10_000),
    "dicom_nested_100.dcm": lambda: nested_dicom(100),
    "dicom_million_items.dcm": lambda: many_items(2_000_000),
    "zip_one.zip": lambda: zip_of("a.png"),
    "zip_escapes.zip": lambda: zip_of("../escape.png", "/tmp/escape.png", "a/../../escape.png", "..\\escape.png"),
    "zip_twins.zip": lambda: zip_of("a.png", "A.PNG"),
    "zip_nested.zip": lambda: zip_of("a.png", levels=20),
    "zip_bomb.zip": lambda: zip_bomb(512),
    "zip_cut.zip": lambda: zip_of("a.png", "b.png")[:-40],
    "zip_long_name.zip": lambda: zip_of("x/" * 200 + "y" * 300 + ".png"),
}  # fmt: skip


def _plane() -> object:
    from pydicom.dataset import Dataset

    position, orientation, measures, frame = Dataset(), Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, 0]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [1, 1]
    frame.PlanePositionSequence, frame.PlaneOrientationSequence = [position], [orientation]
    frame.PixelMeasuresSequence = [measures]
    return frame
