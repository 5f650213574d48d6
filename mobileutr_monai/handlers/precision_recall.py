"""Precision, recall and false positives of every image.

MONAI's ``ConfusionMatrix`` pools the pixels of all images, or keeps four counts an image that ``MetricsSaver`` (1.6.1)
cannot write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction

__all__ = ["FalsePositive", "Precision", "Recall"]


class _OverlapRatio(CumulativeIterationMetric):
    """True positives over a count of pixels, for each image and label; without such pixels it is NaN and not averaged.

    Args:
        of_label: whether the label's pixels are counted, or the predicted ones.
        include_background: whether the first channel is a label like the others.

    Shape:
        - pred and label: (B, C, ...), zeros and ones.
    """

    def __init__(self, of_label: bool, include_background: bool) -> None:
        super().__init__()
        self.of_label, self.include_background = of_label, include_background

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("precision and recall need a label")
        if not self.include_background:
            y_pred, y = y_pred[:, 1:], y[:, 1:]
        hits = (y_pred * y).flatten(2).sum(-1)
        whole = (y if self.of_label else y_pred).flatten(2).sum(-1)
        return torch.where(whole > 0, hits / whole, torch.nan)

    def aggregate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Returns the mean over images and labels."""
        mean: torch.Tensor = do_metric_reduction(self.get_buffer(), "mean")[0]
        return mean


class _PredictedWhereNone(CumulativeIterationMetric):
    """1 where a label that an image lacks is predicted, 0 where it is not; NaN, and not averaged, where it is there.

    Args:
        include_background: whether the first channel is a label like the others.

    Shape:
        - pred and label: (B, C, ...), zeros and ones.
    """

    def __init__(self, include_background: bool) -> None:
        super().__init__()
        self.include_background = include_background

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("false positives need a label")
        if not self.include_background:
            y_pred, y = y_pred[:, 1:], y[:, 1:]
        found, there = (part.flatten(2).sum(-1) > 0 for part in (y_pred, y))
        return torch.where(there, torch.nan, found.float())

    def aggregate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Returns the mean over images and labels; NaN where no image lacks one."""
        buffer = self.get_buffer()
        if not isinstance(buffer, torch.Tensor):
            raise ValueError("no image was counted")
        return buffer.nanmean()


class Precision(IgniteMetricHandler):
    """Mean over images of the share of predicted pixels in the label; images without prediction do not count."""

    def __init__(self, include_background: bool = True, output_transform: Callable = lambda output: output) -> None:
        super().__init__(_OverlapRatio(False, include_background), output_transform=output_transform)


class Recall(IgniteMetricHandler):
    """Mean over images of the share of the label's pixels that are predicted; images without label do not count."""

    def __init__(self, include_background: bool = True, output_transform: Callable = lambda output: output) -> None:
        super().__init__(_OverlapRatio(True, include_background), output_transform=output_transform)


class FalsePositive(IgniteMetricHandler):
    """Share of the images without a label in which it is predicted, a pixel at least; images with it do not count."""

    def __init__(self, include_background: bool = True, output_transform: Callable = lambda output: output) -> None:
        super().__init__(_PredictedWhereNone(include_background), output_transform=output_transform)
