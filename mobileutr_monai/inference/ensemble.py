"""Averages over several networks and over flipped images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch.nn import functional

__all__ = ["average_probabilities", "describe_average", "flip_combinations"]


def describe_average(networks: int, flip_axes: Sequence[int]) -> str:
    """Returns what results are the mean of, for the report; nothing for one network without flips."""
    several = f"{networks} networks" if networks > 1 else ""
    return " and ".join(filter(None, (several, "mirror images" if flip_axes else "")))


def average_probabilities(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the logits of the mean of probabilities, so that sigmoid or softmax gives that mean.

    Shape:
        - logits: (B, C, sides...) each; one channel stands for a sigmoid, several for a softmax.
    """
    stacked = torch.stack(list(logits))
    if stacked.shape[2] == 1:
        log_odds: torch.Tensor = functional.logsigmoid(stacked).logsumexp(0) - functional.logsigmoid(
            -stacked
        ).logsumexp(0)
        return log_odds
    return functional.log_softmax(stacked, dim=2).logsumexp(0)


def flip_combinations(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yields every set of the axes, the empty one first: (), (0,), (1,), (0, 1) of 0 and 1."""
    for count in range(len(axes) + 1):
        yield from combinations(axes, count)
