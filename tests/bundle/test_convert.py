"""Official checkpoints written as a bundle's weights, with the preprocessing they were trained with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from mobileutr_monai.bundle.convert import convert_checkpoint, make_official_overlay
from mobileutr_monai.core.folders import overlay_path
from mobileutr_monai.networks import MobileUtr, load_weights
from mobileutr_monai.networks.weights import NetworkShape

SHAPES = json.loads((Path(__file__).parents[1] / "networks" / "data" / "state_dict_shapes.json").read_text())
COLOUR = (200, 90, 30)


def save_checkpoint(path: Path, name: str = "mobileutr") -> Path:
    torch.save({"model": {key: torch.ones(shape) for key, shape in SHAPES[name].items()}}, path)
    return path


def preprocess(breast: Path, image: Path, overlay: Path) -> torch.Tensor:
    parser = ConfigParser()
    files = ConfigParser.load_config_files([str(breast / "configs" / "inference.json"), str(overlay)])
    parser.read_config(files)
    parser.update({"bundle_root": str(breast), "image_size": [32, 32]})
    return parser.get_parsed_content("preprocessing")({"image": str(image)})["image"]


def test_writes_weights_that_load_strictly_and_no_other_file(tmp_path):
    target = tmp_path / "made" / "model.pt"
    shape = convert_checkpoint(save_checkpoint(tmp_path / "large.pth", "mobileutr_l"), target)
    assert shape == (2, 3, 1, "large")
    load_weights(MobileUtr(*shape), target)
    assert [path.name for path in target.parent.iterdir()] == ["model.pt"]


def test_the_overlay_computes_what_the_authors_do(breast, tmp_path):
    convert_checkpoint(save_checkpoint(tmp_path / "base.pth"), tmp_path / "model.pt", official_preprocessing=True)
    Image.new("RGB", (32, 32), COLOUR).save(tmp_path / "image.png")
    pixel = preprocess(breast, tmp_path / "image.png", overlay_path(tmp_path / "model.pt"))[:, 5, 7]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.array(COLOUR[::-1]) / 255 - mean) / std / 255
    assert np.allclose(pixel.numpy(), expected, rtol=1e-5)


def test_the_overlay_has_the_networks_shape():
    overlay = make_official_overlay(NetworkShape(2, 3, 9, "large"))
    assert [overlay[key] for key in ("variant", "in_channels", "out_channels")] == ["large", 3, 9]


def test_refuses_to_overwrite_the_checkpoint(tmp_path):
    source = save_checkpoint(tmp_path / "base.pth")
    before = source.read_bytes()
    (tmp_path / "link.pt").symlink_to(source)
    for target in (source, tmp_path / "link.pt"):
        with pytest.raises(ValueError, match="is the checkpoint itself; write to another file"):
            convert_checkpoint(source, target)
    assert source.read_bytes() == before


def test_writes_nothing_when_the_preprocessing_does_not_fit(tmp_path):
    source = save_checkpoint(tmp_path / "volumes.pth", "mobileutr_3d")
    with pytest.raises(ValueError, match=r"2D colour images, the checkpoint has spatial_dims 3"):
        convert_checkpoint(source, tmp_path / "model.pt", official_preprocessing=True)
    assert list(tmp_path.iterdir()) == [source]
