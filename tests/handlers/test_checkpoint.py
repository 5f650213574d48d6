"""Checkpoints that survive a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from mobileutr_monai.handlers import TrainingCheckpoint

Train = Callable[..., TrainingCheckpoint]


@pytest.fixture
def ckpt_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def train(ckpt_dir: Path) -> Train:
    """Trains a network whose weight is the number of epochs behind it, with given scores of the epochs."""

    def _train(
        scores: Sequence[float | None],
        resume: bool = False,
        epochs: int | None = None,
        **options: bool,
    ) -> TrainingCheckpoint:
        network = nn.Linear(1, 1)
        nn.init.zeros_(network.weight)
        # The score of installed weights is the weight itself.
        evaluator = Engine(lambda engine, batch: None)
        evaluator.run = lambda: evaluator.state.metrics.update(val_mean_dice=network.weight.item())
        trainer = Engine(lambda engine, batch: network.weight.data.add_(1))

        def validate(engine: Engine) -> None:
            evaluator.state.metrics = {"val_mean_dice": scores[engine.state.epoch - 1]}

        trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        handler = TrainingCheckpoint(
            ckpt_dir, {"network": network}, network, evaluator, "val_mean_dice", resume, **options
        )
        handler.attach(trainer)
        trainer.run([0], max_epochs=epochs or len(scores))
        return handler

    return _train


def interrupt(train: Train, scores: Sequence[float], epochs: int) -> None:
    """Trains until the scores have run out."""
    with pytest.raises(IndexError):
        train(scores, epochs=epochs)


def weight_in(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["weight"])


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.3, 0.2, 0.1], 1),
        ([0.1, 0.2, 0.3], 3),
        ([0.1, 0.3, 0.3], 2),
        ([0.0, 0.0], 1),
        ([float("nan"), 0.1, float("nan")], 2),
        ([None, 0.1, 0.0], 2),
        ([np.float32(0.1), np.float32(0.3), np.float32(0.2)], 2),
        ([torch.tensor(0.1), torch.tensor([0.3]), torch.tensor(0.2)], 2),
        ([0, 1, 0], 2),
    ],
)
def test_keeps_the_best_epoch_and_the_last(scores: list[float], best: int, train: Train, ckpt_dir: Path) -> None:
    train(scores)
    assert weight_in(ckpt_dir / "model.pt") == weight_in(ckpt_dir / "training" / "best.pt") == best
    last = torch.load(ckpt_dir / "training" / "last.pt", weights_only=True)
    assert last["network"]["weight"].item() == len(scores)
    assert last["trainer"]["iteration"] == len(scores)


def test_leaves_no_temporary_files(train: Train, ckpt_dir: Path) -> None:
    train([0.1, 0.2])
    assert files_in(ckpt_dir) == ["model.pt", "training/best.pt", "training/last.pt"]


def test_moves_the_weights_of_before_away(train: Train, ckpt_dir: Path) -> None:
    ckpt_dir.mkdir()
    (ckpt_dir / "model.pt").write_bytes(b"shipped")
    train([0.1, 0.2])
    (previous,) = (ckpt_dir / "previous").iterdir()
    assert previous.name == f"model_{hashlib.sha256(b'shipped').hexdigest()[:12]}.pt"
    assert previous.read_bytes() == b"shipped"
    assert weight_in(ckpt_dir / "model.pt") == 2


def test_there_are_weights_at_every_moment(train: Train, ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads ``model.pt`` while it is replaced finds the old ones or the new ones."""
    ckpt_dir.mkdir()
    (ckpt_dir / "model.pt").write_bytes(b"shipped")
    save, seen = torch.save, []

    def note(content: Any, file: Any) -> None:
        seen.append((ckpt_dir / "model.pt").read_bytes())
        save(content, file)

    monkeypatch.setattr(torch, "save", note)
    train([0.1, 0.2])
    assert set(seen) == {b"shipped"}
    assert weight_in(ckpt_dir / "model.pt") == 2


@pytest.mark.parametrize(
    ("installed", "scores", "kept"), [(0.5, [0.1, 0.4], 0.5), (0.5, [0.5], 1), (0.5, [0.6], 1), (None, [0.1], 1)]
)
def test_worse_weights_are_not_installed_where_only_better_ones_are(
    train: Train, ckpt_dir: Path, caplog: pytest.LogCaptureFixture, installed: float | None, scores: list, kept: float
) -> None:
    ckpt_dir.mkdir()
    if installed is not None:
        torch.save({"weight": torch.full((1, 1), installed), "bias": torch.zeros(1)}, ckpt_dir / "model.pt")
    with caplog.at_level("INFO"):
        train(scores, only_better=True)
    assert weight_in(ckpt_dir / "model.pt") == kept
    last = torch.load(ckpt_dir / "training" / "last.pt", weights_only=True)
    assert last["network"]["weight"].item() == len(scores)  # training began with its own weights
    said = f"{installed:.4f} before training and {max(scores):.4f} after it" if installed else "best epoch's weights"
    assert said in caplog.text


