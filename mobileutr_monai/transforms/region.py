"""Cropping to a rectangle that the file itself tells."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform
from monai.utils import ImageMetaKey

__all__ = ["CropToRegiond"]

FindRegion = Callable[[str], tuple[int, int, int, int] | None]


class CropToRegiond(MapTransform, InvertibleTransform):
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
        self.crop = Crop()

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        d: dict[Hashable, torch.Tensor] = dict(data)
        for key in self.key_iterator(d):
            image = data[key]
            rows, columns = image.shape[1:]
            region = self.find_region(str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")))
            top, left, bottom, right = region or (0, 0, rows, columns)
            d[key] = self.crop(image, slices=Crop.compute_slices(roi_start=(top, left), roi_end=(bottom, right)))
        return d

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        """Puts the cropped images back into their places."""
        d: dict[Hashable, torch.Tensor] = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.crop.inverse(data[key])
        return d
