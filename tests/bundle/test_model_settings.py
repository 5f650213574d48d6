"""Settings that stay with the weights: used by the verbs, compared by ``monai.bundle run``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from mobileutr_monai.__main__ import main
from mobileutr_monai.bundle.new_bundle import make_bundle
from mobileutr_monai.core.model_settings import compare_settings, read_settings, write_settings
from mobileutr_monai.monai_label.workspace import Workspace
from mobileutr_monai.networks import MobileUtr

TRAINED = {"variant": "large", "in_channels": 1, "out_channels": 1, "image_size": [32, 48], "crop_to_tissue": False}


@pytest.fixture(scope="module")
def bundle(breast: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose weights were trained with other settings than those of its configs."""
    made = make_bundle("mine", breast, ["lesion"], tmp_path_factory.mktemp("bundles"), pretrained=False).folder
    save_weights(made / "models" / "model.pt")
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 36), np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    return folder


def save_weights(path: Path) -> None:
    torch.manual_seed(0)
    torch.save(MobileUtr(2, 1, 1, "large").state_dict(), path)
    write_settings(path, TRAINED)


def predict(bundle: Path, images: Path, output: Path, *options: str) -> int:
    return main(["predict", str(bundle), str(images), "--output", str(output), "--workers", "0", "--no-page", *options])


def test_predict_uses_the_settings_of_the_weights(bundle: Path, images: Path, tmp_path: Path) -> None:
    assert predict(bundle, images, tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["settings"]["image_size"], report["settings"]["variant"]) == ([32, 48], "large")


def test_predict_uses_the_settings_of_other_weights(breast: Path, images: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "run.pt")
    assert predict(breast, images, tmp_path / "out", "--weights", str(tmp_path / "run.pt")) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["image_size"] == [32, 48]


def test_monai_bundle_run_refuses_other_settings(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(tmp_path / "out"),
        workers=0,
    )
    workflow.initialize()
    with pytest.raises(SystemExit) as stopped:
        workflow.run()
    assert stopped.value.code == 2
    assert '--variant "large" --in_channels 1 --image_size [32,48]' in capsys.readouterr().err


def test_a_setting_that_contradicts_the_weights_is_refused_unless_asked_for(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("--set", "image_size=[64,64]")
    assert predict(bundle, images, tmp_path / "out", *other) == 2
    assert "was trained with image_size [32, 48], the config has [64, 64]" in capsys.readouterr().err
    assert predict(bundle, images, tmp_path / "out", *other, "--set", "check_settings=false") == 0


def test_an_unknown_id_is_refused_with_the_nearest_one(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(bundle, images, tmp_path / "out", "--set", "imagesize=[64,64]") == 2
    assert "no id 'imagesize'; did you mean 'image_size'?" in capsys.readouterr().err


def test_settings_of_other_weights_are_an_error(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.pt")
    assert read_settings(tmp_path / "model.pt") == TRAINED
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="belongs to other weights"):
        compare_settings(tmp_path / "model.pt", TRAINED)


def test_monai_label_gets_the_settings_in_its_copy(bundle: Path, tmp_path: Path) -> None:
    copy = Workspace.prepare(bundle, tmp_path).bundle
    for name in ("train", "inference"):
        assert json.loads((copy / "configs" / f"{name}.json").read_text())["image_size"] == [32, 48]


def test_a_new_bundle_has_the_settings_that_are_given(breast: Path, tmp_path: Path) -> None:
    options = ["--variant", "large", "--in-channels", "1", "--image-size", "64,96", "--weights", "none"]
    new = ["new-bundle", "grey", "--from", str(breast), "--labels", "a,b", "--output", str(tmp_path)]
    assert main([*new, *options]) == 0
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "grey" / "configs" / "train.json"))
    assert parser["image_size"] == [64, 96]
    image = json.loads((tmp_path / "grey" / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]
    assert (image["image"]["num_channels"], image["image"]["spatial_shape"]) == (1, [64, 96])
    assert parser.get_parsed_content("network_def").in_channels == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variant", "large"), "give --weights none"),
        (("--spacing", "1,1,1"), "has no id spacing"),
        (("--image-size", "64,64,64"), "must be 2 numbers"),
    ],
)
def test_a_new_bundle_refuses_settings_that_do_not_fit(
    options: tuple[str, ...], message: str, breast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = ["new-bundle", "mine", "--from", str(breast), "--labels", "a", "--output", str(tmp_path)]
    assert main([*new, *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_segmenter_refuses_random_weights(breast: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(breast / "configs" / "inference.json"))
    parser.read_meta(str(breast / "configs" / "metadata.json"))
    segmenter = parser.get_parsed_content("segmenter")
    image = {"image": torch.zeros(3, 32, 32)}
    with pytest.raises(ValueError, match="no weights have been loaded"):
        segmenter.infer([image])
    segmenter.network.load_state_dict(segmenter.network.state_dict())
    with pytest.raises(ValueError, match="in train mode"):
        segmenter.infer([image])
    segmenter.network.eval()
    assert segmenter.infer([image])[0]["pred"].shape == (1, 32, 32)
