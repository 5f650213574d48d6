"""Weights and inputs that the authors' logits in ``data/vectors64.npz`` were computed for, regenerated from seeds.

The vectors are eval-mode float64 logits of the authors' own networks (FengheTan9/Mobile-U-ViT, Apache-2.0), every
fourth pixel per axis in 2D and every second in 3D; ``data/state_dict_shapes.json`` lists their keys and shapes. Each
weight is drawn from a seed made of its key and cast to float32, so that any machine makes the same network.
"""

from __future__ import annotations

import json
import zlib
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
INPUT_SEED = 1234
SHAPES: dict[str, dict[str, list[int]]] = json.loads((DATA / "state_dict_shapes.json").read_text())
SHAPES["mobileutr_9class"] = SHAPES["mobileutr"] | {"head.weight": [9, 16, 1, 1], "head.bias": [9]}


class Vector(NamedTuple):
    """One reference vector: ``key`` in the file, the network, its input's drawn channels and size."""

    key: str
    network: str
    channels: int
    size: tuple[int, ...]

    @property
    def subsample(self) -> tuple[slice, ...]:
        """Index of the stored pixels in the full logits (batch, class, sides)."""
        step = 4 if len(self.size) == 2 else 2
        return (slice(None), slice(None), *[slice(None, None, step)] * len(self.size))


def load_vectors() -> dict[Vector, np.ndarray]:
    """Returns every stored array with what it was computed for, parsed from ``<network>_<size>_c<channels>``."""
    with np.load(DATA / "vectors64.npz") as arrays:
        return {_parse(key): arrays[key] for key in arrays}


def _parse(key: str) -> Vector:
    network, size, channels = key.rsplit("_", 2)
    return Vector(key, network, int(channels.removeprefix("c")), tuple(int(side) for side in size.split("x")))


def make_weights(network: str) -> dict[str, torch.Tensor]:
    """Returns the state dict of one of the authors' networks, under their keys, in float32."""
    return {key: torch.from_numpy(_draw(key, shape)) for key, shape in SHAPES[network].items()}


def _draw(key: str, shape: list[int]) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith(".num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith(".running_var"):
        return (0.5 + generator.random(shape)).astype(np.float32)
    if key.endswith(".running_mean"):
        return (0.1 * generator.standard_normal(shape)).astype(np.float32)
    values = generator.standard_normal(shape)
    if len(shape) == 1:
        values = (1 if key.endswith("weight") else 0) + 0.1 * values
    else:
        values = values / np.sqrt(prod(shape[1:]))
    return np.asarray(values, np.float32)


def make_input(vector: Vector) -> torch.Tensor:
    """Returns the input of a vector in float32; a single channel drawn in 2D is repeated to three."""
    generator = np.random.default_rng(INPUT_SEED)
    drawn = generator.random((1, vector.channels, *vector.size), dtype=np.float32) * 2 - 1
    image = torch.from_numpy(drawn)
    return image.repeat(1, 3, 1, 1) if len(vector.size) == 2 and vector.channels == 1 else image
