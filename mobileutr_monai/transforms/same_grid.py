"""Checks that a label lies where its image does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

__all__ = ["CheckSameGridd", "check_same_grid"]

TOLERANCE = 0.05
"""By which a corner of a label may miss that of its image, as a share of a voxel's side: formats round differently."""


def check_same_grid(label: Mapping[str, Any], image: Mapping[str, Any]) -> None:
    """Compares the grids that two files have, from the meta data of their readers.

    The axes may be in another order or direction: both are turned to RAS first. Images without an affine, such as PNG,
    are compared by their size.

    Args:
        label, image: with ``spatial_shape`` and, of volumes, ``original_affine``, to mm.

    Raises:
        ValueError: size or place differ; the message does not name the files.
    """
    label_shape, label_corners, _ = _find_grid(label)
    image_shape, image_corners, voxel_mm = _find_grid(image)
    if label_shape != image_shape:
        sizes = (" x ".join(map(str, shape)) for shape in (label_shape, image_shape))
        raise ValueError("is {}, the image is {}; make the label again on the image's grid".format(*sizes))
    distance = float(np.linalg.norm(label_corners - image_corners, axis=1).max())
    if not distance <= TOLERANCE * voxel_mm:
        raise ValueError(
            f"lies elsewhere than the image, by up to {distance:.3g} mm: their affines differ; save the label with the "
            "image's geometry"
        )


class CheckSameGridd(MapTransform):
    """Checks that labels have the size and, of volumes, the place of their image; place it behind loading the label.

    Args:
        keys: of the labels.
        reference_key: of the image; data without it are not checked.
        allow_missing_keys: whether data may lack a label.

    Raises:
        ValueError: a label, named in the message, is of another size or lies elsewhere.
    """

    def __init__(self, keys: KeysCollection, reference_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference_key = reference_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result) if self.reference_key in result else ():
            try:
                check_same_grid(result[key].meta, result[self.reference_key].meta)
            except ValueError as error:
                raise ValueError(f"{result[key].meta[ImageMetaKey.FILENAME_OR_OBJ]}: {error}") from None
        return result


def _find_grid(meta: Mapping[str, Any]) -> tuple[tuple[int, ...], np.ndarray, float]:
    """Returns the size and, of volumes, the places of the corners and the shortest side of a voxel, in mm, in RAS.

    Shape:
        - corners: (8, 3), of images zeros.
    """
    shape = tuple(int(side) for side in meta[MetaKeys.SPATIAL_SHAPE])
    if len(shape) < 3:
        return shape, np.zeros((8, 3)), 0.0
    affine = np.asarray(meta[MetaKeys.ORIGINAL_AFFINE], np.float64)
    turn = io_orientation(affine)
    if np.isnan(turn).any():
        raise ValueError("has an affine without three directions; save it with the image's geometry")
    turned: tuple[int, ...] = apply_orientation(np.empty(shape, bool), turn).shape
    to_mm = affine @ inv_ornt_aff(turn, shape)
    ends = np.indices((2, 2, 2)).reshape(3, 8).T * (np.asarray(turned) - 1)
    return turned, ends @ to_mm[:3, :3].T + to_mm[:3, 3], float(np.linalg.norm(affine[:3, :3], axis=0).min())
