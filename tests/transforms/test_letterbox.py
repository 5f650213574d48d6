"""Random bars: where the image lies, what the bars hold, and that image and label stay together."""

from __future__ import annotations

import pytest
import torch

from mobileutr_monai.transforms import RandLetterbox, RandLetterboxd


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0)) + 1


def test_the_image_is_squeezed_into_a_box_and_the_rest_is_one_level(image: torch.Tensor) -> None:
    transform = RandLetterbox(prob=1.0, min_share=0.5, black=1.0).set_random_state(3)
    done = transform(image)
    assert done.shape == image.shape
    rows, columns = (round(side * share) for side, share in zip(image.shape[1:], transform.shares, strict=True))
    outside = torch.isclose(done, image.min()).all(0)
    assert outside.sum() == 64 * 48 - rows * columns > 0


def test_other_bars_have_a_level_within_the_range(image: torch.Tensor) -> None:
    transform = RandLetterbox(prob=1.0, min_share=0.5, black=0.0).set_random_state(3)
    corner = transform(image)[0, 0, 0]
    assert transform.places != (0.0, 0.0)
    assert image.min() < corner < image.max()


def test_label_and_image_get_the_same_box() -> None:
    label = torch.zeros(1, 64, 64)
    label[:, 16:48, 16:48] = 1
    transform = RandLetterboxd(["image", "label"], prob=1.0, min_share=0.5).set_random_state(1)
    for _ in range(8):
        done = transform({"image": label.clone(), "label": label})
        assert set(done["label"].unique().tolist()) <= {0.0, 1.0}
        assert ((done["image"] > 0.5) == (done["label"] > 0.5)).float().mean() > 0.97


def test_nothing_is_changed_with_probability_0(image: torch.Tensor) -> None:
    assert RandLetterbox(prob=0.0)(image) is image


def test_rejects_a_share_of_0() -> None:
    with pytest.raises(ValueError, match="min_share must be in"):
        RandLetterbox(min_share=0)
