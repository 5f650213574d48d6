"""Means over several networks and over flips: of probabilities, in the runner, with its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from mobileutr_monai.__main__ import main
from mobileutr_monai.inference.ensemble import average_probabilities, flip_combinations
from mobileutr_monai.networks import MobileUtr, load_weights


@pytest.mark.parametrize(("channels", "activate"), [(1, torch.sigmoid), (3, lambda x: x.softmax(1))])
def test_the_logits_are_those_of_the_mean_probability(channels, activate):
    generator = torch.Generator().manual_seed(0)
    logits = [10 * torch.randn(2, channels, 4, 5, generator=generator) for _ in range(3)]
    expected = torch.stack([activate(one) for one in logits]).mean(0)
    torch.testing.assert_close(activate(average_probabilities(logits)), expected)


def test_every_combination_of_axes_is_flipped():
    assert list(flip_combinations([0, 1])) == [(), (0,), (1,), (0, 1)]
    assert list(flip_combinations([])) == [()]


@pytest.mark.parametrize("options", [(), ("--tta",)])
def test_a_calibrated_confidence_is_of_one_network_without_flips(
    options: tuple[str, ...], breast: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    name = "benign (391).jpg"
    (tmp_path / "images" / name).write_bytes((breast / "sample_data" / "images" / name).read_bytes())
    out = tmp_path / "out"
    command = ["predict", str(breast), str(tmp_path / "images"), "--output", str(out), "--workers", "0", "--no-page"]
    assert main([*command, *options]) == 0
    (row,) = csv.DictReader((out / "report.csv").open(newline=""))
    assert (row["confidence"] == "", "mean of mirror images" in row["detail"]) == (bool(options), bool(options))


def save_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(MobileUtr(2, 3, 1).state_dict(), path)
    return path


def test_predict_averages_networks_and_flips(breast: Path, tmp_path: Path) -> None:
    weights = [save_weights(tmp_path / f"{seed}.pt", seed) for seed in (0, 1)]
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "one.png")
    out = tmp_path / "out"
    command = ["predict", str(breast), str(tmp_path / "images"), "--output", str(out), "--workers", "0", "--no-page"]
    command += ["--tta", "--set", "image_size=[32,48]", "--weights", *map(str, weights)]
    assert main(command) == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["options"]["networks"], report["options"]["flip_axes"]) == (2, [1])

    (row,) = csv.DictReader((out / "report.csv").open(newline=""))
    assert "mean of 2 networks and mirror images; confidence is not calibrated for that" in row["detail"]
    assert row["confidence"] == ""

    parser = ConfigParser()
    parser.read_config(str(breast / "configs" / "inference.json"))
    parser.read_meta(str(breast / "configs" / "metadata.json"))
    parser.update({"image_size": [32, 48]})
    segmenter = parser.get_parsed_content("segmenter")
    image = segmenter.reader.read([tmp_path / "images" / "one.png"])
    probabilities = []
    for path in weights:
        load_weights(segmenter.network, path)
        network = segmenter.network.eval()
        batch = torch.as_tensor(image["image"])[None]
        with torch.inference_mode():
            probabilities += [network(batch).sigmoid(), network(batch.flip(3)).sigmoid().flip(3)]
    expected = torch.stack(probabilities).mean(0)[0, 0].numpy() >= 0.5
    found = np.asarray(Image.open(out / "one_mask.png")) > 0
    assert (found == expected).mean() > 0.999
