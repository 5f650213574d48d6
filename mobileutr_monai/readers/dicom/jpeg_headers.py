"""What size an encoded frame says of itself, which is what its decoder allocates, whatever the DICOM header says."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["FrameSize", "read_frame_size"]

_JPEG_START = b"\xff\xd8"
_CODESTREAM_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  "
# Markers that begin a frame's header: all SOF, also that of JPEG-LS; not tables, which share their range.
_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN, _END = 0xDA, 0xD9


class FrameSize(NamedTuple):
    """Of an encoded frame, in pixels; components as they are decoded."""

    rows: int
    columns: int
    components: int


def read_frame_size(frame: bytes) -> FrameSize | None:
    """Returns the size in the header of JPEG, JPEG-LS or JPEG 2000; None of what is none of these, or has none."""
    try:
        if frame.startswith(_JPEG_START):
            return _read_jpeg(frame)
        if frame.startswith(_JP2_START):
            frame = _find_codestream(frame)
        return _read_jpeg_2000(frame) if frame.startswith(_CODESTREAM_START) else None
    except (struct.error, IndexError):  # it ends too early
        return None


def _read_jpeg(frame: bytes) -> FrameSize | None:
    place = 2
    while True:
        if frame[place] != 0xFF:
            return None
        while frame[place] == 0xFF:
            place += 1
        marker = frame[place]
        place += 1
        if marker in _FRAME_MARKERS:
            rows, columns, components = struct.unpack_from(">HHB", frame, place + 3)
            return FrameSize(rows, columns, components)
        if marker in (_SCAN, _END):
            return None
        if marker not in _MARKERS_WITHOUT_LENGTH:
            place += max(2, struct.unpack_from(">H", frame, place)[0])


def _read_jpeg_2000(codestream: bytes) -> FrameSize:
    right, bottom, left, top = struct.unpack_from(">4L", codestream, 8)
    return FrameSize(bottom - top, right - left, struct.unpack_from(">H", codestream, 40)[0])


def _find_codestream(file: bytes) -> bytes:
    """Returns the codestream of a JP2 file, empty if it has none."""
    place = 0
    while place + 8 <= len(file):
        length, kind = struct.unpack_from(">L4s", file, place)
        header = 8
        if length == 1:
            length, header = struct.unpack_from(">Q", file, place + 8)[0], 16
        if kind == b"jp2c":
            return file[place + header :]
        if length < header:
            break
        place += length
    return b""
