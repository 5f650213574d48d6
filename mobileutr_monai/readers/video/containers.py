"""How long a video file says that it is: whether it was cut off or has a gap, which decoders may not notice.

MP4 and MOV: ISO/IEC 14496-12, boxes. AVI: RIFF chunks. Matroska and WebM: RFC 8794 (EBML) and RFC 9559.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

__all__ = ["check_length"]

_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# Of seeking, info, tracks, cues, attachments, chapters and tags; CRC-32 and void.
_ANYWHERE = frozenset((0xBF, 0xEC))
_SEGMENT_PARTS = _ANYWHERE | {
    0x114D9B74,
    0x1549A966,
    0x1654AE6B,
    0x1C53BB6B,
    0x1941A469,
    0x1043A770,
    0x1254C367,
    _CLUSTER,
}
# Timestamp, silent tracks, position, previous size, blocks.
_CLUSTER_PARTS = _ANYWHERE | {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_UNKNOWN = -1


def check_length(path: Path) -> None:
    """Checks that a file is as long as its parts declare.

    Raises:
        ValueError: it is shorter or empty, or its parts do not follow one another.
    """
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path}: the file is empty")
    with path.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        try:
            declared = _measure(start, file, size)
        except (struct.error, IndexError):  # what cannot be made out is left to the decoder
            declared = size
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if declared > size:
        raise ValueError(f"{path}: the file is cut off: {size} bytes, {declared} declared; copy or export it again")


def _measure(start: bytes, file: IO[bytes], size: int) -> int:
    """Returns the bytes that are declared, ``size`` where that is unknown."""
    if start[:4] == b"RIFF":
        return _measure_riff(file, size)
    if start[4:8] in _FIRST_BOXES:
        return _measure_boxes(file, size)
    return _measure_matroska(file, size) if int.from_bytes(start[:4], "big") == _EBML else size


def _measure_boxes(file: IO[bytes], size: int) -> int:
    place = 0
    while place < size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        if length == 0 or not kind.isascii():  # to the end of the file; or no box
            return size
        place += max(8, length)
    return place


def _measure_riff(file: IO[bytes], size: int) -> int:
    """A file beyond 1 GB has several of them."""
    place = 0
    while place < size:
        file.seek(place)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length == 0:  # something else at the end, or never completed
            return size
        place += 8 + length
    return place


def _measure_matroska(file: IO[bytes], size: int) -> int:
    """Walks through the segment's parts, too: a demuxer leaves out frames where these do not follow one another.

    Raises:
        ValueError: they do not.
    """
    place, segment = 0, (0, 0)
    for _ in range(2):  # the header, then the segment with everything else
        identifier, inside, place = _read_element(file, place)
        if place == _UNKNOWN:  # as in a stream
            return size
        if identifier == _SEGMENT:
            segment = inside, place
    if place <= size:
        _walk(file, *segment)
    return place


def _walk(file: IO[bytes], place: int, end: int, allowed: frozenset[int] = _SEGMENT_PARTS) -> None:
    while place < end:
        start = place
        identifier, inside, place = _read_element(file, place)
        if place == _UNKNOWN:
            return
        if identifier not in allowed or place > end:
            raise ValueError(f"the file is damaged at byte {start}; copy or export it again")
        if identifier == _CLUSTER:
            _walk(file, inside, place, _CLUSTER_PARTS)


def _read_element(file: IO[bytes], place: int) -> tuple[int, int, int]:
    """Returns an element's identifier, and where its content begins and ends; ``_UNKNOWN`` if it does not say."""
    file.seek(place)
    head = file.read(12)
    width = _count_bytes(head[0])
    bits = _count_bytes(head[width])
    inside = place + width + bits
    length = int.from_bytes(head[width : width + bits], "big") & ((1 << 7 * bits) - 1)
    end = _UNKNOWN if length == (1 << 7 * bits) - 1 else inside + length
    return int.from_bytes(head[:width], "big"), inside, end


def _count_bytes(first: int) -> int:
    """Returns the length of a number of EBML, which the zeros say that its first byte begins with."""
    return 9 - first.bit_length()
