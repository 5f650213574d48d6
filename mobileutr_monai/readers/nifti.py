"""NIfTI: headers held against the file and the limits, 2D images for the transforms of pictures, and volumes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, NibabelReader
from monai.utils import MetaKeys, ensure_tuple

from mobileutr_monai.core.limits import MAX_HEADER_BYTES, MAX_VOLUME_MM3, MAX_VOLUME_VOXELS

__all__ = [
    "NiftiImageReader",
    "NiftiVolumeReader",
    "check_geometry",
    "check_nifti",
    "count_dimensions",
    "is_nifti",
    "read_unit",
]

# Types of the values, by NIfTI's numbers: integers and floats of up to 8 bytes, no complex numbers and no colours.
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
# Units of length, by NIfTI's numbers; those of time are in the bits above.
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_LENGTH_BITS = 7
_GZIP = b"\x1f\x8b"
_BYTES = {348: nib.nifti1.Nifti1Header, 540: nib.nifti2.Nifti2Header}
_MAGIC = {348: (344, (b"n+1\0", b"ni1\0")), 540: (4, (b"n+2\0", b"ni2\0"))}
# NIfTI-2 files with such intents are CIFTI: graphs and surfaces.
_CIFTI_INTENTS = range(3000, 3100)
_CHUNK = 2**20
# Directions whose volume is a smaller part of the product of their lengths are not independent.
_FLAT = 1e-6
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


class NiftiImageReader(ImageReader):
    """Reads a 2D NIfTI image with axes and meta as ``PILReader`` gives those of pictures; for ``LoadImaged``.

    MONAI's ``NibabelReader`` gives it one channel and volume's meta. Colours are vectors of three along the fifth axis,
    as ITK writes them; MONAI Label keeps DICOM stills so. Values are not scaled. ``read`` fails only for what is not
    NIfTI, so that ``LoadImage`` goes on to other readers with that alone.

    Args:
        mode: ``"RGB"``, the values three times, or ``"L"``.

    Shape:
        (columns, rows, 3) or, for ``"L"``, (columns, rows), float32.
    """

    def __init__(self, mode: str = "RGB") -> None:
        super().__init__()
        self.mode = mode

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether it is NIfTI."""
        return all(is_nifti(Path(path)) for path in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[Path]:
        """Takes one file; it is opened by ``get_data``.

        Raises:
            ValueError: it is no NIfTI.
        """
        paths = [Path(path) for path in ensure_tuple(data)]
        if not is_nifti(paths[0]):
            raise ValueError(f"{paths[0]}: no NIfTI")
        return paths

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the array and its meta data.

        Raises:
            ValueError: there is more than one file, it has more dimensions, or ``check_nifti`` says what is wrong.
        """
        image = _load(img, "image")
        colours = 3 if image.shape[2:] == (1, 1, 3) else 1
        sides = image.shape[:2] if colours == 3 else _sides(image.shape)
        if len(sides) != 2:
            raise ValueError(f"{img[0]}: shape {image.shape} is not that of a 2D image")
        values = np.asarray(image.dataobj, dtype=np.float32).reshape(*sides, colours)
        meta = {
            "format": "NIfTI",
            MetaKeys.SPATIAL_SHAPE: np.asarray(sides),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if self.mode == "RGB" else float("nan"),
        }
        if self.mode == "RGB":
            return (np.repeat(values, 3, axis=2) if colours == 1 else values), meta
        return (values[..., 0] if colours == 1 else _to_grey(values)), meta


class NiftiVolumeReader(NibabelReader):
    """MONAI's reader of NIfTI, for files that ``check_nifti`` and ``check_geometry`` find nothing wrong with.

    ``read`` does not fail, so that ``LoadImage`` does not go on to guess with MONAI's other readers.

    Shape:
        the file's own.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether it is NIfTI."""
        return all(is_nifti(Path(path)) for path in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[Path]:
        """Takes a file, or one a channel; they are opened by ``get_data``."""
        return [Path(path) for path in ensure_tuple(data)]

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the array and its meta data; several files are stacked as MONAI does it.

        Raises:
            ValueError: something is wrong with a file.
        """
        for path in img:
            image = _load([path], "volume")
            check_geometry(path, image.shape, image.affine)
        data, meta = super().get_data(super().read(img if len(img) > 1 else img[0], mmap=False))
        return data, meta


def check_nifti(path: Path) -> Header:
    """Returns the header of a NIfTI file after holding it against the file and the limits.

    A compressed file is inflated piece by piece, as far as its header goes, and nothing of it is kept.

    Raises:
        ValueError: what is wrong, in one line.
    """
    header, in_one_file = _read_header(path)
    shape = _read_shape(path, header)
    values = math.prod(shape)
    if values > MAX_VOLUME_VOXELS:
        raise ValueError(f"{path}: {_times(shape)} voxels are declared, the most is {MAX_VOLUME_VOXELS}")
    if int(header["xyzt_units"]) & _LENGTH_BITS not in _UNITS:
        raise ValueError(f"{path}: xyzt_units is {int(header['xyzt_units'])}, which is no unit of length")
    _check_scale(path, header)
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or not 0 <= offset <= MAX_HEADER_BYTES or offset % 1:
        raise ValueError(f"{path}: vox_offset, where the values begin, is {offset:g}")
    data = path
    if in_one_file:
        least = header.single_vox_offset
        if 0 < offset < least:
            raise ValueError(f"{path}: vox_offset is {offset:g}, which is within the header of {least} bytes")
        offset = max(offset, least)
    else:
        data = Path(str(nib.nifti1.Nifti1Pair.filespec_to_file_map(path)["image"].filename))
        if not data.is_file():
            raise ValueError(f"{path}: its values are in {data.name}, which is not there")
    _check_size(path, data, int(offset), values * np.dtype(_TYPES[int(header["datatype"])]).itemsize)
    return header


def check_geometry(path: Path, shape: Sequence[int], affine: np.ndarray) -> None:
    """Says whether a volume has a place and a size in space.

    Args:
        affine: to mm.

    Raises:
        ValueError: its affine has NaN, infinite or dependent directions, or it is larger than ``MAX_VOLUME_MM3``.
    """
    if not np.isfinite(affine).all():
        raise ValueError(f"{path}: its affine has values that are no numbers (NaN or infinite)")
    directions = np.asarray(affine, np.float64)[:3, :3]
    lengths = np.linalg.norm(directions, axis=0)
    if not lengths.all() or abs(np.linalg.det(directions / lengths)) < _FLAT:
        raise ValueError(f"{path}: its affine is singular: a voxel has no volume")
    sides = [size * length for size, length in zip((*shape, 1, 1)[:3], lengths, strict=True)]
    if math.prod(sides) > MAX_VOLUME_MM3:
        raise ValueError(f"{path}: it is {_times([f'{side:.4g}' for side in sides])} mm, more than any patient")


def read_unit(header: Header) -> str:
    """Returns the unit of a volume's geometry: ``mm``, ``micron``, ``meter`` or ``unknown``.

    nibabel's ``get_xyzt_units`` fails where the unit of time, which is of no matter here, is none of NIfTI's.
    """
    return _UNITS.get(int(header["xyzt_units"]) & _LENGTH_BITS, "unknown")


def count_dimensions(path: Path) -> int:
    """Returns 2 for a NIfTI image of two dimensions, otherwise 3, also if its header cannot be read."""
    try:
        header, _ = _read_header(path)
        return 2 if len(_sides(_read_shape(path, header))) == 2 else 3
    except (OSError, ValueError):  # said when the file is read
        return 3


def _one(paths: list[Path], what: str) -> Path:
    if len(paths) != 1:
        raise ValueError(f"{len(paths)} files for one {what}")
    return paths[0]


def _load(paths: list[Path], what: str) -> nib.nifti1.Nifti1Image:
    path = _one(paths, what)
    check_nifti(path)
    try:
        return cast(nib.nifti1.Nifti1Image, nib.load(path, mmap=False))
    except _NIBABEL_ERRORS as error:
        raise ValueError(f"{path}: its header cannot be read: {_first_line(error)}") from None


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI by its content."""
    try:
        start = _read_start(path)
    except (OSError, ValueError):
        return False
    return any(start[place : place + 4] in magic for place, magic in _MAGIC.values())


def _read_start(path: Path) -> bytes:
    """Returns as much as the longest header has, inflated if it is compressed."""
    with path.open("rb") as file:
        start = file.read(max(_BYTES))
    if not start.startswith(_GZIP):
        return start
    try:
        with gzip.open(path) as inflated:
            return inflated.read(max(_BYTES))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: it cannot be inflated: {_first_line(error)}") from None


def _read_header(path: Path) -> tuple[Header, bool]:
    """Returns the header, checked for itself alone, and whether the values are in the same file."""
    start = _read_start(path)
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
        # Unchecked: nibabel's own check mends what it can and says so where it should not.
        header = _BYTES[size](start[:size], order, check=False)
        kind, bits = int(header["datatype"]), int(header["bitpix"])
    except _NIBABEL_ERRORS as error:
        raise ValueError(f"{path}: its header cannot be read: {_first_line(error)}") from None
    if size == 540 and int(header["intent_code"]) in _CIFTI_INTENTS:
        raise ValueError(f"{path}: it is CIFTI, no image")
    if not in_one_file and path.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: its header says that its values are in another file")
    if kind not in _TYPES:
        raise ValueError(f"{path}: datatype {kind}, taken are integers and floats of up to 8 bytes")
    width = 8 * np.dtype(_TYPES[kind]).itemsize
    if bits not in (0, width):
        raise ValueError(f"{path}: bitpix is {bits}, its datatype has {width} bits")
    return header, in_one_file


def _read_shape(path: Path, header: Header) -> tuple[int, ...]:
    rank = int(header["dim"][0])
    sides = tuple(int(side) for side in header["dim"][1 : 1 + max(0, rank)])
    if not 1 <= rank <= 7 or min(sides) < 1:
        raise ValueError(f"{path}: dim, the number of axes and their lengths, is {header['dim'].tolist()}")
    return sides


def _check_scale(path: Path, header: Header) -> None:
    slope, offset = float(header["scl_slope"]), float(header["scl_inter"])
    # NaN, which real files have, and 0 stand for no scaling.
    if math.isinf(slope) or (not math.isnan(slope) and slope != 0 and not math.isfinite(offset)):
        raise ValueError(f"{path}: scl_slope and scl_inter, which scale the values, are {slope:g} and {offset:g}")


def _check_size(path: Path, data: Path, offset: int, size: int) -> None:
    """Holds the bytes that a header declares against those that are there."""
    with data.open("rb") as file:
        packed = file.read(2) == _GZIP
    held = _measure_inflated(path, data, offset + size) if packed else data.stat().st_size
    if held < offset + size:
        raise ValueError(f"{path}: {max(0, held - offset)} bytes of values, its header says {size}")
    if held > offset + size:
        raise ValueError(f"{path}: more values than the {size} bytes that its header says")


def _measure_inflated(path: Path, data: Path, most: int) -> int:
    """Returns how many bytes a compressed file has, at least if it has more than ``most``."""
    total = 0
    try:
        with gzip.open(data) as file:
            while total <= most and (piece := file.read(_CHUNK)):
                total += len(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: it cannot be inflated: {_first_line(error)}") from None
    return total


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape without the axes of one pixel that follow the first two."""
    sides = tuple(shape)
    while len(sides) > 2 and sides[-1] == 1:
        sides = sides[:-1]
    return sides


def _to_grey(colours: np.ndarray) -> np.ndarray:
    """Returns what Pillow's conversion from RGB to L gives, ITU-R 601-2.

    Shape:
        - colours: (columns, rows, 3).
        - output: (columns, rows), float32.
    """
    weighted = colours @ np.asarray([19595, 38470, 7471], np.float64)
    return np.floor((weighted + 2**15) / 2**16).astype(np.float32)


def _times(sides: Sequence[object]) -> str:
    return " x ".join(map(str, sides))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
