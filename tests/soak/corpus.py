"""Hostile files, made from a seed: mutated real and synthetic images, NIfTI and DICOM, and cases written by hand.

A file depends on the seed, its number and the files it is made from alone, so that any of them can be made again::

    python -m tests.soak.corpus --seed 0 --first 123 --files 1 --output FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.soak import cases_by_hand
from tests.soak.seeds import Seed, find_seeds

__all__ = ["make_corpus", "make_file"]

KINDS = {"dicom": 35, "nifti": 25, "png": 12, "jpeg": 12, "tiff": 12, "bmp": 4}
"""How many of a hundred files are of each kind, before they are mutated."""

BY_HAND_EVERY = 25
"""Of so many files one is a case written by hand."""

INTERESTING = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 4095, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
INTERESTING_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, float("nan"), float("inf"), float("-inf"), 352.0, 1e9)

# NIfTI-1 header: offset, struct format, name of each field that readers act upon.
NIFTI_FIELDS = (
    (0, "i"), (40, "8h"), (68, "h"), (70, "h"), (72, "h"), (76, "8f"), (108, "f"), (112, "f"), (116, "f"),
    (123, "B"), (252, "h"), (254, "h"), (256, "6f"), (280, "12f"), (344, "4s"), (348, "4B"), (352, "2i"),
)  # fmt: skip

# Attributes that decoding, geometry or display act upon, and what a lie may be.
DICOM_LIES: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 2, 65535, 32768, 513),
    "Columns": (0, 1, 3, 65535, 32768, 511),
    "NumberOfFrames": ("0", "-1", "2", "3", "1000", "1000000", "2147483647", "99999999999"),
    "SamplesPerPixel": (0, 1, 2, 3, 4, 65535),
    "BitsAllocated": (0, 1, 7, 8, 12, 16, 24, 32, 64, 65535),
    "BitsStored": (0, 1, 7, 8, 12, 16, 32, 64, 65535),
    "HighBit": (0, 7, 11, 15, 31, 65535),
    "PixelRepresentation": (0, 1, 2, 65535),
    "PlanarConfiguration": (0, 1, 2, 65535),
    "PhotometricInterpretation": ("RGB", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422",
                                  "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT", "HSV", "X" * 200),
    "WindowCenter": ("nan", "1e308", "-1e308", "0", "abc"),
    "WindowWidth": ("nan", "0", "-1", "1e308", "1e-308"),
    "RescaleSlope": ("nan", "0", "inf", "-1", "1e308"),
    "RescaleIntercept": ("nan", "inf", "1e308"),
    "ImagePositionPatient": (["nan"] * 3, ["0"] * 3, ["1e308"] * 3, ["0"]),
    "ImageOrientationPatient": (["nan"] * 6, ["0"] * 6, ["1"] * 6, ["1", "0", "0"]),
    "PixelSpacing": (["nan", "nan"], ["0", "0"], ["-1", "-1"], ["1e30", "1e30"], ["100000", "100000"], ["1"]),
    "Modality": ("", "SEG", "US", "CT"),
    "SOPClassUID": ("", "1.2.3", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.1.3.10"),
    "SOPInstanceUID": ("", "1.2.3", "x" * 300),
    "SpecificCharacterSet": ("ISO_IR 999", "\\".join(["ISO 2022 IR 87"] * 50)),
    "RedPaletteColorLookupTableDescriptor": ([0, 0, 16], [65535, 0, 8], [1, 65535, 65535]),
    "SmallestImagePixelValue": (65535,),
    "PixelPaddingValue": (0, 65535),
}  # fmt: skip
SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.100", "1.2.3",
)  # fmt: skip

Mutator = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class HostileFile:
    """A file of the corpus.

    Attributes:
        name: unique in the corpus, with a number first.
        how: what was done, to which seed.
    """

    name: str
    how: str
    data: bytes


def make_corpus(folder: Path, files: int, seed: int, first: int = 0, seeds: list[Seed] | None = None) -> dict[str, str]:
    """Writes files ``first`` to ``first + files - 1`` of a corpus; returns name -> how each was made."""
    seeds = find_seeds() if seeds is None else seeds
    made = {}
    for number in range(first, first + files):
        file = make_file(seed, number, seeds)
        # Each has a folder of its own: DICOM without a series is taken to be of its folder's.
        place = folder / f"{number:06}"
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.data)
        made[file.name] = file.how
    return made


def make_file(seed: int, number: int, seeds: list[Seed]) -> HostileFile:
    """Returns one file of a corpus."""
    rng = random.Random(f"{seed}:{number}")
    if number % BY_HAND_EVERY == 0:
        written = list(cases_by_hand.CASES)
        name = written[(number // BY_HAND_EVERY) % len(written)]
        return HostileFile(f"{number:06}_{name}", "by hand", _with_own_series(cases_by_hand.CASES[name](), number))
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    source = rng.choice([seed for seed in seeds if seed.kind == kind])
    data = _with_own_series(source.data, number) if source.kind == "dicom" else source.data
    how = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutator = rng.choice(MUTATORS[source.kind] if rng.random() < 0.6 else GENERIC)
        data = splice(rng, data, rng.choice(seeds).data) if mutator is splice else mutator(rng, data)
        how.append(mutator.__name__)
    if rng.random() < 0.02:
        data = zip_up(rng, data, source.name)
        return HostileFile(f"{number:06}_{source.name}.zip", f"{source.name}: {', '.join(how)}, zipped", data)
    return HostileFile(f"{number:06}_{source.name}", f"{source.name}: {', '.join(how)}", data)


# --- any file


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if out:
            out[_place(rng, len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite_run(rng: random.Random, data: bytes) -> bytes:
    start, length = _place(rng, len(data)), rng.choice((1, 2, 4, 8, 64, 1024))
    run = rng.choice((b"\0", b"\xff", bytes([rng.randrange(256)]))) * length
    if rng.random() < 0.3:
        run = rng.randbytes(length)
    return data[:start] + run + data[start + length :]


def overwrite_number(rng: random.Random, data: bytes) -> bytes:
    """Puts a number that breaks things where one may stand."""
    size = rng.choice("BHHLLQ")
    value = rng.choice(INTERESTING) % 256 ** struct.calcsize(size)
    number = struct.pack(rng.choice("<>") + size, value)
    start = _place(rng, len(data))
    return data[:start] + number + data[start + len(number) :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: _place(rng, len(data))] if rng.random() < 0.5 else data[: rng.randrange(len(data) + 1)]


def insert_bytes(rng: random.Random, data: bytes) -> bytes:
    start = _place(rng, len(data))
    return data[:start] + rng.randbytes(rng.choice((1, 2, 3, 16, 500, 5000))) + data[start:]


def repeat_piece(rng: random.Random, data: bytes) -> bytes:
    start = _place(rng, len(data))
    piece = data[start : start + rng.choice((1, 8, 100, 4000))]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start:]


def delete_piece(rng: random.Random, data: bytes) -> bytes:
    start = _place(rng, len(data))
    return data[:start] + data[start + rng.choice((1, 2, 8, 100, 4000)) :]


def append_garbage(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", rng.randbytes(1), b"PK\x03\x04")) * rng.choice((1, 100, 10_000))


def splice(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Begins as one file and ends as another."""
    return data[: _place(rng, len(data))] + other[_place(rng, len(other)) :]


