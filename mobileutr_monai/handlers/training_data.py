"""What a training has to learn from, said before it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.utils.data import DataLoader

__all__ = ["TrainingData"]

logger = logging.getLogger(__name__)


class TrainingData:
    """Says how many cases a training has, how many steps an epoch, and which cases each epoch leaves out.

    Args:
        loader: of the training; where its data set caches the cases, their labels are looked at.

    Raises:
        ValueError: at the start of training, when no case has anything labelled.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._say)

    def _say(self, engine: Engine) -> None:
        dataset: Any = self.loader.dataset
        cases, batch_size = len(dataset), self.loader.batch_size or 1
        # Of several processes each has its part.
        sampler: Any = self.loader.sampler
        part = len(sampler) if hasattr(sampler, "__len__") else cases
        rest = part % batch_size if self.loader.drop_last else 0
        logger.info("%d cases, batches of %d: %d steps per epoch", cases, batch_size, len(self.loader))
        if rest:
            logger.warning(
                "%d of %d cases, others in each epoch, do not fill a batch and are left out of it; a batch_size that "
                "divides %d uses all",
                *(rest, part, part),
            )
        labels = [case["label"] for case in _cached(dataset) if "label" in case]
        empty = sum(not bool(torch.as_tensor(label).any()) for label in labels)
        if labels and empty == len(labels):
            raise ValueError(
                f"none of the {cases} training labels has any foreground: there is nothing to learn; check the masks "
                "with mobileutr check, and mask_coding"
            )
        if empty:
            logger.info("%d of %d training labels are empty", empty, len(labels))


def _cached(dataset: Any) -> Sequence[dict[str, Any]]:
    """Returns the cases that a ``CacheDataset`` keeps, as far as their deterministic transforms go; none of others."""
    cases = getattr(dataset, "_cache", None) or ()
    return [case for case in cases if isinstance(case, dict)]
