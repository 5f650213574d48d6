"""Cropping to a rectangle that the file itself tells."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform
from monai.utils import ImageMetaKey

__all__ = ["CropEachd", "CropToRegiond"]

Region = tuple[int, int, int, int]
FindRegion = Callable[[str], Region | None]


class CropEachd(MapTransform, InvertibleTransform):
    """Crops each image to a rectangle of its own; inverted, what lay outside is 0.

    Subclasses say which: (top, left, bottom, right) in pixels, the last row and column not in it, or None for all.

    Shape:
        - input: (channel, rows, columns).
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.crop = Crop()

    def find(self, image: MetaTensor) -> Region | None:
        """Returns the rectangle of an image."""
        raise NotImplementedError

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        d: dict[Hashable, torch.Tensor] = dict(data)
        for key in self.key_iterator(d):
            rows, columns = data[key].shape[1:]
            top, left, bottom, right = self.find(data[key]) or (0, 0, rows, columns)
            slices = Crop.compute_slices(roi_start=(top, left), roi_end=(bottom, right))
            d[key] = self.crop(data[key], slices=slices)
        return d

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        """Puts the cropped images back into their places."""
        d: dict[Hashable, torch.Tensor] = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.crop.inverse(data[key])
        return d


class CropToRegiond(CropEachd):
    """Crops each image to the rectangle that a function finds for its file; inverted, what lay outside is 0.

    MONAI has crops to fixed places and to what the pixels show. An image whose file tells no rectangle stays whole.

    Args:
        find_region: path -> (top, left, bottom, right) in pixels, the last row and column not in it, or None.

    Shape:
        - input: (channel, rows, columns).
    """

    def __init__(self, keys: KeysCollection, find_region: FindRegion, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.find_region = find_region

    def find(self, image: MetaTensor) -> Region | None:
        return self.find_region(str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")))
