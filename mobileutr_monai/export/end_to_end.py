"""A 2D network with its pre- and postprocessing in one graph: pixels of any size in, label map of that size out.

It computes what a bundle's transforms do (MONAI's ``Resized`` with ``anti_aliasing``, ``NormalizeIntensityd`` of the
whole image, sigmoid or softmax, the inverse ``Resized``, threshold or largest). Resizing an axis is linear, Gaussian
smoothing against aliasing too, so that each axis is one matrix, made in the graph from the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Resized,
    Transposed,
)
from torch import nn

from mobileutr_monai.transforms import CropBarsd

__all__ = ["EndToEndModel", "check_preprocessing"]

_STEPS = (LoadImaged, EnsureChannelFirstd, Transposed, Resized, NormalizeIntensityd, EnsureTyped)
_TRUNCATED = 4.0  # of MONAI's GaussianFilter, in standard deviations


class EndToEndModel(nn.Module):
    """Segments one image of 8-bit pixels.

    Args:
        network: gives logits of images of ``image_size``.
        image_size: rows and columns that the network sees.
        threshold: probability at and above which a pixel is foreground, of one output channel.
        min_peak: a label whose highest probability is lower is left out.
        with_probabilities: also return the probabilities, for programs that let the user move the threshold.

    Shape:
        - input: (rows, columns, channels), uint8.
        - output: (rows, columns), uint8: label indices.
        - probabilities: (output channels, rows, columns), float32.
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: Sequence[int],
        threshold: float,
        min_peak: float = 0.0,
        *,
        with_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.image_size = network, tuple(image_size)
        self.threshold, self.min_peak = threshold, min_peak
        self.with_probabilities = with_probabilities

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        probabilities = self._find_probabilities(pixels)
        label = self._find_label(probabilities)
        return (label, probabilities) if self.with_probabilities else label

    def _find_probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        image = pixels.permute(2, 0, 1).to(torch.float32)
        sides = [torch.arange(image.shape[axis], device=pixels.device).to(torch.float32) for axis in (1, 2)]
        seen = [torch.arange(side, device=pixels.device).to(torch.float32) for side in self.image_size]
        smooth = torch.maximum(*(_ratio(own, given) for own, given in zip(sides, seen, strict=True))) > 1
        rows, columns = (_resizing(own, given, smooth) for own, given in zip(sides, seen, strict=True))
        image = rows @ image @ columns.T
        deviation = image.std(correction=0)
        image = (image - image.mean()) / torch.where(deviation == 0, torch.ones_like(deviation), deviation)
        logits = self.network(image[None])[0]
        probabilities = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=0)
        rows, columns = (_resizing(given, own, smooth & False) for own, given in zip(sides, seen, strict=True))
        return rows @ probabilities @ columns.T

    def _find_label(self, probabilities: torch.Tensor) -> torch.Tensor:
        label = probabilities[0] >= self.threshold if len(probabilities) == 1 else probabilities.argmax(dim=0)
        if self.min_peak:
            label = label.long()
            counts = probabilities.amax((1, 2)) >= self.min_peak
            counts = torch.cat([torch.zeros_like(counts[:1]), counts]) if len(counts) == 1 else counts
            label = torch.where(counts[label], label, torch.zeros_like(label))
        return label.to(torch.uint8)


def _ratio(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns how many positions of the source one of the target stands for."""
    return torch.ones_like(source).sum() / torch.ones_like(target).sum()


def _resizing(source: torch.Tensor, target: torch.Tensor, smooth: torch.Tensor) -> torch.Tensor:
    """Returns the matrix that resizes an axis linearly, if asked after smoothing it against aliasing.

    Args:
        source, target: positions 0, 1 ... of the axis before and after.
        smooth: whether any axis of the image gets smaller.

    Shape:
        - output: (target, source).
    """
    ratio = _ratio(source, target)
    places = ((target + 0.5) * ratio - 0.5).clamp(min=0)
    lower = places.floor()
    upper = torch.minimum(lower + 1, torch.ones_like(source).sum() - 1)
    share = (places - lower)[:, None]
    sigma = torch.where(smooth, ((ratio - 1) / 2).clamp(min=0), torch.zeros_like(ratio))
    return (1 - share) * _gaussian(lower, source, sigma) + share * _gaussian(upper, source, sigma)


def _gaussian(middles: torch.Tensor, source: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Returns a row of MONAI's Gaussian kernel around each middle; of sigma 0 that is the middle alone."""
    distance = source[None] - middles[:, None]
    tail = (torch.clamp(sigma * _TRUNCATED, min=0.5) + 0.5).floor()
    scale = 0.70710678 / torch.clamp(sigma, min=1e-6)
    weights = 0.5 * (torch.erf(scale * (distance + 0.5)) - torch.erf(scale * (distance - 0.5)))
    return torch.where(distance.abs() <= tail, weights.clamp(min=0), torch.zeros_like(weights))


def check_preprocessing(preprocessing: Compose, image_size: Sequence[int]) -> None:
    """Checks that a bundle's preprocessing is the one that ``EndToEndModel`` does.

    Whoever runs the model crops bars before it, and keeps the largest pieces after it.

    Raises:
        ValueError: it is another one.
    """
    steps = [step for step in preprocessing.transforms if not isinstance(step, CropBarsd)]
    found = ", ".join(type(step).__name__ for step in steps)
    if len(steps) != len(_STEPS) or not all(isinstance(s, kind) for s, kind in zip(steps, _STEPS, strict=True)):
        raise ValueError(
            f"--end-to-end knows {', '.join(kind.__name__ for kind in _STEPS)}, the bundle has {found}; export without "
            "--end-to-end"
        )
    resize, scale = steps[3], steps[4].normalizer
    plain = (scale.subtrahend, scale.divisor, scale.nonzero, scale.channel_wise) == (None, None, False, False)
    if not (plain and tuple(resize.mode) == ("bilinear",) and tuple(resize.anti_aliasing) == (True,)):
        raise ValueError(
            "--end-to-end knows bilinear Resized with anti_aliasing and NormalizeIntensityd of the whole image; the "
            "bundle has other settings; export without --end-to-end"
        )
    if tuple(resize.resizer.spatial_size) != tuple(image_size):
        raise ValueError(f"Resized has {resize.resizer.spatial_size}, image_size is {image_size}; make them the same")
