"""NIfTI files, without MONAI: opened once, the header compared with the limits and with what follows it.

Files are recognised by content, compressed or not.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, ParamSpec, TypeVar, cast

import nibabel as nib
import numpy as np

from mobileutr_monai.core.limits import MAX_HEADER_BYTES, MAX_VOLUME_VOXELS
from mobileutr_monai.readers.geometry import Geometry
from mobileutr_monai.readers.nifti_geometry import LENGTH_BITS, UNITS, read_geometry

__all__ = [
    "NiftiImage",
    "count_dimensions",
    "is_nifti",
    "load_nifti",
    "named",
    "read_nifti_header",
    "read_volume_geometry",
]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Types of the values, by NIfTI's numbers: integers and floats of up to 8 bytes, and RGB as three bytes.
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_RGB = 128
_COLOURS = 3
_GZIP = b"\x1f\x8b"
_PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
_BYTES = {348: nib.nifti1.Nifti1Header, 540: nib.nifti2.Nifti2Header}
_MAGIC = {348: (344, (b"n+1\0", b"ni1\0")), 540: (4, (b"n+2\0", b"ni2\0"))}
# NIfTI-2 files with such intents are CIFTI: graphs and surfaces.
_CIFTI_INTENTS = range(3000, 3100)
_CHUNK = 2**20
_NIBABEL_ERRORS = (
    ArithmeticError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)

Header = nib.nifti1.Nifti1Header


class NiftiImage(NamedTuple):
    """What a NIfTI file holds.

    Attributes:
        header: as it stands in the file.
        values: scaled as the header says.
        spatial_dims: 2 for an image, 3 for a volume.

    Shape:
        - values: (x, y) or (x, y, z), and a last axis of channels if there are several.
    """

    header: Header
    values: np.ndarray
    spatial_dims: int


class _Axes(NamedTuple):
    """How the axes of a file are to be read: in space, and the number of channels."""

    spatial: tuple[int, ...]
    channels: int


def load_nifti(path: Path) -> NiftiImage:
    """Reads a NIfTI file, whatever its name, after comparing its header with the file and the limits.

    A compressed file is inflated once, piece by piece and no further than its header says.

    Raises:
        ValueError: what is wrong, in one line that names the file.
    """
    with _open(path) as file:
        start = file.read(max(_BYTES))
        header, in_one_file = _parse_header(path, start)
        axes = _check_header(path, header)
        offset, data = _find_values(path, header, in_one_file)
        size = math.prod(_read_shape(path, header)) * int(_element(header).itemsize)
        if data is None:
            content = _read_values(path, file, start, offset, size)
        else:
            with _open(path, data) as other:
                content = _read_values(path, other, b"", offset, size)
    if int(header["datatype"]) == _RGB:
        values = np.frombuffer(content, np.uint8).reshape((_COLOURS, *axes.spatial), order="F")
        values = np.moveaxis(values, 0, -1)
    else:
        shape = (*axes.spatial, axes.channels) if axes.channels > 1 else axes.spatial
        stored = np.frombuffer(content, _element(header))
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False).reshape(shape, order="F")
        slope, intercept = header.get_slope_inter()
        values = nib.volumeutils.apply_read_scaling(stored, slope or 1.0, intercept or 0.0)
    return NiftiImage(header, values, len(axes.spatial))


def read_nifti_header(path: Path) -> Header:
    """Returns the header of a NIfTI file, which may be compressed, as it stands there.

    Raises:
        ValueError: it is no NIfTI, or its header is broken.
    """
    with _open(path) as file:
        header, _ = _parse_header(path, file.read(max(_BYTES)))
    _check_header(path, header)
    return header


def read_volume_geometry(path: Path) -> Geometry:
    """Returns the geometry of a NIfTI volume.

    Raises:
        ValueError: it is no NIfTI, or has none; see ``read_geometry``.
    """
    header = read_nifti_header(path)
    return named(path, read_geometry, header, _read_shape(path, header))


def count_dimensions(path: Path) -> int:
    """Returns 2 for a NIfTI image of two dimensions, otherwise 3, also if its header cannot be read."""
    try:
        with _open(path) as file:
            header, _ = _parse_header(path, file.read(max(_BYTES)))
        return 2 if len(_read_axes(path, header).spatial) == 2 else 3
    except (OSError, ValueError):  # said when the file is read
        return 3


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI by its content."""
    try:
        with _open(path) as file:
            start = file.read(max(_BYTES))
    except (OSError, ValueError):
        return False
    return any(start[place : place + 4] in magic for place, magic in _MAGIC.values())


@contextmanager
def _open(path: Path, data: Path | None = None) -> Iterator[IO[bytes]]:
    """Opens a file, inflating it if its content is compressed; errors name ``path``."""
    try:
        with (data or path).open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if not packed:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as inflated:
                yield cast(IO[bytes], inflated)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        # The checksums themselves say nothing to anybody.
        why = "its checksum is wrong" if "CRC" in str(error) else _first_line(error)
        raise ValueError(f"{path}: it cannot be inflated: {why}") from None


def _read_values(path: Path, file: IO[bytes], start: bytes, offset: int, size: int) -> bytearray:
    """Returns the bytes of the values, after what was read of the file already.

    Raises:
        ValueError: there are more or fewer than the header declares.
    """
    content = bytearray(start)
    while len(content) <= offset + size and (piece := file.read(min(_CHUNK, offset + size + 1 - len(content)))):
        content += piece
    if len(content) < offset + size:
        raise ValueError(f"{path}: {max(0, len(content) - offset)} bytes of values, its header says {size}")
    if len(content) > offset + size:
        raise ValueError(f"{path}: more values than the {size} bytes that its header says")
    del content[:offset]
    return content


