"""What a caller may hand over as an image, as files that the readers take."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeAlias

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from PIL import Image
from pydicom.dataset import Dataset

__all__ = ["ImageInput", "TemporaryFolder", "save_input"]

ImageInput: TypeAlias = (
    str
    | Path
    | Image.Image
    | np.ndarray
    | MetaTensor
    | Dataset
    | nib.nifti1.Nifti1Pair
    | Sequence[str | Path]
    | Sequence[Dataset]
)
"""A path, or several of one case such as the slices of a series; or an object in memory. See ``save_input``."""

_TAKEN = "a path, PIL image, NumPy array, MetaTensor, pydicom Dataset or NIfTI image"
# Pillow's modes that PNG keeps; others go into TIFF.
_PNG_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16")


class TemporaryFolder:
    """A temporary folder, which is removed with the last object that refers to this one, or at exit."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="mobileutr-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def save_input(
    image: object, folder: Path, spatial_dims: int, affine: np.ndarray | None = None, stem: str = "image"
) -> list[Path]:
    """Returns the files of an image: those of a path, or new ones in a folder for an object in memory.

    The pipeline reads files, so that limits, checks and geometry are the same for every input. Files are lossless.

    Args:
        image: see ``ImageInput``. Shapes:

            - PIL image: as Pillow opened it; its orientation tag is obeyed, as that of a file.
            - array for 2D bundles: (rows, columns), or (rows, columns, 3 or 4) with values from 0 to 255.
            - array for 3D bundles: (x, y, z), which needs ``affine``.
            - MetaTensor for 2D bundles: (columns, rows) or (channels, columns, rows), as ``LoadImage`` gives it; for 3D
              (x, y, z) or (1, x, y, z), with its own affine.
            - Dataset: one file of DICOM, with its file meta information; several of them are a series.
        folder: empty folder for new files.
        spatial_dims: 2 or 3, of the bundle.
        affine: (4, 4), from indices of an array to RAS in mm.
        stem: of the names of new files.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: it is nothing of that.
        ValueError: the object has a shape or values that cannot be an image.
    """
    if affine is not None and not isinstance(image, np.ndarray):
        raise ValueError("affine is for NumPy arrays; other images have their own")
    if isinstance(image, (str, Path)):
        if not Path(image).exists():
            raise FileNotFoundError(f"no image at {str(image)!r}")
        return [Path(image).absolute()]
    if isinstance(image, Image.Image):
        return [_save_picture(image, folder / stem)]
    if isinstance(image, MetaTensor):
        values = convert_to_tensor(image, track_meta=False).numpy(force=True)
        if spatial_dims == 3:
            return [_save_volume(_drop_channel(values, 3), np.asarray(image.affine.cpu(), np.float64), folder / stem)]
        if values.ndim == 3:  # channels, columns, rows
            values = np.moveaxis(values, 0, -1)
        return [_save_plane(values.swapaxes(0, 1), folder / stem)]
    if isinstance(image, np.ndarray):
        if spatial_dims == 2:
            return [_save_plane(image, folder / stem)]
        if affine is None:
            raise ValueError("an array of a volume needs affine=, 4 x 4 from its indices to RAS in mm")
        return [_save_volume(image, np.asarray(affine, np.float64), folder / stem)]
    if isinstance(image, Dataset):
        return [_save_dataset(image, folder / f"{stem}.dcm")]
    if isinstance(image, nib.nifti1.Nifti1Pair):
        return [_save_nifti(image, folder / stem)]
    if isinstance(image, Sequence) and image and all(isinstance(part, (str, Path)) for part in image):
        paths = [path for part in image for path in save_input(part, folder, spatial_dims)]
        if twice := next((path for number, path in enumerate(paths) if path in paths[:number]), None):
            raise ValueError(
                f"{twice.name} is given twice; give each path once, or give them to many() for a result each"
            )
        return paths
    if isinstance(image, Sequence) and image and all(isinstance(part, Dataset) for part in image):
        return [_save_dataset(part, folder / f"{stem}_{number}.dcm") for number, part in enumerate(image)]
    raise TypeError(f"an image must be {_TAKEN}, got {type(image).__name__}")


def _save_picture(image: Image.Image, base: Path) -> Path:
    path = base.with_name(base.name + (".png" if image.mode in _PNG_MODES else ".tif"))
    image.save(path, exif=image.getexif())
    return path


def _save_plane(values: np.ndarray, base: Path) -> Path:
    """Saves an image, (rows, columns) or (rows, columns, channels)."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError(f"an image must be (rows, columns) or (rows, columns, 3 or 4), got {values.shape}")
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype != np.uint8 and _are_bytes(values):
        values = values.astype(np.uint8)
    if values.dtype == np.uint8 or (values.dtype == np.uint16 and values.ndim == 2):
        path = base.with_name(f"{base.name}.png")
        Image.fromarray(np.ascontiguousarray(values)).save(path)
        return path
    if values.ndim == 3:
        raise ValueError(f"colours must be whole numbers from 0 to 255, got {values.dtype}; scale and round them")
    return _save_volume(values.T, np.eye(4), base)


def _are_bytes(values: np.ndarray) -> bool:
    if values.dtype.kind not in "iuf" or not values.size:
        return False
    return bool((values >= 0).all() and (values <= 255).all() and (values == np.floor(values)).all())


def _drop_channel(values: np.ndarray, spatial_dims: int) -> np.ndarray:
    if values.ndim == spatial_dims + 1 and len(values) == 1:
        return np.asarray(values[0])
    return values


def _save_volume(values: np.ndarray, affine: np.ndarray, base: Path) -> Path:
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise ValueError(f"affine must be 4 x 4 and invertible, got {affine.tolist()}")
    if values.dtype.kind not in "iufb":
        raise ValueError(f"values must be numbers, got {values.dtype}")
    if values.ndim not in (2, 3):
        raise ValueError(f"a volume must be (x, y, z), got {values.shape}")
    path = base.with_name(f"{base.name}.nii")
    nib.save(nib.Nifti1Image(_to_stored(values), affine), path)
    return path


def _save_nifti(image: nib.nifti1.Nifti1Pair, base: Path) -> Path:
    values = _to_stored(np.asanyarray(image.dataobj))
    header = image.header.copy()
    header.set_data_dtype(values.dtype)
    kind = nib.Nifti2Image if isinstance(header, nib.nifti2.Nifti2Header) else nib.Nifti1Image
    path = base.with_name(f"{base.name}.nii")
    nib.save(kind(values, image.affine, header), path)
    return path


def _to_stored(values: np.ndarray) -> np.ndarray:
    """Returns values in a type that NIfTI and its readers take, without loss for those that images have."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
        return values.astype(np.float32 if values.size and np.abs(values).max() < 2**24 else np.float64)
    return values


def _save_dataset(dataset: Dataset, path: Path) -> Path:
    try:
        dataset.save_as(path, enforce_file_format=True)
    except (AttributeError, ValueError, KeyError) as error:
        raise ValueError(f"the Dataset cannot be written as DICOM: {str(error).splitlines()[0]}") from error
    return path
