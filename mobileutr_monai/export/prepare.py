"""What the formats of an export share: the folded network, an image for tracing it, and silence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from mobileutr_monai.networks import MobileUtr, fold_network

__all__ = ["Facts", "Run", "prepare", "quiet"]

Facts = Mapping[str, str]
Run = Callable[[np.ndarray], np.ndarray]

_EXAMPLE_SIDES = {2: (64, 96), 3: (32, 48, 64)}  # all different, so that none is taken for another


def prepare(network: MobileUtr) -> tuple[MobileUtr, torch.Tensor]:
    """Returns the folded network on the CPU in float32, and an image for tracing it."""
    folded = fold_network(network).to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return folded, torch.zeros(2, network.in_channels, *_EXAMPLE_SIDES[network.spatial_dims])


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps to itself what exporters say of their own future and of packages that this project does not use."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
