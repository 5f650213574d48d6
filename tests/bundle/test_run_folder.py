"""What a training leaves in its folder, and when the bundle's weights change."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from mobileutr_monai.bundle.new_bundle import make_bundle
from mobileutr_monai.core.model_settings import read_settings
from mobileutr_monai.networks import MobileUtr
from tests.bundle.training_data import save_images

SMALL = {"image_size": [32, 32], "batch_size": 2, "max_epochs": 1, "precision": "float32"}
STILL = {"learning_rate": 1e-9, "weight_decay": 0.0}
"""So small a rate that the weights stay what they are."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("data"))


@pytest.fixture
def bundle(breast: Path, tmp_path: Path) -> Path:
    return make_bundle("mine", breast, ["lesion"], tmp_path, pretrained=False).folder


def train(bundle: Path, data: Path, **overrides: Any) -> Path:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "train.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(bundle),
        dataset_dir=str(data),
        **{**SMALL, **overrides},
    )
    workflow.initialize()
    workflow.run()
    return bundle / "runs" / "train"


def test_a_run_keeps_weights_settings_log_curve_and_environment(bundle: Path, data: Path) -> None:
    run = train(bundle, data, worst_cases=2)
    names = {path.name for path in run.iterdir()}
    assert names >= {"model.pt", "model.json", "run.json", "training_log.csv", "curve.png", "cases.csv"}
    assert read_settings(run / "model.pt")["image_size"] == [32, 32]
    assert json.loads((run / "run.json").read_text())["versions"]["torch"] == torch.__version__
    assert [row["case"] for row in csv.DictReader((run / "cases.csv").open())] == ["4.png", "5.png"]
    assert Image.open(run / "worst_cases.png").size == (2 * 260, 278 + 18)
    assert not (bundle / "models" / "model.pt").exists()


def save_constant(path: Path, bias: float) -> str:
    """Writes weights that label all of an image (a high bias) or nothing of it (a low one)."""
    state = MobileUtr(2, 3, 1).state_dict()
    state["head.weight"].zero_()
    state["head.bias"].fill_(bias)
    torch.save(state, path)
    return str(path)


def test_weights_are_installed_when_there_are_none_and_when_they_are_not_worse(
    bundle: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    installed, other = bundle / "models" / "model.pt", {"output_dir": str(bundle / "runs" / "other")}
    everything, nothing = save_constant(tmp_path / "all.pt", 50), save_constant(tmp_path / "none.pt", -50)
    run = train(bundle, data, install="better", pretrained=everything, **STILL)
    assert installed.read_bytes() == (run / "model.pt").read_bytes()
    before = installed.read_bytes()
    train(bundle, data, install="better", pretrained=nothing, **STILL, **other)
    assert installed.read_bytes() == before
    assert any("on the same 2 cases: 0.0000 of this run" in text and "--install" in text for text in caplog.messages)
    caplog.clear()
    train(bundle, data, install="better", pretrained=everything, **STILL, **other)
    (said,) = [text for text in caplog.messages if "on the same 2 cases" in text]
    assert "they tie, and the later ones are taken; 2 cases can hardly tell weights apart" in said
    before = installed.read_bytes()
    train(bundle, data, install="always", pretrained=nothing, **STILL, **other)
    assert installed.read_bytes() != before
    kept = next(p for p in (bundle / "models" / "previous").glob("*.pt") if p.read_bytes() == before)
    assert read_settings(kept)["image_size"] == [32, 32]


def test_weights_of_other_settings_are_kept(bundle: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(bundle, data, install="always")
    before = (bundle / "models" / "model.pt").read_bytes()
    train(bundle, data, install="better", image_size=[48, 32], output_dir=str(bundle / "runs" / "other"))
    assert (bundle / "models" / "model.pt").read_bytes() == before
    assert any("cannot be compared" in text for text in caplog.messages)


def test_a_run_at_zero_says_so(bundle: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(bundle, data, install="better", pretrained=save_constant(tmp_path / "none.pt", -50), **STILL)
    assert any("is 0 in every epoch: the network finds nothing" in text for text in caplog.messages)
    assert not (bundle / "models" / "model.pt").exists()


def test_early_stopping_ends_a_training_that_no_longer_gains(bundle: Path, data: Path, tmp_path: Path) -> None:
    nothing = save_constant(tmp_path / "none.pt", -50)
    run = train(bundle, data, pretrained=nothing, max_epochs=6, early_stopping=2, **STILL)
    epochs = [row["epoch"] for row in csv.DictReader((run / "training_log.csv").open())]
    assert epochs == ["1", "2", "3"]
    assert (run / "model.pt").is_file()
