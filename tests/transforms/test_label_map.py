"""Label maps from probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mobileutr_monai.inference.pieces import keep_largest_pieces
from mobileutr_monai.transforms import ProbabilitiesToLabelMap, ProbabilitiesToLabelMapd, label_map

# Probabilities of four columns (channel, row, column), the threshold, and the row of labels.
PROBABILITIES: dict[str, tuple[Any, float, list[float]]] = {
    "threshold counts": (torch.tensor([[[0.0, 0.49, 0.5, 1.0]]]), 0.5, [0, 0, 1, 1]),
    "other threshold": (torch.tensor([[[0.0, 0.25, 0.5, 1.0]]]), 0.25, [0, 1, 1, 1]),
    "array": (np.array([[[0.0, 0.49, 0.5, 1.0]]]), 0.5, [0, 0, 1, 1]),
    "bfloat16": (torch.tensor([[[0.0, 0.25, 0.5, 1.0]]], dtype=torch.bfloat16), 0.5, [0, 0, 1, 1]),
    "highest channel": (
        torch.tensor([[[0.6, 0.2, 0.1, 0.4]], [[0.3, 0.7, 0.1, 0.3]], [[0.1, 0.1, 0.8, 0.3]]]),
        0.5,
        [0, 1, 2, 0],
    ),
    "no threshold for several": (torch.tensor([[[0.9, 0.6, 0.4, 0.1]], [[0.1, 0.4, 0.6, 0.9]]]), 0.95, [0, 0, 1, 1]),
}


@pytest.mark.parametrize(("probabilities", "threshold", "labels"), PROBABILITIES.values(), ids=PROBABILITIES)
def test_decides_by_probability(probabilities: Any, threshold: float, labels: list[float]) -> None:
    label = ProbabilitiesToLabelMap(threshold)(probabilities)
    assert label.dtype == torch.float32
    assert label.tolist() == [[labels]]


# Of one channel, and of background and two labels: the second one peaks at 0.8.
PEAKS = {
    "reached": (PROBABILITIES["threshold counts"][0], 1.0, [0, 0, 1, 1]),
    "not reached": (torch.tensor([[[0.0, 0.6, 0.94, 0.5]]]), 0.95, [0, 0, 0, 0]),
    "one label of two": (PROBABILITIES["highest channel"][0], 0.75, [0, 0, 2, 0]),
}


@pytest.mark.parametrize(("probabilities", "min_peak", "labels"), PEAKS.values(), ids=PEAKS)
def test_leaves_out_labels_that_are_never_probable(probabilities: Any, min_peak: float, labels: list[float]) -> None:
    assert ProbabilitiesToLabelMap(min_peak=min_peak)(probabilities).tolist() == [[labels]]


def test_rejects_a_peak_that_is_no_probability() -> None:
    with pytest.raises(ValueError, match="min_peak must be from 0 to 1, got 95"):
        ProbabilitiesToLabelMap(min_peak=95)


def test_cleans_the_label_map() -> None:
    probabilities = torch.tensor([[[0.9, 0.1, 0.8, 0.8], [0.1, 0.1, 0.8, 0.1]]])
    label = ProbabilitiesToLabelMap(clean=keep_largest_pieces)(probabilities)
    assert label.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 0]]]


def test_keeps_the_largest_piece_of_each_label() -> None:
    label = np.array([[1, 0, 2, 0, 1, 1], [0, 1, 0, 2, 0, 0], [2, 2, 0, 0, 0, 0]], np.uint8)
    kept = keep_largest_pieces(label)
    assert kept.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0]]
    assert not keep_largest_pieces(np.zeros((3, 3), np.uint8)).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    values = torch.rand(channels, 7, 5, 3)
    whole = ProbabilitiesToLabelMap()(values)
    monkeypatch.setattr(label_map, "_PIXELS_AT_ONCE", 31)
    assert torch.equal(ProbabilitiesToLabelMap()(values), whole)
    assert 0 < whole.mean() < channels


ARRAY, DICTIONARY = ProbabilitiesToLabelMap(0.25), ProbabilitiesToLabelMapd(keys="label", threshold=0.25)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(4, 6), (4, 6, 3)], ids=["2D", "3D"])
class TestBothForms:
    def test_keep_metadata_and_input(self, channels: int, size: tuple[int, ...]) -> None:
        affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
        values = MetaTensor(torch.rand(channels, *size), affine=affine, meta={"filename_or_obj": "a.png"})
        before = values.clone()
        label = ARRAY(values)
        assert isinstance(label, MetaTensor) and label.shape == (1, *size)
        assert torch.equal(label.affine, values.affine) and label.meta["filename_or_obj"] == "a.png"
        assert torch.equal(values, before)

    def test_give_the_same(self, channels: int, size: tuple[int, ...]) -> None:
        data = {"label": torch.rand(channels, *size), "image": torch.rand(1)}
        result = DICTIONARY(data)
        assert torch.equal(result["label"], ARRAY(data["label"]))
        assert result["image"] is data["image"] and result["label"] is not data["label"]


def test_a_missing_key_is_an_error_unless_allowed() -> None:
    data = {"label": torch.zeros(1, 2, 2)}
    with pytest.raises(KeyError, match="other"):
        ProbabilitiesToLabelMapd(keys=["label", "other"])(data)
    assert list(ProbabilitiesToLabelMapd(keys=["label", "other"], allow_missing_keys=True)(data)) == ["label"]


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 127, float("nan")])
@pytest.mark.parametrize("make", [ProbabilitiesToLabelMap, lambda value: ProbabilitiesToLabelMapd("pred", value)])
def test_rejects_a_threshold_that_is_no_probability(make: Any, threshold: float) -> None:
    with pytest.raises(ValueError, match=f"threshold must be between 0 and 1, got {threshold}"):
        make(threshold)
