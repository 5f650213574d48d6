"""Randomness that an interrupted training finds again."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose

__all__ = ["EpochSeed"]


class EpochSeed:
    """Seeds torch (shuffling, drop path) and the transforms at the start of every epoch by seed and epoch.

    An epoch then depends on nothing but the state it starts from, so a run resumed from a checkpoint is exactly as
    the uninterrupted one.
    """

    def __init__(self, seed: int, transform: Compose) -> None:
        self.seed = seed
        self.transform = transform

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + engine.state.epoch
        torch.manual_seed(seed)
        self.transform.set_random_state(seed)
