"""Precision, recall and false positives of every image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import MetricsSaver, from_engine

from mobileutr_monai.handlers import FalsePositive, Precision, Recall

NAN = math.nan
Images = list[tuple[str, str]]

# Images as (prediction, label), a digit a pixel; precision and recall of each, and their means without NaN.
IMAGES: dict[str, tuple[Images, list[float], list[float], float, float]] = {
    "perfect": ([("0011", "0011")], [1], [1], 1, 1),
    "disjoint": ([("1100", "0011")], [0], [0], 0, 0),
    "too large": ([("1111", "0001")], [0.25], [1], 0.25, 1),
    "too small": ([("0001", "1111")], [1], [0.25], 1, 0.25),
    "mean over images, not pixels": ([("1111", "0001"), ("0001", "0001")], [0.25, 1], [1, 1], 0.625, 1),
    "empty label": ([("0110", "0000"), ("0011", "0001")], [0, 0.5], [NAN, 1], 0.25, 1),
    "empty prediction": ([("0000", "0110"), ("0011", "0001")], [NAN, 0.5], [0, 1], 0.5, 0.5),
    "both empty": ([("0000", "0000"), ("0011", "0001")], [NAN, 0.5], [NAN, 1], 0.5, 1),
}


def to_tensor(pixels: str) -> torch.Tensor:
    return torch.tensor([[[float(pixel) for pixel in pixels]]])


@pytest.fixture
def make_evaluator() -> Callable[[], Engine]:
    """Makes an engine that hands its batches, lists of images, to the two metrics."""

    def _make() -> Engine:
        engine = Engine(lambda engine, batch: batch)
        Precision(output_transform=from_engine(["pred", "label"])).attach(engine, "precision")
        Recall(output_transform=from_engine(["pred", "label"])).attach(engine, "recall")
        return engine

    return _make


@pytest.mark.parametrize(
    ("images", "precision", "recall", "mean_precision", "mean_recall"), IMAGES.values(), ids=IMAGES
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_agrees_with_a_count_by_hand(
    batch_size: int,
    images: Images,
    precision: list[float],
    recall: list[float],
    mean_precision: float,
    mean_recall: float,
    make_evaluator: Callable[[], Engine],
) -> None:
    items = [{"pred": to_tensor(pred), "label": to_tensor(label)} for pred, label in images]
    state = make_evaluator().run([items[i : i + batch_size] for i in range(0, len(items), batch_size)])
    assert state.metrics == pytest.approx({"precision": mean_precision, "recall": mean_recall})
    assert state.metric_details["precision"].flatten().tolist() == pytest.approx(precision, nan_ok=True)
    assert state.metric_details["recall"].flatten().tolist() == pytest.approx(recall, nan_ok=True)


def test_scores_every_label_of_an_image(make_evaluator: Callable[[], Engine]) -> None:
    item = {
        "pred": torch.cat([to_tensor("1100"), to_tensor("0011")]),
        "label": torch.cat([to_tensor("1000"), to_tensor("0111")]),
    }
    state = make_evaluator().run([[item]])
    assert state.metric_details["precision"].tolist() == [[0.5, 1]]
    assert state.metric_details["recall"].tolist() == [pytest.approx([1, 2 / 3])]


def test_a_new_run_forgets_the_last_one(make_evaluator: Callable[[], Engine]) -> None:
    evaluator = make_evaluator()
    for pred, precision in (("1111", 0.25), ("0001", 1)):
        state = evaluator.run([[{"pred": to_tensor(pred), "label": to_tensor("0001")}]])
        assert state.metrics["precision"] == precision


def test_monai_can_write_the_details(make_evaluator: Callable[[], Engine], tmp_path: Any) -> None:
    evaluator = make_evaluator()
    saver = MetricsSaver(
        save_dir=str(tmp_path),
        metrics="*",
        metric_details="*",
        batch_transform=lambda batch: [item["meta"] for item in batch],
        delimiter=",",
    )
    saver.attach(evaluator)
    names = [{"filename_or_obj": name} for name in ("a.png", "b.png")]
    preds = [to_tensor("1111"), to_tensor("0001")]
    evaluator.run([[{"pred": p, "label": to_tensor("0001"), "meta": m} for p, m in zip(preds, names, strict=True)]])
    rows = (tmp_path / "precision_raw.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["a.png", "b.png"]
    assert [float(row.split(",")[1]) for row in rows[1:]] == [0.25, 1]


@pytest.mark.parametrize(
    ("images", "each", "mean"),
    [
        ([("0011", "0000"), ("0000", "0000"), ("1111", "0001")], [1, 0, NAN], 0.5),
        ([("0011", "0001")], [NAN], NAN),
    ],
)
def test_false_positives_count_images_without_the_label(images: Images, each: list[float], mean: float) -> None:
    engine = Engine(lambda engine, batch: batch)
    FalsePositive(output_transform=from_engine(["pred", "label"])).attach(engine, "false_positive")
    state = engine.run([[{"pred": to_tensor(pred), "label": to_tensor(label)} for pred, label in images]])
    assert state.metrics["false_positive"] == pytest.approx(mean, nan_ok=True)
    assert state.metric_details["false_positive"].flatten().tolist() == pytest.approx(each, nan_ok=True)
