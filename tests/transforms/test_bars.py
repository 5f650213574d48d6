"""Bars next to the image are cropped before the network, and masks come back at the image's own size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mobileutr_monai.readers.image_content import find_between_bars
from mobileutr_monai.transforms import CropAliked, CropBarsd


@pytest.fixture
def content() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 255, (60, 80, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("bars", "level"),
    [
        (((20, 10), (0, 0)), 0),
        (((0, 0), (15, 15)), 255),
        (((20, 20), (8, 8)), 128),
        (((0, 12), (0, 0)), 0),
    ],
)
def test_finds_the_image_between_bars_of_any_level(content: np.ndarray, bars: tuple, level: int) -> None:
    barred = np.pad(content, (*bars, (0, 0)), constant_values=level)
    top, left = bars[0][0], bars[1][0]
    assert find_between_bars(barred) == (top, left, top + 60, left + 80)


def test_bars_blurred_by_lossy_compression_are_found(content: np.ndarray) -> None:
    barred = np.pad(content, ((20, 20), (0, 0), (0, 0)))
    barred[:18] += np.random.default_rng(1).integers(0, 5, (18, 80, 3)).astype(np.uint8)
    top, _, bottom, _ = find_between_bars(barred)
    assert 18 <= top <= 20
    assert bottom == 80


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40), np.uint8),
        np.pad(np.full((60, 60), 200, np.uint8), 1),
        np.pad(np.full((5, 60), 200, np.uint8), ((60, 0), (0, 0))),
        np.pad(np.eye(60, dtype=np.float32), ((0, 0), (20, 0)))[:, ::-1][:, :60],
    ],
    ids=["constant", "thin frame", "hardly anything else", "bar of one image's content"],
)
def test_leaves_whole_what_is_no_image_between_bars(image: np.ndarray) -> None:
    assert find_between_bars(image) == (0, 0, *image.shape)


def test_inverted_the_bars_are_0_and_the_rest_in_place(content: np.ndarray) -> None:
    barred = np.pad(content, ((20, 10), (8, 4), (0, 0)))
    image = MetaTensor(torch.from_numpy(barred.transpose(2, 0, 1).astype(np.float32)))
    transform = CropBarsd("image", find_between_bars)
    done = transform({"image": image})
    assert done["image"].shape == (3, 60, 80)
    assert torch.equal(transform.inverse(done)["image"], image)


def test_a_label_is_cropped_as_its_image(content: np.ndarray) -> None:
    image = MetaTensor(torch.from_numpy(np.pad(content, ((20, 10), (0, 0), (0, 0))).transpose(2, 0, 1).copy()))
    label = MetaTensor(torch.zeros(1, 90, 80))
    label[:, 25:40, 5:30] = 1
    done = CropAliked("label")(CropBarsd("image", find_between_bars)({"image": image, "label": label}))
    assert torch.equal(done["label"], label[:, 20:80])
    assert CropAliked("label")({"label": label})["label"].shape == (1, 90, 80)
