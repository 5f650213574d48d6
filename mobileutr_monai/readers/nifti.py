"""NIfTI for MONAI's ``LoadImaged``: 2D images for the transforms of pictures, and volumes in mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, NibabelReader
from monai.utils import MetaKeys, ensure_tuple

from mobileutr_monai.readers.nifti_file import is_nifti, load_nifti, named
from mobileutr_monai.readers.nifti_geometry import read_geometry

__all__ = ["NiftiImageReader", "NiftiVolumeReader"]

_COLOURS = 3


class NiftiImageReader(ImageReader):
    """Reads a 2D NIfTI image with axes and meta as ``PILReader`` gives those of pictures; for ``LoadImaged``.

    MONAI's ``NibabelReader`` gives it one channel and a volume's meta. Colours are RGB values or, as ITK writes them,
    vectors of three along the fifth axis. Values are not scaled. ``read`` fails only for what is not NIfTI, so that
    ``LoadImage`` tries other readers with that alone.

    Args:
        mode: ``"RGB"``, grey values three times, or ``"L"``.

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
            ValueError: there is more than one file, it has more dimensions, or ``load_nifti`` says what is wrong.
        """
        if len(img) != 1:
            raise ValueError(f"{len(img)} files for one image")
        image = load_nifti(img[0])
        colours = image.values.ndim > 2
        if image.spatial_dims != 2:
            raise ValueError(f"{img[0]}: shape {image.values.shape} is not that of a 2D image")
        values = np.asarray(image.values, np.float32)
        meta = {
            "format": "NIfTI",
            MetaKeys.SPATIAL_SHAPE: np.asarray(values.shape[:2]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if self.mode == "RGB" else float("nan"),
        }
        if self.mode == "RGB":
            return (values if colours else np.repeat(values[..., None], _COLOURS, axis=2)), meta
        return (_to_grey(values) if colours else values), meta


class NiftiVolumeReader(NibabelReader):
    """MONAI's reader of NIfTI, with the affine in mm and errors for files that ``load_nifti`` refuses.

    ``read`` does not fail, so that ``LoadImage`` does not guess with MONAI's other readers.

    Shape:
        (x, y, z), with a last axis of channels if there are several.
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
        images = []
        for path in img:
            image = load_nifti(path)
            values = image.values[:, :, None] if image.spatial_dims == 2 else image.values
            affine = named(path, read_geometry, image.header, values.shape).affine
            kind = nib.nifti2.Nifti2Image if isinstance(image.header, nib.nifti2.Nifti2Header) else nib.Nifti1Image
            images.append(kind(values, affine, image.header))
        self.filenames = tuple(map(str, img))
        data, meta = super().get_data(images if len(images) > 1 else images[0])
        return data, meta


def _to_grey(colours: np.ndarray) -> np.ndarray:
    """Returns what Pillow's conversion from RGB to L gives, ITU-R 601-2.

    Shape:
        - colours: (columns, rows, 3).
        - output: (columns, rows), float32.
    """
    weighted = colours @ np.asarray([19595, 38470, 7471], np.float64)
    return np.floor((weighted + 2**15) / 2**16).astype(np.float32)
