"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Keeps a moving average of a network's weights and running statistics in another instance of it.

    It differs from ignite's ``EMAHandler`` (0.5.5) in three points, each of which cost Dice or reproducibility: batch
    norm's statistics are averaged too (averaged weights with the latest statistics gave empty masks early in training);
    the warm-up depends on the iteration alone, so it does not start again when training is resumed; the first copy is
    taken when training starts, after whatever loads weights (MONAI Label adds a ``CheckpointLoader``).

    torch's ``AveragedModel(use_buffers=True)`` averages the statistics too, but copies the network when it is made,
    before weights are loaded, and counts its own steps, so that a resumed training would copy again; its update is used
    here.

    Place it behind such handlers.

    Args:
        model: the network that is trained, bare or wrapped for several processes.
        average: another instance of the bare network, which holds the average.
        momentum: share of the newest step in the average, after a warm-up in which it is higher.
    """

    def __init__(self, model: nn.Module, average: nn.Module, momentum: float) -> None:
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum!r}")
        self.model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.average = average.requires_grad_(False).eval()
        self.momentum = momentum
        # The tensors themselves, averages and what they follow: values, and counters of batches.
        self._values: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        self._counters: list[tuple[torch.Tensor, torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._copy)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _copy(self, engine: Engine) -> None:
        newest, average = self.model.state_dict(), self.average.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        self._values = [average[name] for name in floating], [newest[name] for name in floating]
        self._counters = [(average[name], newest[name]) for name in average.keys() - floating]
        if engine.state.iteration == 0:
            self.average.load_state_dict(newest)

    @torch.no_grad()
    def _update(self, engine: Engine) -> None:
        share = max(self.momentum, 9 / (9 + engine.state.iteration))
        average, newest = self._values
        get_ema_multi_avg_fn(1 - share)(average, newest, None)
        for counter, value in self._counters:
            counter.copy_(value)
