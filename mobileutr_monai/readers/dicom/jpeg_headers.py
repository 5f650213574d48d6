"""What an encoded frame says of itself, whatever the DICOM header says: its size, which is what its decoder allocates,
and how it is encoded; and how many there are.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSTransferSyntaxes,
)

__all__ = [
    "FrameSize",
    "count_encoded_frames",
    "find_stream_syntax",
    "read_first_fragment",
    "read_frame_bits",
    "read_frame_size",
]

_JPEG_START = b"\xff\xd8"
_CODESTREAM_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  "
# Markers that begin a frame's header: all SOF, also that of JPEG-LS; not tables, which share their range.
_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN, _END = 0xDA, 0xD9
# Encodings by the marker that begins a frame's header, and which of them are decoded alike.
_BY_MARKER = {0xC0: JPEGBaseline8Bit, 0xC1: JPEGExtended12Bit, 0xC3: JPEGLossless, 0xF7: JPEGLSLossless}
_ALIKE = (
    frozenset((JPEGBaseline8Bit, JPEGExtended12Bit)),
    frozenset((JPEGLossless, JPEGLosslessSV1)),
    frozenset(JPEGLSTransferSyntaxes),
    frozenset(JPEG2000TransferSyntaxes),
)
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED_LENGTH = 0xFFFFFFFF
# Bytes of a frame in which its header is looked for; application data may come first.
_PEEKED = 2**16


class FrameSize(NamedTuple):
    """Of an encoded frame, in pixels; components as they are decoded."""

    rows: int
    columns: int
    components: int


def find_stream_syntax(file: BinaryIO, place: int, declared: str) -> UID | None:
    """Returns how the first frame is encoded, None if that is what is declared, or not known.

    Args:
        place: where the value of the encapsulated pixel data begins.
        declared: UID of the transfer syntax.
    """
    found = _identify(read_first_fragment(file, place))
    is_same = any({found, declared} <= alike for alike in _ALIKE)
    return None if found is None or found == declared or is_same else found


def read_first_fragment(file: BinaryIO, place: int) -> bytes:
    """Returns the beginning of the first frame of encapsulated pixel data; empty if there is none.

    Args:
        place: where the value of the pixel data begins.
    """
    file.seek(place)
    is_table = True
    while (head := file.read(8))[:4] == _ITEM and len(head) == 8:
        length = struct.unpack("<L", head[4:])[0]
        if not is_table and length:
            return file.read(min(length, _PEEKED))
        file.seek(length, 1)
        is_table = False
    return b""


def read_frame_bits(frame: bytes) -> int | None:
    """Returns how many bits the samples of JPEG, JPEG-LS or JPEG 2000 have; None of what is none of these."""
    try:
        if frame.startswith(_JPEG_START):
            marker, place = _find_frame_header(frame)
            return frame[place + 2] if marker else None
        if frame.startswith(_JP2_START):
            frame = _find_codestream(frame)
        return (frame[42] & 0x7F) + 1 if frame.startswith(_CODESTREAM_START) else None
    except (struct.error, IndexError):
        return None


def count_encoded_frames(file: BinaryIO, place: int, one_fragment_each: bool) -> int:
    """Returns how many frames are encapsulated: offsets in their table, or fragments that begin a stream.

    Args:
        place: where the value of the encapsulated pixel data begins.
        one_fragment_each: whether each fragment is a frame, as in RLE.
    """
    file.seek(place)
    counts: list[int] = []
    while (head := file.read(8))[:4] == _ITEM and len(head) == 8:
        length = struct.unpack("<L", head[4:])[0]
        if length == _UNDEFINED_LENGTH:
            break
        if not counts:
            counts = [length // 4, 0]
            file.seek(length, 1)
            continue
        start = file.read(min(length, 4))
        is_frame = one_fragment_each or (start.startswith(_JPEG_START) and start[2:3] == b"\xff")
        counts[1] += is_frame or start == _CODESTREAM_START
        file.seek(length - len(start), 1)
    return max(counts, default=0)


def _identify(frame: bytes) -> UID | None:
    try:
        if frame.startswith(_JPEG_START):
            return _BY_MARKER.get(_find_frame_header(frame)[0])
    except (struct.error, IndexError):
        return None
    return JPEG2000Lossless if frame.startswith((_CODESTREAM_START, _JP2_START)) else None


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
    marker, place = _find_frame_header(frame)
    if not marker:
        return None
    rows, columns, components = struct.unpack_from(">HHB", frame, place + 3)
    return FrameSize(rows, columns, components)


def _find_frame_header(frame: bytes) -> tuple[int, int]:
    """Returns the marker of a JPEG's frame header and where its content begins, 0 if there is none before a scan."""
    place = 2
    while True:
        if frame[place] != 0xFF:
            return 0, 0
        while frame[place] == 0xFF:
            place += 1
        marker = frame[place]
        place += 1
        if marker in _FRAME_MARKERS:
            return marker, place
        if marker in (_SCAN, _END):
            return 0, 0
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
