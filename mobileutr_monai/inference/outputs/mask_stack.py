"""The label maps of a cine's or video's frames as an 8-bit NIfTI stack, written and read frame by frame."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.text import SHORT_NOTICE

__all__ = ["iter_frame_masks", "write_mask_stack"]

_MAX_SIDE = 2**15 - 1
# NIfTI-1 header and the four bytes that say that no extension follows.
_OFFSET = 352
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"


def write_mask_stack(
    source: Path, labels: Iterable[np.ndarray], output: Path, shape: tuple[int, int, int] | None = None
) -> None:
    """Writes label maps as a NIfTI stack atomically.

    It has the axes (column, row, frame) and no geometry. It is compressed if the name ends with ``.gz``.

    Args:
        source: whose frames they are of, for errors.
        labels: one per frame.
        shape: rows, columns and frames; by default those of the label maps, counted as they come.

    Shape:
        - labels: (rows, columns) each.

    Raises:
        ValueError: the label maps differ in size or are not of 8-bit indices, or are more than NIfTI can hold.
    """
    if shape is not None:
        _check_sides(source, shape)

    def write(file: IO[bytes]) -> None:
        rows, columns, frames = shape or (0, 0, 0)
        start = _make_header(rows, columns, frames)
        stream = _GzipWriter(file, start) if output.name.endswith(".gz") else _PlainWriter(file, start)
        count = 0
        for label in labels:
            if not rows:
                rows, columns = label.shape
                _check_sides(source, (rows, columns, 1))
            mask = np.asarray(label).astype(np.uint8)
            if mask.shape != (rows, columns) or not np.array_equal(mask, label):
                raise ValueError(f"{source}: label maps must be of 8-bit indices, one for each pixel of a frame")
            # The first axis is the fastest in NIfTI: a frame's columns.
            stream.write(mask.tobytes())
            count += 1
        _check_sides(source, (rows, columns, count))
        stream.close(_make_header(rows, columns, count))

    write_atomic(output, write)


def iter_frame_masks(path: Path) -> Iterator[np.ndarray]:
    """Yields what ``write_mask_stack`` wrote, reading one frame at a time.

    Shape:
        each: (rows, columns), uint8.
    """
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        header = nib.nifti1.Nifti1Header.from_fileobj(file)
        columns, rows, frames = header.get_data_shape()
        file.seek(_OFFSET)
        for _ in range(frames):
            yield np.frombuffer(file.read(rows * columns), np.uint8).reshape(rows, columns)


def _check_sides(source: Path, shape: tuple[int, int, int]) -> None:
    if max(shape) > _MAX_SIDE:
        rows, columns, frames = shape
        sides = (columns, rows, frames)
        raise ValueError(f"{source}: {sides} is more than the {_MAX_SIDE} a side that NIfTI can hold")


def _make_header(rows: int, columns: int, frames: int) -> bytes:
    header = nib.nifti1.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((columns, rows, frames))
    header["vox_offset"] = _OFFSET
    header["descrip"] = SHORT_NOTICE.encode()
    block: bytes = header.binaryblock.ljust(_OFFSET, b"\0")
    return block


class _PlainWriter:
    """A file whose start is replaced at the end by one of the same length."""

    def __init__(self, file: IO[bytes], start: bytes) -> None:
        self._file = file
        file.write(start)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def close(self, start: bytes) -> None:
        self._file.seek(0)
        self._file.write(start)


class _GzipWriter:
    """The same compressed, RFC 1952: the start is stored, so that it can be replaced.

    It is one member: some readers of NIfTI, those of browsers among them, stop at the end of the first.
    """

    def __init__(self, file: IO[bytes], start: bytes) -> None:
        self._file, self._start = file, start
        self._crc, self._size = zlib.crc32(start), 0
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._file.write(_GZIP_HEADER + _store(start))

    def write(self, data: bytes) -> None:
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        self._file.write(self._deflate.compress(data))

    def close(self, start: bytes) -> None:
        if start != self._start:
            # The checksum is linear: of bytes of one length, that of the sum is the sum of theirs.
            self._crc ^= self._checksum_before_zeros(self._start) ^ self._checksum_before_zeros(start)
        size = (len(start) + self._size) % 2**32
        self._file.write(self._deflate.flush() + struct.pack("<II", self._crc, size))
        self._file.seek(len(_GZIP_HEADER))
        self._file.write(_store(start))

    def _checksum_before_zeros(self, start: bytes) -> int:
        crc, left, zeros = zlib.crc32(start), self._size, bytes(min(self._size, 2**20))
        while left:
            crc = zlib.crc32(zeros[:left], crc)
            left -= min(left, len(zeros))
        return crc


def _store(data: bytes) -> bytes:
    """Returns data as a block of deflate that does not compress."""
    deflate = zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)
