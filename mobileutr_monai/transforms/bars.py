"""Cropping of what lies next to the image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, MapTransform
from monai.utils import convert_to_tensor

from mobileutr_monai.transforms.region import CropEachd, Region

__all__ = ["CropAliked", "CropBarsd"]

FindContent = Callable[[np.ndarray], Region]


class CropBarsd(CropEachd):
    """Crops each image to what a function finds between bars; inverted, the bars are 0.

    A network takes bars beside an image for lesions, or the image for smaller than it is. MONAI's ``CropForeground``
    asks for a threshold between image and background; bars have any level.

    Args:
        find_content: pixels (rows, columns, channels) -> (top, left, bottom, right), the last row and column not in it.

    Shape:
        - input: (channel, rows, columns).
    """

    def __init__(self, keys: KeysCollection, find_content: FindContent, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.find_content = find_content

    def find(self, image: MetaTensor) -> Region:
        return self.find_content(convert_to_tensor(image, track_meta=False).cpu().numpy().transpose(1, 2, 0))


class CropAliked(MapTransform):
    """Crops labels as their image was cropped, from the image's record of transforms; for training and evaluation.

    Args:
        keys: of the labels, of the size that the image had before it was cropped.
        reference_key: of the image; data without it are left as they are.

    Shape:
        - input: (channel, rows, columns).
    """

    def __init__(self, keys: KeysCollection, reference_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference_key = reference_key
        self.crop = Crop()

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        d: dict[Hashable, torch.Tensor] = dict(data)
        operations = getattr(data.get(self.reference_key), "applied_operations", [])
        for cropped in [operation["extra_info"]["cropped"] for operation in operations if operation["class"] == "Crop"]:
            top, below, left, beside = cropped
            for key in self.key_iterator(d):
                rows, columns = d[key].shape[1:]
                slices = Crop.compute_slices(roi_start=(top, left), roi_end=(rows - below, columns - beside))
                d[key] = self.crop(d[key], slices=slices)
        return d