def _place(rng: random.Random, length: int) -> int:
    """A place in a file, more often near its begin, where the headers are."""
    if length == 0:
        return 0
    return min(length - 1, rng.randrange(length) if rng.random() < 0.4 else rng.randrange(min(length, 1500)))


GENERIC: list[Mutator] = [
    flip_bits, overwrite_run, overwrite_number, truncate, insert_bytes, repeat_piece, delete_piece, append_garbage,
    splice,
]  # fmt: skip


# --- images


def lie_in_png(rng: random.Random, data: bytes) -> bytes:
    """Changes a chunk and sets its checksum right."""
    chunks = _png_chunks(data)
    if not chunks:
        return flip_bits(rng, data)
    index = 0 if rng.random() < 0.5 else rng.randrange(len(chunks))
    kind, body = chunks[index]
    if kind == b"IHDR" and len(body) >= 13:
        field = rng.choice(((0, ">L"), (4, ">L"), (8, "B"), (9, "B"), (12, "B")))
        body = _put(body, *field, rng.choice(INTERESTING))
        if rng.random() < 0.3:
            body = struct.pack(">LL", 65535, 65535) + body[8:]
    elif rng.random() < 0.5:
        body = overwrite_number(rng, body)
    else:
        body = body[: len(body) // 2] if rng.random() < 0.5 else body * 3
    chunks[index] = (kind, body)
    if rng.random() < 0.3:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    if rng.random() < 0.2:
        bomb = zlib.compress(b"\0" * rng.choice((2**20, 2**24)), 9)
        extra = rng.choice(((b"zTXt", b"k\0\0" + bomb), (b"iCCP", b"p\0\0" + bomb), (b"tEXt", b"k\0" + b"x" * 2**20)))
        chunks.insert(1, extra)
    out = data[:8]
    for kind, body in chunks:
        out += struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
    return out


def lie_in_jpeg(rng: random.Random, data: bytes) -> bytes:
    """Changes the size, the components or a table, or repeats a segment."""
    segments = _jpeg_segments(data)
    if not segments:
        return flip_bits(rng, data)
    frames = [s for s in segments if data[s[0] + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)]
    start, end = rng.choice(frames if frames and rng.random() < 0.6 else segments)
    segment = data[start:end]
    if data[start + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7) and len(segment) > 10:
        field = rng.choice(((4, "B"), (5, ">H"), (7, ">H"), (9, "B"), (11, "B")))
        segment = _put(segment, *field, rng.choice(INTERESTING))
        if rng.random() < 0.3:
            segment = segment[:5] + b"\xff\xff\xff\xff" + segment[9:]
    elif rng.random() < 0.5:
        segment = overwrite_number(rng, segment)
    else:
        segment *= rng.choice((2, 200))
    return data[:start] + segment + data[end:]


def lie_in_tiff(rng: random.Random, data: bytes) -> bytes:
    """Changes an entry of the first directory, or its link to the next one."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8:
        return data
    start = struct.unpack(f"{order}L", data[4:8])[0]
    if start + 2 > len(data):
        return flip_bits(rng, data)
    entries = struct.unpack(f"{order}H", data[start : start + 2])[0]
    if rng.random() < 0.15:
        return _put(data, start + 2 + 12 * entries, f"{order}L", rng.choice((start, 8, 2**32 - 1, len(data))))
    entry = start + 2 + 12 * rng.randrange(max(1, entries))
    offset, kind = rng.choice(((0, "H"), (2, "H"), (4, "L"), (8, "L"), (8, "H")))
    return _put(data, entry + offset, order + kind, rng.choice((*INTERESTING, rng.randrange(2**16))))


def lie_in_bmp(rng: random.Random, data: bytes) -> bytes:
    offset, kind = rng.choice(((10, "<L"), (14, "<L"), (18, "<L"), (22, "<L"), (26, "<H"), (28, "<H"), (30, "<L"),
                               (46, "<L")))  # fmt: skip
    return _put(data, offset, kind, rng.choice(INTERESTING))


# --- NIfTI


def lie_in_nifti(rng: random.Random, data: bytes) -> bytes:
    """Changes fields of the header, also of a compressed file."""
    packed = data[:2] == b"\x1f\x8b"
    try:
        plain = gzip.decompress(data) if packed else data
    except (OSError, EOFError, zlib.error):
        return flip_bits(rng, data)
    order = "<" if plain[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"
    for _ in range(rng.choice((1, 1, 2, 4))):
        offset, fields = rng.choice(NIFTI_FIELDS)
        kind = fields[-1]
        count = int(fields[:-1] or 1) if kind != "s" else 1
        place = offset + struct.calcsize(kind) * rng.randrange(count)
        if kind == "f":
            number = struct.pack(f"{order}f", rng.choice(INTERESTING_FLOATS))
        elif kind == "s":
            number = rng.choice((b"ni1\0", b"n+1\0", b"n+2\0", b"xxxx"))
        else:
            number = struct.pack(order + kind.upper(), rng.choice(INTERESTING) % 256 ** struct.calcsize(kind))
        plain = plain[:place] + number + plain[place + len(number) :]
    return gzip.compress(plain, 1, mtime=0) if packed else plain


def gzip_twice(rng: random.Random, data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def add_gzip_member(rng: random.Random, data: bytes) -> bytes:
    """Follows a compressed file with a bomb of 64 MiB of zeros."""
    return data + gzip.compress(b"\0" * 2**20, 9, mtime=0) * 64


# --- DICOM


def lie_in_dicom(rng: random.Random, data: bytes) -> bytes:
    """Changes attributes and writes the file as its encoding wants it."""
    try:
        dataset = dcmread(BytesIO(data), force=True)
        for _ in range(rng.choice((1, 1, 2, 4))):
            keyword = rng.choice(list(DICOM_LIES))
            if rng.random() < 0.1:
                del dataset[keyword]
            else:
                _set(dataset, keyword, rng.choice(DICOM_LIES[keyword]))
        if rng.random() < 0.1:
            dataset.file_meta.TransferSyntaxUID = rng.choice(SYNTAXES)
        out = BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()
    except Exception:  # noqa: BLE001 - some lies cannot be written, and earlier ones cannot be read
        return overwrite_number(rng, data)


def lie_about_length(rng: random.Random, data: bytes) -> bytes:
    """Changes the length of an element, an item or a fragment."""
    places = [i + 4 for i in _find_all(data, b"\xfe\xff\x00\xe0")]
    for vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        places += [i + 4 for i in _find_all(data, vr + b"\0\0")]
    if not places:
        places = [i + 2 for i in _find_all(data, b"US")] or [0]
    length = rng.choice((0, 1, 3, 2**16, len(data), 2**31, 2**32 - 2, 2**32 - 1))
    return _put(data, rng.choice(places[:200]), "<L", length)


def lie_in_codestream(rng: random.Random, data: bytes) -> bytes:
    """Changes the size in a JPEG, JPEG-LS or JPEG 2000 header inside."""
    places = [
        (i + 5, ">H") for marker in (b"\xff\xc0\0", b"\xff\xc3\0", b"\xff\xf7\0") for i in _find_all(data, marker)
    ]
    places += [(i + 7, ">H") for marker in (b"\xff\xc0\0", b"\xff\xc3\0") for i in _find_all(data, marker)]
    # JPEG 2000 SIZ: size, offset, tile size, tile offset, components.
    for i in _find_all(data, b"\xff\x4f\xff\x51"):
        places += [(i + 8 + 4 * field, ">L") for field in range(8)] + [(i + 40, ">H"), (i + 42, "B")]
    if not places:
        return lie_in_dicom(rng, data)
    for _ in range(rng.choice((1, 1, 2))):
        data = _put(data, *rng.choice(places), rng.choice(INTERESTING))
    return data


def zip_up(rng: random.Random, data: bytes, name: str) -> bytes:
    """Puts a file into an archive, sometimes into archives in archives, sometimes under a name that escapes."""
    for level in range(rng.choice((1, 1, 2, 5))):
        out = BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            inside = rng.choice((name, f"study/{name}", f"../../{name}", f"/tmp/{name}", "a\\..\\" + name))
            entry = zipfile.ZipInfo(inside if level == 0 else f"inner{level}.zip", (2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, data)
        data = out.getvalue()
    return data


def _set(dataset: Dataset, keyword: str, value: object) -> None:
    pydicom_config.settings.writing_validation_mode = pydicom_config.IGNORE
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    setattr(dataset, keyword, value)


def _with_own_series(data: bytes, number: int) -> bytes:
    """Gives a DICOM file a series of its own, so that files made from one do not form a series that fails as one."""
    tag = data.find(b"\x20\x00\x0e\x00UI")
    if tag < 0:
        return data
    length = struct.unpack("<H", data[tag + 6 : tag + 8])[0]
    if length < 8:
        return data
    end = tag + 8 + length
    return data[: end - 7] + f"{number % 10**6 + 10**6:07}".encode() + data[end:]


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = struct.unpack(">L", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += length + 12
    return chunks


def _jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """Begin and end of each segment up to the first scan."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        end = place + 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
        segments.append((place, end))
        if data[place + 1] == 0xDA:
            break
        place = end
    return segments


def _put(data: bytes, place: int, kind: str, value: int) -> bytes:
    number = struct.pack(kind, value % 256 ** struct.calcsize(kind))
    return data[:place] + number + data[place + len(number) :]


def _find_all(data: bytes, what: bytes) -> list[int]:
    places, place = [], data.find(what)
    while place >= 0:
        places.append(place)
        place = data.find(what, place + 1)
    return places


MUTATORS: dict[str, list[Mutator]] = {
    "png": [lie_in_png],
    "jpeg": [lie_in_jpeg],
    "tiff": [lie_in_tiff],
    "bmp": [lie_in_bmp],
    "nifti": [lie_in_nifti, lie_in_nifti, lie_in_nifti, gzip_twice, add_gzip_member],
    "dicom": [lie_in_dicom, lie_in_dicom, lie_about_length, lie_in_codestream],
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write files of the corpus.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, how in make_corpus(options.output, options.files, options.seed, options.first).items():
        print(f"{name}: {how}")


if __name__ == "__main__":
    main()