def named(
    path: Path, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Returns what a function returns; its ``ValueError`` is given the file's name."""
    try:
        return function(*arguments, **options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse_header(path: Path, start: bytes) -> tuple[Header, bool]:
    """Returns the header at the start of a file, and whether the values are in the same file."""
    if not start:
        raise ValueError(f"{path}: the file is empty")
    found = [size for size, (place, magic) in _MAGIC.items() if start[place : place + 4] in magic]
    if not found:
        raise ValueError(f"{path}: the file is cut off, or not the NIfTI that its name says")
    size = found[0]
    order = next((order for order in "<>" if struct.unpack(f"{order}i", start[:4])[0] == size), None)
    if order is None or len(start) < size:
        raise ValueError(f"{path}: the file is cut off, or its header does not say the {size} bytes that it has")
    place, (single, _) = _MAGIC[size]
    in_one_file = start[place : place + 4] == single
    try:
        # Unchecked: nibabel's own check fixes what it can and says so where it should not.
        header = _BYTES[size](start[:size], order, check=False)
        kind, bits = int(header["datatype"]), int(header["bitpix"])
    except _NIBABEL_ERRORS as error:
        raise ValueError(f"{path}: its header cannot be read: {_first_line(error)}") from None
    if size == 540 and int(header["intent_code"]) in _CIFTI_INTENTS:
        raise ValueError(f"{path}: it is CIFTI, no image")
    if not in_one_file and not path.name.lower().endswith(_PAIR_SUFFIXES):
        raise ValueError(f"{path}: its header says that its values are in another file")
    if kind not in (*_TYPES, _RGB):
        raise ValueError(f"{path}: datatype {kind}; integers and floats of up to 8 bytes and RGB are supported")
    width = 8 * int(_element(header).itemsize)
    if bits not in (0, width):
        raise ValueError(f"{path}: bitpix is {bits}, its datatype has {width} bits")
    return header, in_one_file


def _element(header: Header) -> np.dtype:
    """The type of one value, in the file's byte order."""
    kind = int(header["datatype"])
    return np.dtype(("u1", _COLOURS) if kind == _RGB else _TYPES[kind]).newbyteorder(header.endianness)


def _read_shape(path: Path, header: Header) -> tuple[int, ...]:
    rank = int(header["dim"][0])
    sides = tuple(int(side) for side in header["dim"][1 : 1 + max(0, rank)])
    if not 1 <= rank <= 7 or min(sides) < 1:
        raise ValueError(f"{path}: dim, the number of axes and their lengths, is {header['dim'].tolist()}")
    return sides


def _read_axes(path: Path, header: Header) -> _Axes:
    """Tells space from channels; axes of one value behind the others are none.

    The fourth axis is time and the fifth that of vectors: a colour image of ITK is (x, y, 1, 1, 3).

    Raises:
        ValueError: it has both, or more axes.
    """
    shape = _read_shape(path, header)
    if len(shape) < 2:
        raise ValueError(f"{path}: {shape[0]} values along one axis, which is no image")
    space, rest = _trim(shape[:3]), [side for side in shape[3:] if side > 1]
    if len(rest) > 1 or (rest and int(header["datatype"]) == _RGB):
        raise ValueError(f"{path}: {_times(shape)} values; give one file for each volume")
    if int(header["datatype"]) == _RGB:
        return _Axes(space, _COLOURS)
    is_vector = len(shape) > 4 and shape[4] > 1
    # Time makes a series of slices of a volume, colours do not.
    return _Axes(space if is_vector or not rest else shape[:3], rest[0] if rest else 1)


def _check_header(path: Path, header: Header) -> _Axes:
    shape = _read_shape(path, header)
    if math.prod(shape) > MAX_VOLUME_VOXELS:
        raise ValueError(f"{path}: {_times(shape)} voxels are declared, limit {MAX_VOLUME_VOXELS}")
    if int(header["xyzt_units"]) & LENGTH_BITS not in UNITS:
        raise ValueError(f"{path}: xyzt_units is {int(header['xyzt_units'])}, which is no unit of length")
    slope, offset = float(header["scl_slope"]), float(header["scl_inter"])
    # NaN, which real files have, and 0 stand for no scaling.
    if math.isinf(slope) or (not math.isnan(slope) and slope != 0 and not math.isfinite(offset)):
        raise ValueError(f"{path}: scl_slope and scl_inter, which scale the values, are {slope:g} and {offset:g}")
    return _read_axes(path, header)


def _find_values(path: Path, header: Header, in_one_file: bool) -> tuple[int, Path | None]:
    """Returns where the values begin, and in which file if it is another one."""
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or not 0 <= offset <= MAX_HEADER_BYTES or offset % 1:
        raise ValueError(f"{path}: vox_offset, where the values begin, is {offset:g}")
    if in_one_file:
        least = header.single_vox_offset
        if 0 < offset < least:
            raise ValueError(f"{path}: vox_offset is {offset:g}, which is within the header of {least} bytes")
        return int(max(offset, least)), None
    data = Path(str(nib.nifti1.Nifti1Pair.filespec_to_file_map(path)["image"].filename))
    if not data.is_file():
        raise ValueError(f"{path}: its values are in {data.name}, which is not there")
    return int(offset), data


def _trim(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns a shape without the axes of one pixel that follow the first two."""
    sides = tuple(shape)
    while len(sides) > 2 and sides[-1] == 1:
        sides = sides[:-1]
    return sides


def _times(sides: Sequence[object]) -> str:
    return " x ".join(map(str, sides))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
