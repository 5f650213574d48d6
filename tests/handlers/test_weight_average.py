"""Exponential moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from mobileutr_monai.handlers import WeightAverage

STEPS = 30
Weights = dict[str, torch.Tensor]


def make_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def copy_of(network: nn.Module) -> Weights:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return make_network().train()


@pytest.fixture
def average() -> nn.Module:
    torch.manual_seed(1)
    return make_network()


@pytest.fixture
def history() -> list[Weights]:
    """The model's weights after every step, filled by the trainer."""
    return []


@pytest.fixture
def trainer(model: nn.Module, history: list[Weights]) -> Engine:
    """Changes weights and running statistics in every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(engine: Engine, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(batch).pow(2).sum().backward()
        optimizer.step()
        history.append(copy_of(model))

    return Engine(step)


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return list(torch.randn(STEPS, 2, 1, 4, 4, generator=torch.Generator().manual_seed(2)))


def test_starts_from_weights_that_an_earlier_handler_loads(model: nn.Module, average: nn.Module) -> None:
    loaded = copy_of(make_network())
    engine = Engine(lambda engine, batch: engine.terminate())
    engine.add_event_handler(Events.STARTED, lambda: model.load_state_dict(loaded))
    WeightAverage(model, average, momentum=0.1).attach(engine)
    seen: list[Weights] = []
    engine.add_event_handler(Events.STARTED, lambda: seen.append(copy_of(average)))
    engine.run([0])
    assert same(seen[0], loaded)


def test_does_not_start_again_when_training_is_resumed(model: nn.Module, average: nn.Module) -> None:
    before = copy_of(average)
    engine = Engine(lambda engine, batch: None)
    engine.load_state_dict({"iteration": 6, "max_epochs": 2, "epoch_length": 3})
    WeightAverage(model, average, momentum=0.1).attach(engine)
    seen: list[Weights] = []
    engine.add_event_handler(Events.STARTED, lambda: seen.append(copy_of(average)))
    engine.run([0, 1, 2], max_epochs=3)
    assert same(seen[0], before)


@pytest.mark.parametrize("momentum", [0.005, 0.5, 1.0])
def test_is_the_weighted_sum_of_what_the_model_was(
    momentum: float,
    trainer: Engine,
    batches: list[torch.Tensor],
    model: nn.Module,
    average: nn.Module,
    history: list[Weights],
) -> None:
    first = copy_of(model)
    WeightAverage(model, average, momentum).attach(trainer)
    trainer.run(batches, max_epochs=1)

    # Unrolled: step i counts with its share times what all later steps leave of it.
    shares = [max(momentum, 9 / (9 + step)) for step in range(1, STEPS + 1)]
    left = [1.0]
    for share in reversed(shares):
        left.insert(0, left[0] * (1 - share))
    counts = [left[0]] + [share * rest for share, rest in zip(shares, left[1:], strict=True)]
    assert sum(counts) == pytest.approx(1)
    names = [name for name, value in first.items() if value.is_floating_point()]
    assert {"0.weight", "1.running_mean", "1.running_var"} <= set(names)
    for name in names:
        expected = sum(count * weights[name].double() for count, weights in zip(counts, [first, *history], strict=True))
        torch.testing.assert_close(average.state_dict()[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_copies_counters(trainer: Engine, batches: list[torch.Tensor], model: nn.Module, average: nn.Module) -> None:
    WeightAverage(model, average, momentum=0.005).attach(trainer)
    trainer.run(batches, max_epochs=1)
    assert average.state_dict()["1.num_batches_tracked"] == STEPS


def test_leaves_the_model_alone_and_keeps_the_average_fixed(
    trainer: Engine, batches: list[torch.Tensor], model: nn.Module, average: nn.Module, history: list[Weights]
) -> None:
    WeightAverage(model, average.train(), momentum=0.005).attach(trainer)
    trainer.run(batches, max_epochs=1)
    assert same(copy_of(model), history[-1])
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert not average.training and not any(parameter.requires_grad for parameter in average.parameters())


@pytest.mark.parametrize("momentum", [0, -0.1, 1.5])
def test_rejects_a_momentum_that_is_no_share(momentum: float, model: nn.Module, average: nn.Module) -> None:
    with pytest.raises(ValueError, match=rf"momentum must be in \(0, 1\], got {momentum}"):
        WeightAverage(model, average, momentum)
