"""Sampling of training cases from several data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["weigh_cases"]


def weigh_cases(items: Sequence[Mapping[str, Any]], shares: Mapping[str, float]) -> list[float]:
    """Returns each case's weight, so that a sampler draws the data sets by their shares.

    Args:
        items: cases of a datalist; ``set`` names a case's data set.
        shares: data set -> its share of the cases drawn; they need not add up to 1. Without shares all weights are 1.

    Raises:
        ValueError: a case names no data set, or one without a share, or a data set has no case.
    """
    if not shares:
        return [1.0] * len(items)
    counts = Counter(item.get("set", "") for item in items)
    if unknown := sorted(counts.keys() - shares.keys()):
        raise ValueError(
            f"set_shares has no share for the data set {unknown[0]!r}; the datalist's sets are {sorted(counts)}"
        )
    if missing := sorted(shares.keys() - counts.keys()):
        raise ValueError(
            f"no training case is of the data set {missing[0]!r} of set_shares; the sets are {sorted(counts)}"
        )
    return [shares[item["set"]] / counts[item["set"]] for item in items]
