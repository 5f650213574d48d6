"""DICOM images and their label maps as the files that annotation tools exchange: NIfTI, NRRD, PNG."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.outputs.nifti import save_label_volume
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.header import is_dicom
from mobileutr_monai.readers.dicom.pixels import read_frame
from mobileutr_monai.readers.dicom.reader import read_volume
from mobileutr_monai.readers.dicom.series import LPS_TO_RAS, DicomCase, find_one_case
from mobileutr_monai.readers.pillow_io import open_image

__all__ = ["read_label_file", "read_one_case", "to_nifti", "write_label_file"]

Nifti = nib.nifti1.Nifti1Image

# Viewers show a NIfTI image upright, its rows downwards, with the axes of DICOM.
_UPRIGHT = LPS_TO_RAS
# Largest difference of two affines of one grid, in mm: formats round differently.
_AFFINE_TOLERANCE = 1e-2
_VECTOR_INTENT = "vector"


def read_one_case(folder: Path) -> DicomCase:
    """Returns the still, cine or volume that the DICOM files of a folder are.

    Raises:
        DicomError: they are none, more than one, or something is wrong with them.
    """
    files = [file for file in sorted(folder.iterdir()) if is_dicom(file)]
    if not files:
        raise DicomError(folder, Reason.NOT_DICOM)
    return find_one_case(files)


def to_nifti(case: DicomCase) -> Nifti:
    """Returns a still or volume for viewers.

    Shape:
        stills: (columns, rows, 1), or (columns, rows, 1, 1, 3) for colour, as ITK writes it; uint8.
        volumes: (columns, rows, slices), int16 where that holds the values, else float32.

    Raises:
        DicomError: it is a cine, or cannot be decoded.
    """
    if case.kind is CaseKind.CINE:
        detail = f"{case.frames} frames; MONAI Label shows stills and volumes"
        raise DicomError(case.paths[0], Reason.NOT_ONE_FRAME, detail)
    if case.kind is CaseKind.SERIES:
        values = read_volume(case)
        short = values.astype(np.int16)
        image = Nifti(short if np.array_equal(short, values) else values, case.affine)
    else:
        frame = np.moveaxis(read_frame(case.paths[0], 0, "RGB"), 0, 1)
        if (frame == frame[..., :1]).all():
            image = Nifti(frame[..., :1], _UPRIGHT)
        else:
            image = Nifti(frame[:, :, None, None], _UPRIGHT)
            image.header.set_intent(_VECTOR_INTENT)
    image.header.set_xyzt_units("mm")
    return image


def read_label_file(path: Path, case: DicomCase) -> np.ndarray:
    """Reads a label map that was drawn or made on an image.

    Args:
        path: PNG of a still; NIfTI or NRRD of either. Flipped and swapped axes are put back.

    Shape:
        - output: (rows, columns) of a still, (columns, rows, slices) of a volume, uint16.

    Raises:
        ValueError: it is not on the image's grid.
    """
    if path.suffix.lower() == ".png":
        with open_image(path, "label") as picture:
            values, affine = np.asarray(picture).T, None
    else:
        values, affine = _read_volume_file(path)
    if case.kind is CaseKind.SERIES:
        if affine is None or case.affine is None or values.ndim != 3:
            raise ValueError(f"{path.name}: not a label map of a volume")
        values, affine = _to_axes_of(case.affine, values, affine)
        is_there = np.allclose(affine, case.affine, atol=_AFFINE_TOLERANCE)
        expected: tuple[int, ...] = (case.columns, case.rows, case.frames)
    else:
        values, is_there = values.reshape(values.shape[:2] if values.size == np.prod(values.shape[:2]) else -1), True
        expected = (case.columns, case.rows)
    if values.shape != expected or not is_there:
        raise ValueError(f"{path.name}: shape {values.shape}, not on the grid of the image, {expected}")
    label = values if case.kind is CaseKind.SERIES else values.T
    return np.ascontiguousarray(np.rint(label).astype(np.uint16))


def write_label_file(label: np.ndarray, case: DicomCase, path: Path) -> None:
    """Writes a label map as NIfTI.

    Shape:
        - label: as ``read_label_file`` returns it.
    """
    save_label_volume(label if case.kind is CaseKind.SERIES else label.T[..., None], to_nifti(case).header, path)


def _read_volume_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns values and affine to RAS of a NIfTI or, where ITK is installed, of whatever that reads."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = cast(Nifti, nib.load(path))
        return np.asarray(image.dataobj), np.asarray(image.affine)
    import SimpleITK  # comes with MONAI Label

    volume = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    size = volume.GetDimension()
    affine[:size, :size] = np.reshape(volume.GetDirection(), (size, size)) * np.asarray(volume.GetSpacing())
    affine[:size, 3] = volume.GetOrigin()
    return SimpleITK.GetArrayFromImage(volume).T, LPS_TO_RAS @ affine


def _to_axes_of(target: np.ndarray, values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn = ornt_transform(io_orientation(affine), io_orientation(target))
    return apply_orientation(values, turn), affine @ nib.orientations.inv_ornt_aff(turn, values.shape)
