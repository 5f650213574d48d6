"""How unlike the training images a preprocessed image is, from some statistics of its pixels; no engine matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch.nn import functional as F

__all__ = ["TrainingDomain", "describe_image", "name_statistics"]

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
NEAR_EXTREME = 0.02
"""Pixels count as black or white within this share of the image's range from its lowest or highest value."""
SCALES = {2: (1, 4, 16), 3: (1, 2, 4)}
"""By the number of dimensions: sides of the squares or cubes over which an image is averaged before its gradients."""
BANDS = 4
MOST_SAMPLES = 2**21
"""Of a larger image, quantiles and shares are those of every second, third ... pixel."""

# Added before a logarithm is taken: what is less hardly matters.
_LEAST_SHARE, _LEAST_GRADIENT, _LEAST_DEVIATION = 0.003, 0.01, 0.05


def name_statistics(channels: int, dimensions: int) -> list[str]:
    """Returns the names of what ``describe_image`` measures, in its order."""
    names = [f"quantile {share}" for share in QUANTILES] + ["log share of black", "log share of white"]
    names += [f"log gradient, axis {axis}, scale {scale}" for scale in SCALES[dimensions] for axis in range(dimensions)]
    names += [f"mean, axis {axis}, band {band}" for axis in range(dimensions) for band in range(BANDS)]
    names += ["mean of the middle"]
    for channel in range(1, channels):
        names += [f"{what} of channels {channel - 1} and {channel}" for what in ("mean difference", "log deviation")]
    return names


def describe_image(image: torch.Tensor) -> np.ndarray:
    """Returns statistics of an image as the network sees it.

    They are quantiles of the grey values, the shares of black and white, the gradients along each axis at three scales,
    the means of four bands along each axis and of the middle, and how much the colour channels differ.

    Shape:
        - image: (channels, rows, columns) or (channels, x, y, z).
        - output: (statistics,).
    """
    plain = convert_to_tensor(image, track_meta=False).detach().cpu().to(torch.float32)
    grey = plain.mean(dim=0)
    values = _describe_values(grey.numpy().ravel()[:: 1 + grey.numel() // MOST_SAMPLES])
    average, grid_of = (
        (F.avg_pool2d, F.adaptive_avg_pool2d) if grey.ndim == 2 else (F.avg_pool3d, F.adaptive_avg_pool3d)
    )
    for scale in SCALES[grey.ndim]:
        small = average(grey[None, None], [min(scale, side) for side in grey.shape])[0, 0]
        for axis in range(grey.ndim):
            square = float(small.diff(dim=axis).square().mean()) if small.shape[axis] > 1 else 0.0
            values.append(0.5 * float(np.log(square + _LEAST_GRADIENT**2)))
    grid = grid_of(grey[None, None], BANDS)[0, 0]
    for axis in range(grey.ndim):
        values += grid.mean(dim=[other for other in range(grey.ndim) if other != axis]).tolist()
    values.append(float(grid[(slice(1, -1),) * grey.ndim].mean()))
    for first, second in pairwise(plain):
        difference = first - second
        values += [float(difference.mean()), float(np.log(float(difference.std()) + _LEAST_DEVIATION))]
    return np.array(values)


def _describe_values(pixels: np.ndarray) -> list[float]:
    low, high = float(pixels.min()), float(pixels.max())
    near = NEAR_EXTREME * (high - low)
    shares = [float((pixels <= low + near).mean()), float((pixels >= high - near).mean())]
    return [*np.quantile(pixels, QUANTILES).tolist(), *(float(np.log(share + _LEAST_SHARE)) for share in shares)]


@dataclass(frozen=True)
class TrainingDomain:
    """The statistics of the training images, and how far from them an image may be.

    Attributes:
        statistics: their names; those of ``name_statistics``.
        mean: of each statistic.
        precision: inverse of their covariance, one text per row with its numbers.
        max_distance: a larger Mahalanobis distance is unlike the training images.
    """

    statistics: Sequence[str]
    mean: Sequence[float]
    precision: Sequence[str]
    max_distance: float

    def __post_init__(self) -> None:
        count = len(self.statistics)
        rows = [len(row.split()) for row in self.precision]
        if len(self.mean) != count or rows != [count] * count:
            raise ValueError(f"{count} statistics need as many means and rows and columns of precision, got {rows}")
        if self.max_distance <= 0:
            raise ValueError(f"max_distance must be more than 0, got {self.max_distance}")

    def measure_distance(self, image: torch.Tensor) -> float:
        """Returns the Mahalanobis distance of an image's statistics from those of the training images.

        Shape:
            - image: (channels, rows, columns) or (channels, x, y, z).

        Raises:
            ValueError: the calibration was made with other statistics.
        """
        if list(self.statistics) != name_statistics(len(image), image.ndim - 1):
            raise ValueError("the calibration has other statistics of the image; fit it with calibrate_bundle.py")
        return self.distance_of(describe_image(image))

    def distance_of(self, statistics: np.ndarray) -> float:
        """Returns the Mahalanobis distance of what ``describe_image`` returned."""
        offset = statistics - np.array(self.mean)
        matrix = np.array([row.split() for row in self.precision], dtype=np.float64)
        return float(np.sqrt(max(0.0, offset @ matrix @ offset)))
