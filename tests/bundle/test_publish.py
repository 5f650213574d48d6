"""Folders for the model zoo and for a Hugging Face repository keep the rules of both, and run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import verify_metadata

from mobileutr_monai import load_bundle
from mobileutr_monai.bundle.publish import find_zoo_problems, write_hub_folder, write_zoo_folder
from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.networks import MobileUtr
from scripts.pack_bundle import main

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "tests" / "bundles" / "meta_schema_20240725.json"
BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
URL = "https://example.org/model.pt"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo_folder(BREAST, tmp_path_factory.mktemp("models") / BREAST.name, URL)


def test_every_bundle_keeps_the_rules_of_the_zoo(tmp_path: Path) -> None:
    bundles = [path.parents[1] for path in sorted((ROOT / "bundles").glob("*/models/model.pt"))]
    assert len(bundles) == 4
    for bundle in bundles:
        folder = write_zoo_folder(bundle, tmp_path / bundle.name)
        assert (folder / "models" / "model.pt").is_file()
        assert not list(find_zoo_problems(folder))
        verify_metadata(meta_file=str(folder / "configs" / "metadata.json"), filepath=str(SCHEMA))


def test_weights_are_left_out_where_they_can_be_downloaded(zoo: Path) -> None:
    assert not (zoo / "models" / "model.pt").exists()
    (entry,) = yaml.safe_load((zoo / "large_files.yml").read_text())["large_files"]
    assert (entry["path"], entry["url"], entry["hash_type"]) == ("models/model.pt", URL, "sha256")
    assert entry["hash_val"] == hash_file(BREAST / "models" / "model.pt")


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda folder: (folder / "large_files.yml").unlink(), "models/model.pt is missing, and large_files.yml too"),
        (
            lambda folder: change_json(folder / "configs" / "metadata.json", lambda data: data.update(version="9.0")),
            "version 9.0 has no line in the changelog",
        ),
        (
            lambda folder: change_json(folder / "configs" / "inference.json", lambda data: data.pop("inferer")),
            "configs/inference.json has no inferer",
        ),
        (
            lambda folder: change_json(folder / "configs" / "train.json", lambda data: data["train"].pop("trainer")),
            "configs/train.json has no train#trainer, train#trainer#max_epochs",
        ),
        (
            lambda folder: (folder / "docs" / "big.bin").open("wb").truncate(25_000_001),
            "docs/big.bin has more than 25 MB",
        ),
    ],
)
def test_what_the_zoo_would_refuse_is_said(zoo: Path, tmp_path: Path, spoil: Callable, problem: str) -> None:
    folder = Path(shutil.copytree(zoo, tmp_path / zoo.name))
    spoil(folder)
    (found,) = find_zoo_problems(folder)
    assert problem in found


@pytest.mark.parametrize(("name", "problem"), [("Breast", "is not a name of words"), ("liver_vessel", "contains '_v'")])
def test_a_name_that_the_zoo_cannot_take_is_said(zoo: Path, tmp_path: Path, name: str, problem: str) -> None:
    (found,) = find_zoo_problems(Path(shutil.copytree(zoo, tmp_path / name)))
    assert problem in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--for", "zoo", "--output", "other"), "must end in breast_ultrasound_segmentation"),
        (("--for", "zoo", "--output", BREAST.name, "--weights-url", "http://a/b"), "public https:// address"),
        (("--for", "zoo", "--output", BREAST.name, "--model-info", "info.json"), "is in the zoo already"),
        (("--for", "hub", "--output", "there"), "'there' exists already"),
    ],
)
def test_nothing_is_written_that_would_be_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    version = json.loads((BREAST / "configs" / "metadata.json").read_text())["version"]
    (tmp_path / "info.json").write_text(json.dumps({f"{BREAST.name}_v{version}": {}}))
    assert main([str(BREAST), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["info.json", "there"]


def test_a_hugging_face_repository_has_its_card_and_the_same_weights(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    folder = write_hub_folder(BREAST, tmp_path / "repository")
    card = (folder / "README.md").read_text()
    _, block, body = card.split("---\n", 2)
    metadata = yaml.safe_load(block)
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("monai", "image-segmentation")
    assert (folder / metadata["license_link"]).is_file()
    assert "Research only. Not a medical device" in body
    links = re.findall(r"\]\((?![a-z]+:|#)([^)]+)\)", body)
    assert links
    assert all((folder / link).is_file() for link in links)

    state = load_file(folder / "models" / "model.safetensors")
    shipped = torch.load(BREAST / "models" / "model.pt", weights_only=True)
    assert state.keys() == shipped.keys()
    assert all(torch.equal(state[key], shipped[key]) for key in shipped)
    MobileUtr(2, 3, 1).load_state_dict(state)
    image = BREAST / "sample_data" / "images" / "malignant (53).jpg"
    assert np.array_equal(load_bundle(folder)(image).label, load_bundle(BREAST)(image).label)
