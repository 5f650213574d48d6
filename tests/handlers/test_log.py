"""Progress and history of a training run."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from mobileutr_monai.handlers import EpochLog, ProgressBar

STEPS = 2
Rows = list[dict[str, str]]
Run = Callable[..., Rows]


def read_rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "eval" / "training_log.csv"


@pytest.fixture
def run(path: Path) -> Run:
    """Runs epochs whose loss is the epoch's number, then that plus 1, and returns the log without the seconds."""

    def _run(last: int, done: int = 0, scores: Mapping[int, float] | None = None) -> Rows:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
        evaluator = Engine(lambda engine, batch: None)
        # As MONAI's trainer has it: a dictionary per image, each with the batch's loss.
        trainer = Engine(lambda engine, batch: [{"loss": engine.state.epoch + batch}] * 3)

        def validate(engine: Engine) -> None:
            if scores is None or engine.state.epoch in scores:
                evaluator.state.epoch = engine.state.epoch
                evaluator.state.metrics = {"val_mean_dice": (scores or {}).get(engine.state.epoch, 0.5)}

        trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        EpochLog(path, optimizer, evaluator).attach(trainer)
        if done:
            trainer.load_state_dict({"iteration": done * STEPS, "max_epochs": last, "epoch_length": STEPS})
        trainer.run([0.0, 1.0], max_epochs=last)
        rows = read_rows(path)
        for row in rows:
            assert float(row.pop("seconds")) >= 0
        return rows

    return _run


def test_writes_a_row_an_epoch(run: Run) -> None:
    assert run(2, scores={1: 0.123456789, 2: 0.75}) == [
        {"epoch": "1", "loss": "1.5", "learning_rate": "0.002", "val_mean_dice": "0.12346"},
        {"epoch": "2", "loss": "2.5", "learning_rate": "0.002", "val_mean_dice": "0.75"},
    ]


def test_a_resumed_run_adds_to_the_file(run: Run) -> None:
    whole = run(4)
    run(2)
    assert run(4, done=2) == whole


def test_an_epoch_that_is_run_again_is_there_once(run: Run) -> None:
    whole = run(4)
    run(3)  # killed between the log and the checkpoint of epoch 3
    assert run(4, done=2) == whole


def test_a_fresh_run_overwrites_the_file(run: Run) -> None:
    run(4)
    assert [row["epoch"] for row in run(2)] == ["1", "2"]


@pytest.mark.parametrize("done", [0, 2])
def test_an_epoch_without_validation_has_no_metrics(run: Run, done: int) -> None:
    scores = {2: 0.25, 4: 0.75}
    if done:
        run(done, scores=scores)
    rows = run(5, done=done, scores=scores)
    assert [row["val_mean_dice"] for row in rows] == ["", "0.25", "", "0.75", ""]


def test_a_resumed_run_without_file_starts_one(run: Run) -> None:
    assert [row["epoch"] for row in run(4, done=2)] == ["3", "4"]


def test_the_bar_spans_the_run_and_shows_the_loss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    trainer = Engine(lambda engine, batch: [{"loss": 0.25}])
    ProgressBar().attach(trainer)
    trainer.run([0, 1], max_epochs=3)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "epoch=3/3" in shown and "loss=0.250" in shown


def test_without_a_terminal_each_epoch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Engine(lambda engine, batch: [{"loss": 0.25}])
    ProgressBar().attach(trainer)
    trainer.run([0, 1], max_epochs=2)
    assert capsys.readouterr().err.splitlines() == ["epoch 1/2, loss 0.250", "epoch 2/2, loss 0.250"]


def test_the_bar_does_not_swallow_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(engine: Engine, batch: int) -> None:
        raise RuntimeError("out of memory")

    trainer = Engine(fail)
    ProgressBar().attach(trainer)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.run([0])
