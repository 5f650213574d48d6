"""Smoothing of what the network says of the frames of a cine, as a stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import torch
from monai.utils import convert_to_dst_type, convert_to_tensor

__all__ = ["smooth_frames"]

# Beyond so many standard deviations a frame has no weight.
TRUNCATE = 3.0
# Probabilities end here: those of 0 and 1 have no logit.
_EPSILON = 1e-6


def smooth_frames(results: Iterable[dict[str, Any]], sigma: float) -> Iterator[dict[str, Any]]:
    """Averages the probabilities of each frame of a cine with those of its neighbours, with Gaussian weights.

    At both ends the weights of the frames that are there are scaled up. The frames go through one by one, whatever
    batches they come in, and at most ``2 * ceil(3 * sigma) + 1`` of them are held. Nothing given is changed.

    Args:
        results: of one cine, in the order of its frames: dictionaries with the logits ``pred``, of one channel for a
            sigmoid, or of several, background first, for a softmax. All else in them goes through.
        sigma: standard deviation, in frames; 0 changes nothing.

    Returns:
        as many dictionaries, ``pred`` of which are the logits of the averages.

    Shape:
        - pred: (channels, ...), the same for all frames.

    Raises:
        ValueError: ``sigma`` is negative or not finite.
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be 0 or more frames, got {sigma}")
    if sigma == 0:
        return iter(results)
    radius = math.ceil(TRUNCATE * sigma)
    return _smooth(results, [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)])


def _smooth(results: Iterable[dict[str, Any]], weights: Sequence[float]) -> Iterator[dict[str, Any]]:
    radius = len(weights) // 2
    nothing: tuple[dict[str, Any] | None, torch.Tensor | None] = (None, None)
    window = deque([nothing] * len(weights), maxlen=len(weights))
    frames = ((result, _to_probabilities(result["pred"])) for result in results)
    for frame in chain(frames, repeat(nothing, radius)):
        window.append(frame)
        centre = window[radius][0]
        if centre is not None:
            weighted = [(w, p) for w, (_, p) in zip(weights, window, strict=True) if p is not None]
            total = sum(weight for weight, _ in weighted)
            mean = sum((weight / total * p for weight, p in weighted[1:]), weighted[0][0] / total * weighted[0][1])
            yield {**centre, "pred": convert_to_dst_type(_to_logits(mean), centre["pred"])[0]}


def _to_probabilities(logits: torch.Tensor) -> torch.Tensor:
    plain: torch.Tensor = convert_to_tensor(logits, track_meta=False)
    return plain.sigmoid() if len(plain) == 1 else plain.softmax(dim=0)


def _to_logits(probabilities: torch.Tensor) -> torch.Tensor:
    if len(probabilities) == 1:
        return probabilities.logit(eps=_EPSILON)
    return probabilities.clamp(min=_EPSILON).log()