def test_worse_weights_that_are_installed_all_the_same_are_told_with_both_scores(
    train: Train, ckpt_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ckpt_dir.mkdir()
    torch.save({"weight": torch.full((1, 1), 0.5), "bias": torch.zeros(1)}, ckpt_dir / "model.pt")
    with caplog.at_level("INFO"):
        train([0.1], score_installed=True)
    assert weight_in(ckpt_dir / "model.pt") == 1
    assert "installed: val_mean_dice is 0.5000 before training and 0.1000 after it" in caplog.text


def test_leaves_the_weights_of_before_until_training_has_finished(train: Train, ckpt_dir: Path) -> None:
    ckpt_dir.mkdir()
    (ckpt_dir / "model.pt").write_bytes(b"shipped")
    interrupt(train, [0.1, 0.2], epochs=3)
    assert weight_in(ckpt_dir / "training" / "best.pt") == 2
    assert (ckpt_dir / "model.pt").read_bytes() == b"shipped"


def test_a_failed_write_leaves_the_last_checkpoint(
    train: Train, ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(train, [0.5, 0.4], epochs=3)
    last = ckpt_dir / "training" / "last.pt"
    before = last.read_bytes()

    def fill_the_disk(content: Any, file: Any) -> None:
        file.write(b"PK half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        train([0.5, 0.4, 0.3], resume=True)
    assert last.read_bytes() == before
    monkeypatch.undo()
    train([0.5, 0.4, 0.3], resume=True)
    assert torch.load(last, weights_only=True)["network"]["weight"].item() == 3


def test_remembers_the_best_score_when_resumed(train: Train, ckpt_dir: Path) -> None:
    interrupt(train, [0.1, 0.5], epochs=3)
    handler = train([0.1, 0.5, 0.3], resume=True)
    assert handler.best_score == 0.5
    assert weight_in(ckpt_dir / "model.pt") == 2


def test_takes_a_better_score_when_resumed(train: Train, ckpt_dir: Path) -> None:
    interrupt(train, [0.1, 0.5], epochs=3)
    handler = train([0.1, 0.5, 0.7], resume=True)
    assert handler.best_score == 0.7
    assert weight_in(ckpt_dir / "model.pt") == 3


def test_refuses_to_resume_with_another_number_of_epochs(train: Train, ckpt_dir: Path) -> None:
    interrupt(train, [0.1, 0.5], epochs=3)
    with pytest.raises(ValueError, match="max_epochs=3, which its schedule depends on, not 4"):
        train([0.1, 0.5, 0.7, 0.8], resume=True)


def test_a_fresh_run_starts_from_nothing(train: Train, ckpt_dir: Path) -> None:
    train([0.9, 0.9, 0.9])
    train([0.1, 0.2])
    assert weight_in(ckpt_dir / "training" / "earlier_best.pt") == 1
    assert weight_in(ckpt_dir / "model.pt") == 2
    assert torch.load(ckpt_dir / "training" / "last.pt", weights_only=True)["best_score"] == 0.2


@pytest.mark.parametrize("score", [None, float("nan")])
def test_does_not_install_what_another_run_left(
    score: float | None, train: Train, ckpt_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train([0.1, 0.9])
    train([score])
    assert weight_in(ckpt_dir / "model.pt") == 2
    assert not (ckpt_dir / "previous").exists()
    assert "no epoch has a value of val_mean_dice" in caplog.text


def test_names_the_file_when_there_is_nothing_to_resume(train: Train, ckpt_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"nothing to resume: {ckpt_dir}/training/last.pt does not exist"):
        train([0.1], resume=True)


def test_a_second_run_of_the_same_objects_installs_its_own_best(ckpt_dir: Path) -> None:
    network, scores = nn.Linear(1, 1), iter([0.9, 0.2])
    nn.init.zeros_(network.weight)
    evaluator = Engine(lambda engine, batch: None)
    trainer = Engine(lambda engine, batch: network.weight.data.add_(1))
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: evaluator.state.metrics.update(val_mean_dice=next(scores))
    )
    TrainingCheckpoint(ckpt_dir, {"network": network}, network, evaluator, "val_mean_dice").attach(trainer)
    for rounds in (1, 2):  # as MonaiAlgo does
        trainer.state.max_epochs = rounds
        trainer.run([0], max_epochs=rounds)
        assert weight_in(ckpt_dir / "model.pt") == rounds


def test_a_metric_of_several_numbers_is_named(train: Train) -> None:
    with pytest.raises(ValueError, match="not one number; name another metric"):
        train([np.array([0.1, 0.2])])


@pytest.mark.parametrize("name", ["runs ::3", "a::b"])
def test_a_folder_that_the_parser_has_renamed_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"contains '::', which monai\.bundle run also makes of '#'"):
        TrainingCheckpoint(str(tmp_path / name), {}, nn.Linear(1, 1), Engine(lambda engine, batch: None), "dice")
    TrainingCheckpoint(tmp_path / name, {}, nn.Linear(1, 1), Engine(lambda engine, batch: None), "dice")
