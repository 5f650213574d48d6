"""A step whose gradients are not finite does not reach the weights."""

from __future__ import annotations

import logging

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

__all__ = ["FiniteGradients"]

logger = logging.getLogger(__name__)


class FiniteGradients:
    """Drops the gradients of a step in which one is NaN or infinite, so the optimiser leaves all weights as they are.

    One such step ends a training: every weight becomes NaN. It was seen once, in bfloat16 on a CPU: the gradient of a
    single 3D convolution was NaN, those of the layers before it were not. A ``GradScaler`` (MONAI's ``amp``) does the
    same for float16 on a GPU, so under one this handler does nothing.

    A fused optimiser leaves such a step out by itself (PyTorch's contract with ``GradScaler``), so a GPU is not waited
    for; the steps are then told, and counted, at the end of the epoch.

    Args:
        model: the network that is trained.
        limit: steps in a row without finite gradients after which training ends with an error.
    """

    def __init__(self, model: nn.Module, limit: int = 10) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit!r}")
        self.model = model
        self.limit = limit
        self.in_a_row = 0
        self._infinite: list[torch.Tensor] = []  # of the epoch's steps under a fused optimiser, 1 or 0, on their device

    def attach(self, engine: Engine) -> None:
        if getattr(engine, "scaler", None) is None:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._count_epoch)

    def _start(self, engine: Engine) -> None:
        self.in_a_row = 0
        self._infinite = []

    def _check(self, engine: Engine) -> None:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        finite = nn.utils.get_total_norm(gradients).isfinite()
        optimizer = engine.optimizer  # type: ignore[attr-defined]  # of MONAI's trainers
        # How torch's own GradScaler tells fused optimisers; one without the attribute is stepped over as any other.
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = (~finite).float()
            self._infinite.append(optimizer.found_inf)
        elif not self._count(bool(finite), engine.state.iteration, engine.state.epoch):
            for parameter in self.model.parameters():
                parameter.grad = None

    def _count_epoch(self, engine: Engine) -> None:
        if self._infinite:
            first = engine.state.iteration - len(self._infinite) + 1
            for step, infinite in enumerate(torch.stack(self._infinite).tolist(), first):
                self._count(not infinite, step, engine.state.epoch)
        self._infinite = []

    def _count(self, finite: bool, iteration: int, epoch: int) -> bool:
        """Returns whether a step was finite; tells of one that was not, and ends training at the limit."""
        self.in_a_row = 0 if finite else self.in_a_row + 1
        step = f"step {iteration} of epoch {epoch}"
        if self.in_a_row == self.limit:
            raise RuntimeError(
                f"{self.limit} steps in a row had no finite gradients, up to {step}: lower learning_rate, "
                "or set precision to float32"
            )
        if not finite:
            logger.warning("%s is left out: its gradients are not finite", step)
        return finite
