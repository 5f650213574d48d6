"""What a training has to learn from, said before it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

__all__ = ["TrainingData"]

logger = logging.getLogger(__name__)


class TrainingData:
    """Says how many cases a training has, how many steps an epoch, and which cases each epoch leaves out.

    Args:
        dataset: of the training; where it caches its cases, their labels are looked at.
        batch_size: cases of a step.
        drop_last: whether an epoch leaves out the cases that do not fill a batch.

    Raises:
        ValueError: at the start of training, when no case has anything labelled.
    """

    def __init__(self, dataset: Any, batch_size: int, drop_last: bool) -> None:
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._say)

    def _say(self, engine: Engine) -> None:
        cases = len(self.dataset)
        rest = cases % self.batch_size if self.drop_last else 0
        steps = -(-(cases - rest) // self.batch_size)
        logger.info("%d cases, batches of %d: %d steps per epoch", cases, self.batch_size, steps)
        if rest:
            logger.warning(
                "%d of %d cases, others in each epoch, do not fill a batch and are left out of it; a batch_size that "
                "divides %d uses all",
                *(rest, cases, cases),
            )
        labels = [case["label"] for case in _cached(self.dataset) if "label" in case]
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
