"""What MONAI Label 0.8.5 reads of a bundle, played without it: tasks/infer/bundle.py and tasks/train/bundle.py."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer
from monai.transforms import Compose, LoadImaged, Resize, SaveImaged
from PIL import Image

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/bundle.yaml"))
BREAST, HIPPOCAMPUS = BUNDLES / "breast_ultrasound_segmentation", BUNDLES / "hippocampus_mri_segmentation"


@pytest.fixture(params=NAMES)
def bundle(request: pytest.FixtureRequest) -> Path:
    return BUNDLES / request.param


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The server's working directory is its own, and the bundle's root is on the path while a config is parsed."""
    monkeypatch.chdir(tmp_path)
    yield


def load_config(bundle: Path, workflow: str, device: str = "cpu") -> ConfigParser:
    """One JSON file; MONAI Label replaces the root, by a path, and the device, by a string."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{workflow}.json"))
    parser.config.update({"bundle_root": str(bundle), "device": device})
    return parser


def read_metadata(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]


class PlayedInference:
    """``BundleInferTask`` as its source says it: one object for all calls."""

    def __init__(self, bundle: Path) -> None:
        self.parser = load_config(bundle, "inference")
        self.parser.config["use_click"] = False
        network = self.parser.get_parsed_content("network_def", instantiate=True)
        checkpoint = torch.load(bundle / "models" / "model.pt", map_location=torch.device("cpu"))
        network.load_state_dict(checkpoint.get("model", checkpoint), strict=True)
        self.network = network.to(torch.device("cpu")).eval()
        (self.key_image, self.image), (self.key_pred, self.pred) = (
            next(iter(read_metadata(bundle)[way].items())) for way in ("inputs", "outputs")
        )
        self.shown = self.parser.get_parsed_content("displayable_configs", instantiate=True)

    def __call__(self, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {"image": str(path), "image_path": str(path), "device": "cpu", "model": "x"}
        data |= {"description": "", "latencies": {}, **self.shown}
        self.parser["displayable_configs"].update({key: data[key] for key in self.shown})
        self.parser.parse()
        for transform in self._transforms("preprocessing"):
            if isinstance(transform, LoadImaged):
                transform._loader.image_only = False
            data = transform(data)
        inferer = self.parser.get_parsed_content("inferer", instantiate=True) or SimpleInferer()
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None], self.network)[0]
        for transform in self._transforms("postprocessing"):
            if not isinstance(transform, SaveImaged):
                data = transform(data)
        return restore(data)

    def _transforms(self, key: str) -> list[Any]:
        found = self.parser.get_parsed_content(key, instantiate=True)
        return list(found.transforms) if isinstance(found, Compose) else found


def restore(data: dict[str, Any]) -> dict[str, Any]:
    """``Restored``: the last transform, which MONAI Label adds."""
    pred, size = data["pred"], data["image"].meta["spatial_shape"]
    current = pred.shape[1:]  # it takes the first axis for channels, also where we have none
    if np.any(np.not_equal(current, size[-len(current) :])):
        pred = Resize(spatial_size=size[-len(current) :], mode="nearest")(pred)
    return {**data, "pred": pred[0] if len(pred.shape) == 4 and pred.shape[0] == 1 else pred}


def find_sample(bundle: Path) -> Path:
    samples = bundle / "sample_data" / "images"
    return sorted((samples if samples.is_dir() else BREAST / "sample_data" / "images").iterdir())[0]


def test_metadata_has_the_keys_that_are_hard_coded(bundle):
    formats = read_metadata(bundle)
    assert next(iter(formats["inputs"])) == "image"
    assert next(iter(formats["outputs"])) == "pred"
    labels = {int(index): name for index, name in formats["outputs"]["pred"]["channel_def"].items()}
    assert labels[0] == "background"
    assert len(labels) == max(2, formats["outputs"]["pred"]["num_channels"])
    assert len(formats["inputs"]["image"]["spatial_shape"]) == (3 if bundle == HIPPOCAMPUS else 2)


def test_the_type_is_told_by_the_name(bundle):
    kinds = ("deepedit", "deepgrow", "detection", "segmentation", "classification")
    assert next(kind for kind in kinds if kind in bundle.name) == "segmentation"


def test_the_default_weights_are_those_with_the_shortest_name(bundle):
    assert sorted((path.name for path in (bundle / "models").glob("*.pt")), key=len)[0] == "model.pt"


def test_inference_gives_what_the_writer_can_write(bundle):
    path = find_sample(bundle)
    task = PlayedInference(bundle)
    first, second = task(path), task(path)
    pred = np.asarray(first["pred"])
    size = nib.load(path).shape if bundle == HIPPOCAMPUS else Image.open(path).size
    assert pred.shape == tuple(size)  # one plane, or one volume, without channels
    assert pred.dtype == np.uint8  # PNG takes no other
    assert np.array_equal(pred, second["pred"])
    assert set(np.unique(pred)) <= set(map(int, task.pred["channel_def"]))


def test_the_answer_is_never_lossy(bundle):
    shown = load_config(bundle, "inference").get_parsed_content("displayable_configs", instantiate=True)
    assert shown["result_extension"] == (".nii.gz" if bundle == HIPPOCAMPUS else ".png")


def train_as_monai_label_does(bundle: Path, cases: list[Mapping[str, str]], held_out: list[Mapping[str, str]]) -> None:
    handlers = load_config(bundle, "train").get("train#handlers", [])
    assert isinstance(handlers, list)
    loader = {"_target_": "CheckpointLoader", "load_dict": {"model": "$@network"}, "strict": False}
    handlers.insert(0, {**loader, "load_path": str(bundle / "models" / "model.pt")})
    overrides = {
        "bundle_root": str(bundle),
        "train#trainer#max_epochs": 2,
        "train#dataset#data": cases,
        "device": "cpu",
        "train#handlers": handlers,
        "validate#dataset#data": held_out,
        "batch_size": 2,
        "learning_rate": 1e-4,
    }
    sys.path.insert(0, str(bundle))
    try:
        monai.bundle.run(
            run_id="run",
            init_id=None,
            final_id=None,
            meta_file=str(bundle / "configs" / "metadata.json"),
            config_file=str(bundle / "configs" / "train.json"),
            **overrides,
        )
    finally:
        sys.path.remove(str(bundle))


@pytest.mark.parametrize(("source", "small"), [(BREAST, "image_size"), (HIPPOCAMPUS, "roi_size")])
def test_training_starts_from_the_weights_and_leaves_new_ones(source, small, tmp_path, monkeypatch):
    bundle = tmp_path / source.name
    shutil.copytree(source, bundle, ignore=shutil.ignore_patterns("results", "docs", "eval", "previous", "training"))
    config = bundle / "configs" / "train.json"
    content = json.loads(config.read_text())
    # As docs/monai_label.md says for servers that scripts/monai_label.sh does not start.
    content["install"] = "always"
    content["precision"] = "float32"  # in bfloat16 a 3D step may have no finite gradients, and is left out
    config.write_text(json.dumps({**content, small: [32, 32] if small == "image_size" else [16, 16, 16]}))
    images = sorted((bundle / "sample_data" / "images").iterdir())[:3]
    masks = "labels" if source == HIPPOCAMPUS else "masks/0"
    cases = []
    for image in images:
        label = bundle / "sample_data" / masks / (image.name if source == HIPPOCAMPUS else f"{image.stem}.png")
        cases.append({"image": str(image), "label": str(label)})
    shipped = torch.load(bundle / "models" / "model.pt", weights_only=True)
    train_as_monai_label_does(bundle, cases[:2], cases[2:])
    trained = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert trained.keys() == shipped.keys()
    names = [name for name, value in shipped.items() if value.is_floating_point() and value.ndim > 1]
    assert any(not torch.equal(trained[name], shipped[name]) for name in names)
    changes = [float((trained[name] - shipped[name]).norm() / shipped[name].norm()) for name in names]
    assert max(changes) < 0.2  # it went on from them, not from random ones
    (previous,) = (bundle / "models" / "previous").glob("*.pt")
    assert all(torch.equal(value, shipped[name]) for name, value in torch.load(previous, weights_only=True).items())
