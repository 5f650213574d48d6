"""NIfTI images of two dimensions, for the transforms that pictures go through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

__all__ = ["NiftiImageReader", "count_dimensions"]


class NiftiImageReader(ImageReader):
    """Reads a 2D NIfTI image with axes and meta as ``PILReader`` gives those of pictures; for ``LoadImaged``.

    MONAI's ``NibabelReader`` gives it one channel and volume's meta. Values are not scaled.

    Args:
        mode: ``"RGB"``, the values three times, or ``"L"``.

    Shape:
        (columns, rows, 3) or, for ``"L"``, (columns, rows), float32.
    """

    def __init__(self, mode: str = "RGB") -> None:
        super().__init__()
        self.mode = mode

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether it can be read."""
        try:
            self.read(filename)
        except (OSError, ValueError, nib.filebasedimages.ImageFileError):
            return False
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> nib.nifti1.Nifti1Image:
        """Opens one file.

        Raises:
            ImageFileError: it is no NIfTI.
            ValueError: there is more than one, or it has more dimensions.
        """
        paths = ensure_tuple(data)
        if len(paths) != 1:
            raise ValueError(f"{len(paths)} files for one image")
        image = cast(nib.nifti1.Nifti1Image, nib.load(paths[0]))
        if len(_sides(image.shape)) != 2:
            raise ValueError(f"{paths[0]}: shape {image.shape} is not that of a 2D image")
        return image

    def get_data(self, img: nib.nifti1.Nifti1Image) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the array and its meta data."""
        values = np.asarray(img.dataobj, dtype=np.float32).reshape(_sides(img.shape))
        meta = {
            "format": "NIfTI",
            MetaKeys.SPATIAL_SHAPE: np.asarray(values.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if self.mode == "RGB" else float("nan"),
        }
        return (np.repeat(values[..., None], 3, axis=2) if self.mode == "RGB" else values), meta


def count_dimensions(path: Path) -> int:
    """Returns 2 for a NIfTI image of two dimensions, otherwise 3, also if it cannot be read."""
    try:
        return 2 if len(_sides(cast(nib.nifti1.Nifti1Image, nib.load(path)).shape)) == 2 else 3
    except Exception:  # noqa: BLE001 - whatever nibabel throws at a broken header is said when the file is read
        return 3


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape without the axes of one pixel that follow the first two."""
    sides = tuple(shape)
    while len(sides) > 2 and sides[-1] == 1:
        sides = sides[:-1]
    return sides
