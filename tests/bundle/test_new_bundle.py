"""Bundles made from shipped ones: complete, verified, and ready to train."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobileutr_monai.bundle.new_bundle import make_bundle

SCHEMA = Path(__file__).parents[1] / "bundles" / "meta_schema_20240725.json"


def read_config(bundle: Path, name: str) -> dict:
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


def read_weights(bundle: Path) -> dict[str, torch.Tensor]:
    return torch.load(bundle / "models" / "model.pt", weights_only=True)


def save_two_label_data(data: Path) -> None:
    generator = np.random.default_rng(0)
    mask = np.zeros((40, 48), np.uint8)
    mask[4:16, 4:16], mask[20:36, 20:40] = 1, 2
    items = []
    for index in range(4):
        item = {"image": f"images/{index}.png", "label": [f"masks/{index}.png"]}
        for path, pixels in ((item["image"], generator.integers(0, 255, (40, 48, 3))), (item["label"][0], mask)):
            (data / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(data / path)
        items.append(item)
    datalist = {"mask_coding": "indices", "training": items[:2], "validation": items[2:]}
    (data / "datalist.json").write_text(json.dumps(datalist))


@pytest.fixture(scope="module")
def two_labels(breast, tmp_path_factory):
    return make_bundle("my_lesions", breast, ["lesion", "shadow"], tmp_path_factory.mktemp("bundles"))


def test_has_what_a_bundle_has_and_nothing_of_the_parents_data(two_labels):
    bundle = two_labels.folder
    assert {path.name for path in bundle.iterdir()} == {"LICENSE", "bundle.yaml", "configs", "docs", "models"}
    assert {path.name for path in (bundle / "docs").iterdir()} == {"README.md", "data_license.txt"}
    assert [path.name for path in bundle.parent.iterdir()] == ["my_lesions"]


def test_configs_and_metadata_follow_from_the_labels(two_labels):
    assert {read_config(two_labels.folder, name)["out_channels"] for name in ("train", "inference")} == {3}
    metadata = read_config(two_labels.folder, "metadata")
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert (pred["num_channels"], pred["channel_def"]) == (3, {"0": "background", "1": "lesion", "2": "shadow"})
    assert metadata["pred_classes"] == metadata["label_classes"] == "0: background, 1: lesion, 2: shadow"
    assert metadata["intended_use"].startswith("Research only. Not a medical device")
    assert list(metadata["changelog"]) == [metadata["version"]] == ["0.1.0"]


def test_its_configs_are_what_its_source_renders_to(two_labels, monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    from render_bundles import render_bundle

    rendered = render_bundle(two_labels.folder)
    assert {"train.json", "inference.json", "gpu_train.json"} <= {path.name for path in rendered}
    for path, text in rendered.items():
        if path.name == "inference.json":  # measured on the parent: not of these labels
            assert json.loads(text).items() <= json.loads(path.read_text()).items()
        else:
            assert path.read_text() == text, path.name


def test_metadata_fits_the_schema(two_labels, monai_bundle):
    files = ("--meta_file", "configs/metadata.json", "--filepath", SCHEMA)
    monai_bundle("verify_metadata", *files, cwd=two_labels.folder)


def test_the_card_names_parent_and_licence(two_labels):
    card = (two_labels.folder / "docs" / "README.md").read_text()
    assert all(text in card for text in ("Breast ultrasound segmentation", "CC BY 4.0", "Not a medical device"))


def test_only_the_head_is_drawn_anew_and_always_alike(two_labels, breast, tmp_path):
    parent, made = read_weights(breast), read_weights(two_labels.folder)
    assert all(torch.equal(made[key], parent[key].to(made[key].dtype)) for key in parent if "head" not in key)
    assert made["head.weight"].shape[0] == 3
    assert "head, which is re-initialised" in two_labels.weights
    torch.rand(1)
    again = read_weights(make_bundle("again", breast, ["a", "b"], tmp_path).folder)
    assert torch.equal(again["head.weight"], made["head.weight"])


def test_one_label_keeps_the_head(breast, tmp_path):
    made = make_bundle("nodules", breast, ["nodule"], tmp_path)
    files = [bundle / "models" / "model.pt" for bundle in (made.folder, breast)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "head included" in made.weights


def test_a_bundle_of_volumes_without_weights(breast, tmp_path):
    made = make_bundle("whole", breast.parent / "hippocampus_mri_segmentation", ["all"], tmp_path, pretrained=False)
    assert not (made.folder / "models" / "model.pt").exists()
    assert read_config(made.folder, "train")["out_channels"] == 1
    assert read_config(made.folder, "metadata")["weights_use"] == "no weights yet"


def test_trains_at_once(two_labels, monai_bundle, tmp_path):
    save_two_label_data(tmp_path / "data")
    config = ("--config_file", "configs/train.json", "--pretrained", "models/model.pt", "--max_epochs", "1")
    small = ("--image_size", "[32,32]", "--batch_size", "2")
    target = ("--output_dir", tmp_path, "--ckpt_dir", tmp_path)
    monai_bundle("run", *config, *small, *target, "--dataset_dir", tmp_path / "data", cwd=two_labels.folder)
    assert torch.load(tmp_path / "model.pt", weights_only=True)["head.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("My-Lesions", ["lesion"], "must be lower case letters"),
        ("../x", ["lesion"], "must be lower case letters"),
        ("mine", [], "1 to 254 labels"),
        ("mine", ["lesion", ""], "label '' must be"),
        ("mine", ["background", "lesion"], "background is not one"),
        ("mine", ["lesion", "Lesion"], "must differ"),
    ],
)
def test_rejects_names_that_cannot_be_used(name, labels, message, breast, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_bundle(name, breast, labels, tmp_path)
    assert not list(tmp_path.iterdir())


def test_leaves_nothing_when_the_parents_weights_do_not_fit(breast, tmp_path):
    parent = make_bundle("parent", breast, ["lesion"], tmp_path).folder
    torch.save({"head.weight": torch.zeros(1)}, parent / "models" / "model.pt")
    with pytest.raises(ValueError, match="does not fit the network"):
        make_bundle("child", parent, ["lesion"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]
