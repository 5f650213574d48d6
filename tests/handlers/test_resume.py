"""A training that was interrupted and resumed ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import copy
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanDice, ValidationHandler, from_engine
from monai.losses import DiceCELoss
from monai.transforms import Activationsd, Compose, RandFlipd, RandGaussianNoised, RandScaleIntensityd, ScaleIntensityd
from torch import nn

from mobileutr_monai.handlers import EpochLog, EpochSeed, TrainingCheckpoint, WeightAverage
from mobileutr_monai.transforms import ProbabilitiesToLabelMapd

EPOCHS, BATCH_SIZE = 4, 2


class KilledError(Exception):
    """Stands for what ends a training early."""


def make_network() -> nn.Module:
    """Has what a state may be forgotten of: weights, running statistics, dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 1, 3, padding=1)
    )


def make_items(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return [{"image": image, "label": (image > 0.6).float()} for image in images]


def make_trainer(folder: Path, num_workers: int, resume: bool = False) -> SupervisedTrainer:
    """Builds a training as the bundles' ``train`` config does, handlers in the same order."""
    torch.manual_seed(99 if resume else 0)  # nothing of a resumed run may come from how its objects start
    network = make_network()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.01)
    preprocessing = Compose(
        [
            ScaleIntensityd("image"),
            RandFlipd(["image", "label"], prob=0.5),
            RandScaleIntensityd("image", factors=0.3, prob=0.5),
            RandGaussianNoised("image", std=0.1, prob=0.5),
        ]
    )
    loader = DataLoader(
        CacheDataset(make_items(6, seed=1), preprocessing, num_workers=1, progress=False),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=EPOCHS * len(loader))
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(make_items(2, seed=2), batch_size=BATCH_SIZE),
        network=average,
        postprocessing=Compose([Activationsd("pred", sigmoid=True), ProbabilitiesToLabelMapd("pred")]),
        key_val_metric={"val_mean_dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
    )
    state = {"network": network, "average_network": average, "optimizer": optimizer, "lr_scheduler": scheduler}
    return SupervisedTrainer(
        device="cpu",
        max_epochs=EPOCHS,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(sigmoid=True),
        train_handlers=[
            EpochSeed(seed=0, transform=preprocessing),
            WeightAverage(network, average, momentum=0.005),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ValidationHandler(interval=1, validator=evaluator, epoch_level=True),
            EpochLog(folder / "training_log.csv", optimizer, evaluator),
            TrainingCheckpoint(folder, state, average, evaluator, "val_mean_dice", resume),
        ],
    )


def kill() -> None:
    raise KilledError


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "training_log.csv").open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def find_difference(first: Any, second: Any, where: str = "") -> str | None:
    """Returns the path to the first value that differs in two checkpoints, or None."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return None if torch.equal(first, second) else where
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return next((at for key in first if (at := find_difference(first[key], second[key], f"{where}/{key}"))), None)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return find_difference(dict(enumerate(first)), dict(enumerate(second)), where)
    return None if first == second else where


@pytest.mark.parametrize("num_workers", [0, 1])
# Between two epochs, and within one, when its first step has changed everything.
@pytest.mark.parametrize("event", [Events.EPOCH_STARTED(once=3), Events.ITERATION_COMPLETED(once=7)])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(event: Any, num_workers: int, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make_trainer(whole, num_workers).run()

    killed = make_trainer(parts, num_workers)
    killed.add_event_handler(event, kill)
    with pytest.raises(KilledError):
        killed.run()
    assert len(read_log(parts)) == 2 and not (parts / "model.pt").exists()
    make_trainer(parts, num_workers, resume=True).run()

    for name in ("training/last.pt", "training/best.pt", "model.pt"):
        expected, resumed = (torch.load(folder / name, weights_only=True) for folder in (whole, parts))
        assert find_difference(expected, resumed) is None, name
    assert read_log(parts) == read_log(whole)


def test_the_training_is_one_in_which_forgetting_shows(tmp_path: Path) -> None:
    make_trainer(tmp_path, num_workers=0).run()
    log = read_log(tmp_path)
    assert [row["epoch"] for row in log] == ["1", "2", "3", "4"]
    for column in ("loss", "learning_rate", "val_mean_dice"):
        assert len({row[column] for row in log}) == EPOCHS
    last = torch.load(tmp_path / "training" / "last.pt", weights_only=True)
    assert set(last) == {"network", "average_network", "optimizer", "lr_scheduler", "trainer", "best_score"}
    assert find_difference(last["network"], last["average_network"]) is not None
