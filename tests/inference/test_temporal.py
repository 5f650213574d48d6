"""Averages over the frames of a cine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from mobileutr_monai.inference.temporal import smooth_frames


def make_results(frames: int, channels: int = 1) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "pred": MetaTensor(3 * torch.randn((channels, 4, 5), generator=generator), meta={"frame": frame}),
            "image": frame,
        }
        for frame in range(frames)
    ]


def to_probabilities(logits: torch.Tensor) -> torch.Tensor:
    plain = torch.as_tensor(logits)
    return plain.sigmoid() if len(plain) == 1 else plain.softmax(dim=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("frames", [1, 2, 3, 30])
def test_averages_probabilities_with_gaussian_weights_up_to_both_ends(channels: int, sigma: float, frames: int) -> None:
    results = make_results(frames, channels)
    probabilities = torch.stack([to_probabilities(result["pred"]) for result in results])
    smoothed = list(smooth_frames(iter(results), sigma))
    assert len(smoothed) == frames
    for centre, result in enumerate(smoothed):
        steps = torch.arange(frames) - centre
        weights = torch.exp(-0.5 * (steps / sigma) ** 2) * (steps.abs() <= math.ceil(3 * sigma))
        expected = (weights[:, None, None, None] * probabilities).sum(0) / weights.sum()
        torch.testing.assert_close(to_probabilities(result["pred"]), expected, atol=1e-5, rtol=1e-4)


def test_no_width_changes_nothing() -> None:
    results = make_results(3)
    assert [id(result) for result in smooth_frames(results, 0)] == [id(result) for result in results]


def test_a_cine_that_does_not_change_keeps_its_probabilities() -> None:
    logits = torch.tensor([[-40.0, -3.0, 0.0, 3.0, 40.0]])
    for result in smooth_frames([{"pred": logits}] * 9, 1.5):
        torch.testing.assert_close(result["pred"].sigmoid(), logits.sigmoid(), atol=2e-6, rtol=0)
        assert result["pred"].isfinite().all()


def test_changes_nothing_given_and_keeps_all_else() -> None:
    results = make_results(5)
    before = [result["pred"].clone() for result in results]
    smoothed = list(smooth_frames(results, 1))
    assert all(torch.equal(result["pred"], old) for result, old in zip(results, before, strict=True))
    assert [result["image"] for result in smoothed] == [0, 1, 2, 3, 4]
    assert [result["pred"].meta["frame"] for result in smoothed] == [0, 1, 2, 3, 4]
    assert not torch.equal(smoothed[2]["pred"], before[2])


def test_holds_a_window_of_frames_only() -> None:
    taken = 0

    def count() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for result in make_results(50):
            taken += 1
            yield result

    for given, _ in enumerate(smooth_frames(count(), 1), start=1):
        assert taken == min(50, given + 3)


def test_a_frame_depends_on_no_frame_beyond_its_window() -> None:
    results = make_results(20)
    whole = list(smooth_frames(results, 1))
    part = list(smooth_frames(results[:10], 1))
    assert all(torch.equal(a["pred"], b["pred"]) for a, b in zip(whole[:7], part[:7], strict=True))
    assert not torch.equal(whole[7]["pred"], part[7]["pred"])


def test_what_the_frames_raise_comes_through() -> None:
    def fail() -> Iterator[dict[str, Any]]:
        yield from make_results(2)
        raise ValueError("frame 2 cannot be decoded")

    with pytest.raises(ValueError, match="frame 2"):
        list(smooth_frames(fail(), 1))


@pytest.mark.parametrize("sigma", [-1.0, math.inf, math.nan])
def test_rejects_a_width_that_is_none(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be 0 or more"):
        smooth_frames([], sigma)
