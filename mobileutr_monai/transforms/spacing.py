"""Resampling to a voxel size, in MONAI Label too."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.transforms import Spacingd

__all__ = ["ResampleToSpacingd"]


class ResampleToSpacingd(Spacingd):
    """MONAI's ``Spacingd``, which it equals, where the data hold more than tensors and their meta dictionaries.

    In MONAI 1.6.0 and 1.6.1 ``Spacingd`` calls ``update`` on every entry whose key starts with ``image_`` and fails on
    the string ``image_path`` that MONAI Label puts there. Such entries are kept from it.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        aside = {key: value for key, value in data.items() if key not in self.keys and not isinstance(value, Mapping)}
        resampled: dict[Hashable, torch.Tensor] = super().__call__(
            {key: value for key, value in data.items() if key not in aside}, lazy
        )
        return {**aside, **resampled}
