"""Masks of any declared coding through MONAI's own loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from mobileutr_monai.datasets.mask_reader import MaskReader
from mobileutr_monai.datasets.masks import MaskCoding

PIXELS = np.zeros((4, 6), np.uint8)
PIXELS[0, 2:] = 255


@pytest.fixture
def masks(tmp_path: Path) -> list[str]:
    paths = []
    for name, values in (("a.png", PIXELS), ("b.png", PIXELS[::-1])):
        Image.fromarray(values).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    return paths


def load(paths: list[str], **options: object) -> np.ndarray:
    return LoadImage(reader=MaskReader(**options), image_only=True)(paths).numpy()


def test_gives_a_label_map_of_columns_and_rows_as_monai_does(masks: list[str]) -> None:
    label = load(masks)
    assert np.array_equal(label.T, (PIXELS > 0) + 2 * (PIXELS[::-1] > 0))
    pillow = LoadImage(reader="PILReader", image_only=True)(masks[0])
    read = LoadImage(reader=MaskReader(), image_only=True)(masks[0])
    assert np.array_equal(read, pillow > 0)
    assert read.dtype == pillow.dtype
    assert read.meta["spatial_shape"].tolist() == pillow.meta["spatial_shape"].tolist()
    assert read.meta["filename_or_obj"] == masks[0]


@pytest.mark.parametrize("coding", ["0/255", {"kind": "values", "values": {"0": 0, "255": 1}}, MaskCoding()])
def test_takes_a_coding_in_every_form(coding: object, masks: list[str]) -> None:
    assert np.array_equal(load(masks[:1], coding=coding).T, PIXELS > 0)


def test_refuses_more_labels_than_the_network_has(masks: list[str]) -> None:
    assert load(masks, labels=2).max() == 2
    with pytest.raises(ValueError, match=r"a\.png has label 2, but the network has 1; give it more output channels"):
        load(masks, labels=1)


def test_what_is_wrong_is_said_in_one_line(masks: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^mask .*a\.png has values that the coding 0=0,1=1 lacks: 255; [^\n]*$"):
        load(masks, coding="0=0,1=1")
