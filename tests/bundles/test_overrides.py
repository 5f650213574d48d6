"""The table "For your own data" in bundles/README.md: a short training and inference with each row's overrides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
IMAGE_BUNDLE, VOLUME_BUNDLE = "breast_ultrasound_segmentation", "hippocampus_mri_segmentation"
SIZE = {IMAGE_BUNDLE: {"image_size": [32, 32]}, VOLUME_BUNDLE: {"roi_size": [16, 16, 16]}}
RNG = np.random.default_rng(0)


def save_image(path: Path, values: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return str(path)


def save_volume(path: Path, values: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    return str(path)


def colour(root: Path, name: str) -> dict[str, Any]:
    image = save_image(root / "images" / f"{name}.png", RNG.integers(0, 255, (40, 36, 3)))
    return {"image": image, "label": [save_image(root / "masks" / f"{name}.png", square(255, (40, 36)))]}


def two_files(root: Path, name: str) -> dict[str, Any]:
    images = [save_image(root / c / f"{name}.png", RNG.integers(0, 255, (40, 36))) for c in ("b_mode", "elasticity")]
    return {"image": images, "label": [save_image(root / "masks" / f"{name}.png", square(255, (40, 36)))]}


def two_labels(root: Path, name: str) -> dict[str, Any]:
    masks = [square(255, (40, 36)), square(255, (40, 36))[:, ::-1]]
    image = save_image(root / "images" / f"{name}.png", RNG.integers(0, 255, (40, 36, 3)))
    paths = [save_image(root / "masks" / str(i) / f"{name}.png", mask) for i, mask in enumerate(masks)]
    return {"image": image, "label": paths}


def volume(root: Path, name: str) -> dict[str, Any]:
    label = square(1, (20, 18, 17))
    label[12:] = 2
    image = save_volume(root / "images" / f"{name}.nii.gz", RNG.normal(size=(20, 18, 17)))
    return {"image": image, "label": [save_volume(root / "labels" / f"{name}.nii.gz", label)]}


def one_label_volume(root: Path, name: str) -> dict[str, Any]:
    case = volume(root, name)
    return case | {"label": [save_volume(root / "labels" / f"{name}.nii.gz", square(1, (20, 18, 17)))]}


def two_sequences(root: Path, name: str) -> dict[str, Any]:
    case = volume(root, name)
    return case | {"image": [case["image"], save_volume(root / "t2" / f"{name}.nii.gz", RNG.normal(size=(20, 18, 17)))]}


def square(value: int, shape: tuple[int, ...]) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[4:14, 4:14] = value
    return label


class Row(NamedTuple):
    bundle: str
    overrides: dict[str, Any]
    make_case: Callable[[Path, str], dict[str, Any]]
    channels: tuple[int, int]
    """What the trained network takes and gives."""

    trains: bool = True
    """False: only what training would start with is built, since an epoch takes minutes on a CPU."""


ROWS = {
    "large": Row(IMAGE_BUNDLE, {"variant": "large"}, colour, (3, 1)),
    "grey": Row(IMAGE_BUNDLE, {"in_channels": 1}, colour, (1, 1)),
    "n channels": Row(IMAGE_BUNDLE, {"in_channels": 2}, two_files, (2, 1)),
    "several labels": Row(IMAGE_BUNDLE, {"out_channels": 3}, two_labels, (3, 3)),
    "other size": Row(IMAGE_BUNDLE, {"image_size": [48, 64]}, colour, (3, 1)),
    "large 3D": Row(VOLUME_BUNDLE, {"variant": "large"}, volume, (1, 3), trains=False),
    "one label 3D": Row(VOLUME_BUNDLE, {"out_channels": 1}, one_label_volume, (1, 1)),
    "n channels 3D": Row(VOLUME_BUNDLE, {"in_channels": 2}, two_sequences, (2, 3)),
    "other size 3D": Row(VOLUME_BUNDLE, {"roi_size": [32, 16, 16], "spacing": [2.0, 2.0, 2.0]}, volume, (1, 3)),
}


def prepare(bundle: Path, name: str, overrides: dict[str, Any]) -> ConfigWorkflow:
    files = {"config_file": str(bundle / "configs" / f"{name}.json"), "logging_file": False}
    meta = str(bundle / "configs" / "metadata.json")
    workflow = ConfigWorkflow(**files, meta_file=meta, workflow_type=name, bundle_root=str(bundle), **overrides)
    workflow.initialize()
    return workflow


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_trains_and_infers_with_the_overrides_of_the_table(row, tmp_path):
    bundle = BUNDLES / row.bundle
    overrides = {**SIZE[row.bundle], **row.overrides}
    cases = [row.make_case(tmp_path / "data", f"case{i}") for i in range(3)]
    (tmp_path / "data" / "datalist.json").write_text(json.dumps({"training": cases[:2], "validation": cases[2:]}))
    folders = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path / "models")}
    training = prepare(bundle, "train", {**overrides, **folders, "max_epochs": 1, "batch_size": 2})
    weights = tmp_path / "models" / "model.pt"
    if row.trains:
        training.run()
        state = torch.load(weights, weights_only=True)
    else:
        state = training.parser.get_parsed_content("network").state_dict()
        weights.parent.mkdir()
        torch.save(state, weights)
    assert (state["stem.conv.weight"].shape[1], state["head.weight"].shape[0]) == row.channels

    images = tmp_path / "data" / "images"
    if row.channels[0] == 2:  # a file per channel: NAME_0000, NAME_0001
        images = tmp_path / "channels"
        images.mkdir()
        for index, case in enumerate(cases):
            for channel, path in enumerate(map(Path, case["image"])):
                shutil.copy(path, images / f"case{index}_{channel:04d}{''.join(path.suffixes)}")
    folders = {"dataset_dir": str(images), "output_dir": str(tmp_path / "out")}
    prepare(bundle, "inference", {**overrides, **folders, "weights": str(weights)}).run()
    assert len(list((tmp_path / "out").glob("*_mask.*"))) == 3


def test_every_row_of_the_table_is_run():
    table = (BUNDLES / "README.md").read_text().split("## For your own data")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]
    assert rows == list(ROWS)
