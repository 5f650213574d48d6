"""Gain, marks and dark corners: what they change, and what they leave as it is."""

from __future__ import annotations

import pytest
import torch

from mobileutr_monai.transforms import (
    RandDarkCorners,
    RandDarkCornersd,
    RandDepthGain,
    RandDepthGaind,
    RandGainField,
    RandGainFieldd,
    RandMarks,
    RandMarksd,
)

PAIRS = [
    (RandDepthGain, RandDepthGaind),
    (RandGainField, RandGainFieldd),
    (RandMarks, RandMarksd),
    (RandDarkCorners, RandDarkCornersd),
]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("array", "dictionary"), PAIRS)
def test_the_dictionary_form_does_what_the_array_form_does(array: type, dictionary: type, image: torch.Tensor) -> None:
    expected = array(prob=1.0).set_random_state(5)(image)
    done = dictionary("image", prob=1.0)
    done.set_random_state(5)
    assert torch.equal(done({"image": image})["image"], expected)
    assert not torch.equal(expected, image)


@pytest.mark.parametrize("array", [pair[0] for pair in PAIRS])
def test_the_range_of_the_image_is_kept(array: type, image: torch.Tensor) -> None:
    transform = array(prob=1.0).set_random_state(0)
    for _ in range(10):
        done = transform(image)
        assert done.shape == image.shape
        assert done.min() >= image.min() - 1e-5
        assert done.max() <= image.max() + 1e-5


@pytest.mark.parametrize("array", [pair[0] for pair in PAIRS])
def test_nothing_is_changed_with_probability_0(array: type, image: torch.Tensor) -> None:
    assert array(prob=0.0)(image) is image


def test_depth_gain_is_the_same_along_a_row() -> None:
    transform = RandDepthGain(prob=1.0).set_random_state(1)
    image = torch.ones(1, 32, 32)
    image[:, 0, 0] = 0
    image[:, 0, 1] = 10
    rows = transform(image)[0, 1:]
    assert torch.allclose(rows, rows[:, :1].expand_as(rows))
    assert (rows[0, 0] - rows[-1, 0]).abs() > 0.01


def test_marks_are_few_pixels_of_one_bright_level(image: torch.Tensor) -> None:
    done = RandMarks(prob=1.0).set_random_state(2)(image)
    changed = (done != image).any(0)
    assert 0 < changed.float().mean() < 0.2
    assert len(done[:, changed].unique()) == 1


def test_corners_are_darker_than_the_middle() -> None:
    transform = RandDarkCorners(prob=1.0).set_random_state(2)
    image = torch.ones(1, 64, 64)
    image[:, 32, 32] = 0
    done = transform(image)
    assert done[0, 0, 0] < 0.2
    assert done[0, 30, 30] > 0.99
