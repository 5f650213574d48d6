"""Inferers that MONAI lacks."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from monai.utils import convert_to_tensor

__all__ = ["AutocastInferer", "choose_precision", "computes_bfloat16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def computes_bfloat16(device: torch.device) -> bool:
    """Whether it has instructions for bfloat16; a CPU without them emulates it, several times slower than float32."""
    if device.type != "cpu":
        return True
    # torch has no public way to ask; without this one nothing is slow, float32 is used.
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return ask is not None and bool(ask())


def choose_precision(device: torch.device | str) -> str:
    """Returns the fastest precision that a device trains well in: ``"bfloat16"`` or ``"float32"``."""
    return "bfloat16" if computes_bfloat16(torch.device(device)) else "float32"


class AutocastInferer(SimpleInferer):
    """Runs the network under autocast, on the CPU too, and returns a plain float32 tensor.

    MONAI's engines autocast on CUDA only (1.6.1: ``torch.autocast("cuda", ...)``): ``amp`` does nothing on a CPU. The
    network gets a plain tensor: a ``MetaTensor`` makes a training step on two cores 10 % longer in 2D, 40 % in 3D.

    Args:
        dtype: ``"float32"`` (no autocast) or ``"bfloat16"``.
    """

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise ValueError(f"dtype {dtype!r} is unknown; choose one of {sorted(_DTYPES)}")
        self.dtype = _DTYPES[dtype]

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        plain = convert_to_tensor(inputs, track_meta=False)
        with torch.autocast(inputs.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits: torch.Tensor = super().__call__(plain, network, *args, **kwargs)
        return logits.float()
