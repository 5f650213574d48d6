"""What a training says before it starts."""

from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset
from torch.utils.data import DataLoader

from mobileutr_monai.handlers import TrainingData


def start(labels: list[torch.Tensor], batch_size: int, drop_last: bool) -> None:
    dataset = CacheDataset([{"label": label} for label in labels], transform=lambda case: case, progress=False)
    engine = Engine(lambda engine, batch: None)
    TrainingData(DataLoader(dataset, batch_size=batch_size, drop_last=drop_last)).attach(engine)
    engine.run([0], max_epochs=1)


SOME, NONE = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)


def test_an_incomplete_batch_that_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        start([SOME] * 13 + [NONE], 8, drop_last=True)
    assert "14 cases, batches of 8: 1 steps per epoch" in caplog.text
    assert "6 of 14 cases, others in each epoch, do not fill a batch and are left out of it" in caplog.text
    assert "1 of 14 training labels are empty" in caplog.text


def test_nothing_is_said_where_all_cases_are_used(caplog: pytest.LogCaptureFixture) -> None:
    start([SOME] * 14, 8, drop_last=False)
    start([SOME] * 16, 8, drop_last=True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_labels_without_any_foreground_end_the_training() -> None:
    with pytest.raises(ValueError, match="none of the 3 training labels has any foreground: there is nothing to learn"):
        start([NONE] * 3, 2, drop_last=False)
