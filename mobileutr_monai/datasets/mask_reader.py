"""Masks of any declared coding as a MONAI image reader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

from mobileutr_monai.datasets.masks import MaskCoding, parse_coding, read_mask

__all__ = ["MaskReader"]


class MaskReader(ImageReader):
    """Reads the mask files of a case as one label map, for ``LoadImaged``.

    Args:
        coding: what the values stand for, see ``parse_coding``.
        labels: number of labels that the network has, without background; a mask with more is an error. 0: any number.

    Shape:
        - output: (columns, rows), as ``monai.data.PILReader`` has it.

    Raises:
        ValueError: a mask cannot be read, or its values are not in the coding; when the data are taken, not when
            ``read`` is called, because ``LoadImage`` buries what ``read`` raises.
    """

    def __init__(self, coding: MaskCoding | Mapping[str, Any] | str = "two-valued", labels: int = 0) -> None:
        super().__init__()
        self.coding, self.labels = parse_coding(coding), labels

    def verify_suffix(self, filename: Sequence[str | PathLike] | str | PathLike) -> bool:
        return True

    def read(self, data: Sequence[str | PathLike] | str | PathLike, **kwargs: Any) -> list[str]:
        return [str(name) for name in ensure_tuple(data)]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict]:
        label = self.coding.decode([read_mask(path) for path in img], img)
        if self.labels and label.max() > self.labels:
            raise ValueError(
                f"mask {img[0]} has label {label.max()}, but the network has {self.labels}; "
                "give it more output channels, or a mask coding with fewer labels"
            )
        height, width = label.shape
        meta = {MetaKeys.SPATIAL_SHAPE: np.asarray((width, height)), MetaKeys.ORIGINAL_CHANNEL_DIM: math.nan}
        return label.T, meta
