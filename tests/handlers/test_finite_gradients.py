"""Steps without finite gradients do not reach the weights."""

from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from mobileutr_monai.handlers import FiniteGradients

NAN, INFINITY = float("nan"), float("inf")


def train(inputs: list[float], limit: int = 10, guarded: bool = True, fused: bool = False) -> list[float]:
    """Weights of ``input * weight`` after each step; the gradient is the input."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
    weights: list[float] = []
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.tensor([[value]]), "label": torch.zeros(1, 1)} for value in inputs],
        network=network,
        optimizer=optimizer,
        loss_function=lambda output, _: output.sum(),
        train_handlers=[FiniteGradients(network, limit)] if guarded else None,
    )
    trainer.logger.setLevel(logging.CRITICAL)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: weights.append(network.weight.item()))
    trainer.run()
    return weights


both_optimizers = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


@both_optimizers
@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
def test_a_step_without_finite_gradients_is_left_out(bad, fused, caplog):
    with caplog.at_level(logging.WARNING):
        first, second, third = train([1.0, bad, 1.0], fused=fused)
    assert first == second
    assert third < second
    assert caplog.messages == ["step 2 of epoch 1 is left out: its gradients are not finite"]


@both_optimizers
def test_finite_steps_are_what_they_were(fused):
    steps = [1.0, 2.0, -0.5, 1.0]
    assert train(steps, fused=fused) == train(steps, guarded=False, fused=fused)


@both_optimizers
def test_training_that_stays_without_finite_gradients_ends_with_an_error(fused):
    with pytest.raises(RuntimeError, match="3 steps in a row had no finite gradients, up to step 4 of epoch 1: lower"):
        train([1.0, NAN, NAN, NAN, 1.0], limit=3, fused=fused)


@both_optimizers
def test_steps_in_a_row_are_counted_anew_after_a_finite_one(fused):
    assert train([NAN, NAN, 1.0, NAN, NAN, 1.0], limit=3, fused=fused)[-1] < 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ValueError, match="limit must be at least 1"):
        FiniteGradients(nn.Linear(1, 1), limit)
