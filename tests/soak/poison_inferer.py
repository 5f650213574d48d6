"""What ends the process that segments a certain image, as a fault of a driver or the kernel out of memory does."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from monai.inferers import SimpleInferer


class PoisonInferer(SimpleInferer):
    """Ends the process for an image of few grey values, such as one that is half black and half white."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if any(image.unique().numel() < 40 for image in inputs):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(inputs, network, *args, **kwargs)
