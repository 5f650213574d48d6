"""What stands in for a network that would take too long."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer


class ThresholdInferer(SlidingWindowInferer):
    """Sliding windows as the bundle's, over a threshold instead of the network."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().__call__(inputs, lambda window: torch.cat([window * 0, window - 1, window - 2], dim=1))


class CheapInferer(SimpleInferer):
    """A threshold instead of the network, for images; it costs next to nothing."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return 20 * (inputs.mean(dim=1, keepdim=True) - inputs.mean())
