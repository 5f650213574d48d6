"""Label maps from probabilities."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

__all__ = ["ProbabilitiesToLabelMap", "ProbabilitiesToLabelMapd"]

Clean = Callable[[np.ndarray], np.ndarray]

# Pixels that are compared at a time: what torch's argmax returns takes 8 bytes each.
_PIXELS_AT_ONCE = 2**22


class ProbabilitiesToLabelMap(Transform):
    """Makes a label map of probabilities: one channel is thresholded, several are background first and compared.

    Args:
        threshold: probability at and above which a pixel is foreground; for one channel only.
        min_peak: a label whose highest probability in the image is lower is left out of the whole image.
        clean: changes the label map, (rows, columns) or (x, y, z), at the end.

    Shape:
        - input: (channels, ...), output: (1, ...), float32.
    """

    def __init__(self, threshold: float = 0.5, min_peak: float = 0.0, clean: Clean | None = None) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold!r}")
        if not 0 <= min_peak <= 1:
            raise ValueError(f"min_peak must be from 0 to 1, got {min_peak!r}")
        self.threshold, self.min_peak, self.clean = threshold, min_peak, clean

    def __call__(self, probabilities: torch.Tensor) -> torch.Tensor:
        tracked = convert_to_tensor(probabilities, track_meta=True)
        values = convert_to_tensor(probabilities, track_meta=False)
        label = torch.empty((1, *values.shape[1:]), dtype=torch.float32, device=values.device)
        planes = max(1, _PIXELS_AT_ONCE // max(1, values[0, :1].numel()))
        for first in range(0, values.shape[1], planes):
            part = values[:, first : first + planes]
            found = part[0] >= self.threshold if len(part) == 1 else part.argmax(dim=0)
            label[0, first : first + planes] = found
        if self.min_peak:
            for index, plane in enumerate(values if len(values) == 1 else values[1:], start=1):
                if plane.max() < self.min_peak:
                    label[label == index] = 0
        if self.clean is not None:
            label[0] = torch.from_numpy(self.clean(label[0].cpu().numpy()))
        out: torch.Tensor = MetaTensor(label).copy_meta_from(tracked)
        return out


class ProbabilitiesToLabelMapd(MapTransform):
    """Dictionary version of ``ProbabilitiesToLabelMap``."""

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float = 0.5,
        min_peak: float = 0.0,
        clean: Clean | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ProbabilitiesToLabelMap(threshold, min_peak, clean)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        d: dict[Hashable, torch.Tensor] = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d
