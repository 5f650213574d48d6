"""What the 2D bundles do to images and masks, through the breast ultrasound bundle's own objects."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image


def make_parser(breast, name="inference", **overrides):
    parser = ConfigParser()
    parser.read_config(str(breast / "configs" / f"{name}.json"))
    parser.update({"bundle_root": str(breast), **overrides})
    return parser


@pytest.fixture(scope="module")
def preprocessing(breast):
    return make_parser(breast).get_parsed_content("preprocessing")


def test_network_sees_rows_and_columns_as_people_do(breast, tmp_path):
    pixels = np.zeros((32, 64), np.uint8)
    pixels[4:12, 40:56] = 200  # upper right
    Image.fromarray(pixels).save(tmp_path / "image.png")
    preprocessing = make_parser(breast, image_size=[32, 64], crop_bars=False).get_parsed_content("preprocessing")
    image = preprocessing({"image": str(tmp_path / "image.png")})["image"]
    assert tuple(image.shape) == (3, 32, 64)
    assert np.array_equal(image[0].numpy() > 0, pixels > 0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_image_and_label_load_from_every_pixel_mode(breast, tmp_path, mode, suffix):
    if suffix == "jpg" and mode in ("RGBA", "P", "1"):
        pytest.skip("JPEG has no such mode")
    sample = next(iter(sorted((breast / "sample_data" / "images").iterdir())))
    with Image.open(sample) as image:
        image.convert(mode).save(tmp_path / f"image.{suffix}", **({"quality": 95} if suffix == "jpg" else {}))
        size = image.size
    preprocessing = make_parser(breast).get_parsed_content("preprocessing")
    tensor = preprocessing({"image": str(tmp_path / f"image.{suffix}")})["image"]
    assert tuple(tensor.shape) == (3, 256, 256)
    assert tensor.dtype == torch.float32
    assert tuple(tensor.meta["spatial_shape"]) == size
    assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("foreground", [1, 255])
def test_masks_of_either_coding_give_one_label(breast, tmp_path, foreground):
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24, 16:56] = 1
    Image.fromarray(mask * foreground).save(tmp_path / "mask.png")
    parser = make_parser(breast, "train", image_size=[64, 64])
    label = parser.get_parsed_content("label_transforms")
    data = {"label": [str(tmp_path / "mask.png")]}
    for transform in label:
        data = transform(data)
    assert np.array_equal(data["label"][0].numpy(), mask)


def test_training_and_inference_prepare_images_alike(breast):
    train, inference = (json.loads((breast / "configs" / f"{n}.json").read_text()) for n in ("train", "inference"))
    for name in ("image_transforms", "image_reader", "intensity", "image_size", "network_def", "threshold"):
        assert train[name] == inference[name]
