"""Training as CUDA graphs: a GPU computes the many small kernels of this network faster than they are started."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["CudaGraphTraining", "require_gpu"]


def require_gpu(device: torch.device | str) -> None:
    """Checks that a device is a GPU of CUDA.

    Raises:
        ValueError: it is not.
    """
    if torch.device(device).type != "cuda":
        raise ValueError(f"CUDA graphs need a GPU, but device is {device}; train without gpu_train.json")


class CudaGraphTraining(nn.Module):
    """A network's forward and backward pass on a GPU as a CUDA graph each, which a trainer calls in its place.

    It takes batches of one shape and precision in training; in evaluation the network computes as ever. Weights and
    running statistics stay the network's own, so what averages, saves or restores them needs no change. The trainer has
    to set gradients to None (MONAI's ``optim_set_to_none``): the graph writes them in place, and would add them to
    themselves.

    Args:
        network: with all its parameters and buffers on a GPU.
        shape: of a batch: (B, C, sides...).
        precision: ``"float32"``, or ``"bfloat16"`` for autocast.

    Raises:
        ValueError: the network is not on a GPU.
    """

    def __init__(self, network: nn.Module, shape: Sequence[int], precision: str = "float32") -> None:
        super().__init__()
        device = next(network.parameters()).device
        require_gpu(device)
        self.network = network
        before = copy.deepcopy(network.state_dict())
        image = torch.randn(tuple(shape), device=device)
        if image.ndim == 4:
            image = image.contiguous(memory_format=torch.channels_last)
        self.train()
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
            torch.cuda.make_graphed_callables(self, (image,))
        network.load_state_dict(before)  # the passes before the capture moved the statistics of batch norm

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(image)
        return logits
