"""A step whose gradients are not finite does not reach the weights."""

from __future__ import annotations

import logging

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

    def attach(self, engine: Engine) -> None:
        if getattr(engine, "scaler", None) is None:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check)

    def _start(self, engine: Engine) -> None:
        self.in_a_row = 0

    def _check(self, engine: Engine) -> None:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        if nn.utils.get_total_norm(gradients).isfinite():
            self.in_a_row = 0
            return
        self.in_a_row += 1
        step = f"step {engine.state.iteration} of epoch {engine.state.epoch}"
        if self.in_a_row == self.limit:
            raise RuntimeError(
                f"{self.limit} steps in a row had no finite gradients, up to {step}: lower learning_rate, "
                "or set precision to float32"
            )
        logger.warning("%s is left out: its gradients are not finite", step)
        for parameter in self.model.parameters():
            parameter.grad = None
