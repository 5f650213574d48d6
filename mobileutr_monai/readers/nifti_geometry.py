"""The geometry of NIfTI files, from the raw fields of their headers.

nibabel replaces voxel sizes of 0 by 1, ignores the unit of length and takes the sform without comparing it with the
voxel sizes. Here contradictions are errors that give both values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import nibabel as nib
import numpy as np

from mobileutr_monai.readers.geometry import Geometry, check_affine

__all__ = ["make_label_header", "read_geometry", "read_pixel_mm", "read_unit", "to_nifti_header"]

Header = nib.nifti1.Nifti1Header

# Units of length, by NIfTI's numbers, and their mm; those of time are in the bits above. Without a unit it is mm.
UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_MM = {"unknown": 1.0, "meter": 1e3, "mm": 1.0, "micron": 1e-3}
LENGTH_BITS = 7

SAME_SIZE = 0.01
"""Largest difference of the voxel sizes of the sform and of pixdim, as a fraction."""

SAME_PLACE = 0.5
"""Voxels by which qform and sform may place a corner of the volume differently without a note."""

_PLACE_FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "srow_x", "srow_y", "srow_z")
_OFFSET_FIELDS = ("qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units")


def read_geometry(header: Header, shape: Sequence[int]) -> Geometry:
    """Returns the geometry of a volume.

    The sform is taken where there is one, then the qform, as nibabel and MONAI do. With neither, the file states no
    place; directions are then those that nibabel assumes.

    Args:
        header: as it stands in the file.
        shape: of the volume.

    Raises:
        ValueError: a voxel size is not positive, the directions are no geometry, the sform contradicts pixdim, or one
            form is the mirror image of the other.
    """
    mm = _MM[read_unit(header)]
    sizes = np.asarray(header["pixdim"][1:4], np.float64) * mm
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    if sform is not None:
        sform = _scale(sform, mm)
        check_affine(sform, shape)
    if not np.isfinite(sizes).all() or min(sizes) <= 0:
        raise ValueError(f"pixdim, the size of a voxel, is {_times(header['pixdim'][1:4])}; it must be positive")
    if sform is not None:
        _compare_sizes(sform, sizes)
    qform = _read_qform(header, mm)
    notes = [] if sform is None or qform is None else _compare_forms(sform, qform, shape)
    affine = sform if sform is not None else qform
    if affine is not None:
        check_affine(affine, shape)
        return Geometry(affine, notes=tuple(notes))
    affine = _scale(header.get_base_affine(), mm)
    check_affine(affine, shape)
    axes = "".join(nib.aff2axcodes(affine))
    note = f"the header has neither qform nor sform: its axes are assumed to be {axes}, and nothing is measured in mm"
    return Geometry(affine, is_stated=False, notes=(note,))


def read_pixel_mm(header: Header) -> tuple[float, float] | None:
    """Returns the height and width of a 2D image's pixels in mm, None where the file does not state them."""
    width, height = (float(size) * _MM[read_unit(header)] for size in header["pixdim"][1:3])
    is_stated = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return (height, width) if is_stated and 0 < height < np.inf and 0 < width < np.inf else None


def read_unit(header: Header) -> str:
    """Returns the unit of a volume's geometry: ``mm``, ``micron``, ``meter`` or ``unknown``.

    nibabel's ``get_xyzt_units`` fails where the unit of time, which does not matter here, is none of NIfTI's.
    """
    return UNITS.get(int(header["xyzt_units"]) & LENGTH_BITS, "unknown")


def make_label_header(source: Header, shape: Sequence[int]) -> Header:
    """Returns the header of a label map: both forms, their codes, voxel sizes and unit are those of the image."""
    is_nifti_2 = isinstance(source, nib.nifti2.Nifti2Header)
    header: Header = nib.nifti2.Nifti2Header() if is_nifti_2 else nib.nifti1.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    for name in (*_PLACE_FIELDS, *_OFFSET_FIELDS):
        header[name] = source[name]
    header["pixdim"][:4] = source["pixdim"][:4]
    return header


def to_nifti_header(affine: np.ndarray) -> Header:
    """Returns a header with the geometry of an affine to mm; a qform has no shear, the sform has it."""
    header = nib.nifti1.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_qform(affine, 1, strip_shears=True)
    header.set_sform(affine, 1)
    header["pixdim"][1:4] = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    return header


def _scale(affine: np.ndarray, mm: float) -> np.ndarray:
    scaled = np.array(affine, np.float64)
    scaled[:3] *= mm
    return scaled


def _read_qform(header: Header, mm: float) -> np.ndarray | None:
    if int(header["qform_code"]) <= 0:
        return None
    usual = header.copy()
    # The handedness; nibabel fails on 0, which many tools write and the format's own library takes for 1.
    usual["pixdim"][0] = -1 if float(header["pixdim"][0]) < 0 else 1
    try:
        return _scale(usual.get_qform(), mm)
    except (ValueError, ArithmeticError):
        values = ", ".join(f"{float(header[f'quatern_{name}']):g}" for name in "bcd")
        raise ValueError(f"its qform, with the quaternion {values}, is no rotation") from None


def _compare_sizes(sform: np.ndarray, sizes: np.ndarray) -> None:
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    # Of sheared slices, pixdim is the length of the step or the distance of the slices.
    distances = 1 / np.linalg.norm(np.linalg.inv(sform[:3, :3]), axis=1)
    if not (_are_close(lengths, sizes) | _are_close(distances, sizes)).all():
        raise ValueError(
            f"its voxels are {_times(lengths)} mm by the sform and {_times(sizes)} mm by pixdim; correct one of them"
        )


def _compare_forms(sform: np.ndarray, qform: np.ndarray, shape: Sequence[int]) -> list[str]:
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        forms = " and ".join("".join(nib.aff2axcodes(form)) for form in (sform, qform))
        raise ValueError(f"sform and qform are mirror images of each other ({forms}); correct one of them")
    corners = np.array([[*corner, 1] for corner in product(*((0, size - 1) for size in (*shape, 1, 1)[:3]))])
    distance = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
    if distance <= SAME_PLACE * np.linalg.norm(sform[:3, :3], axis=0).min():
        return []
    return [f"sform and qform differ by up to {distance:.3g} mm: the sform is used"]


def _are_close(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(one - other) <= SAME_SIZE * other)


def _times(sizes: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{float(size):.4g}" for size in sizes)
