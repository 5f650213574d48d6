"""Corrections become weights: training over HTTP from labels/final, and the way back to the shipped weights."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from label_service import ROOT, LabelServer, read_picture, serve
from PIL import Image

BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
HIPPOCAMPUS = ROOT / "bundles" / "hippocampus_mri_segmentation"
FEW = {"max_epochs": 2, "val_split": 0.34, "batch_size": 2}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def correct_pictures(server: LabelServer, studies: Path, folder: Path) -> None:
    """Submits masks, one with 0 and 1, the others with 0 and 255."""
    for index, image in enumerate(sorted(studies.glob("*.jpg"))):
        mask = Image.open(BREAST / "sample_data" / "masks" / "0" / f"{image.stem}.png").convert("L")
        values = (np.asarray(mask) > 127).astype(np.uint8) * (1 if index == 0 else 255)
        Image.fromarray(values).save(folder / f"{image.stem}.png")
        assert server.save_label(image.stem, folder / f"{image.stem}.png").status == 200


def correct_volumes(server: LabelServer, studies: Path, folder: Path) -> None:
    for image in sorted(studies.glob("*.nii.gz")):
        shutil.copy(HIPPOCAMPUS / "sample_data" / "labels" / image.name, folder)
        assert server.save_label(image.name.split(".")[0], folder / image.name).status == 200


@pytest.mark.parametrize(("bundle", "submit"), [(BREAST, correct_pictures), (HIPPOCAMPUS, correct_volumes)])
def test_corrections_become_the_weights_of_the_next_inference(bundle, submit, tmp_path):
    studies, labels = tmp_path / "studies", tmp_path / "labels"
    studies.mkdir()
    labels.mkdir()
    for image in sorted((bundle / "sample_data" / "images").iterdir())[:3]:
        shutil.copy(image, studies)
    name = sorted(studies.iterdir())[0].name.split(".")[0]
    shipped = digest(bundle / "models" / "model.pt")
    with serve(bundle, studies, tmp_path / "work") as server:
        too_few = server.train(**FEW)
        assert too_few["status"] == "ERROR"
        assert any("labelled images" in line for line in too_few["details"])
        submit(server, studies, labels)
        before = server.infer(name)
        job = server.train(**FEW, learning_rate=0.01)
        assert job["status"] == "DONE", job["details"]
        assert any("val_mean_dice" in line for line in job["details"])
        assert digest(server.weights) != shipped
        after = server.infer(name)
        assert after.status == before.status == 200
        assert after.body != before.body
    assert digest(bundle / "models" / "model.pt") == shipped
    if bundle == HIPPOCAMPUS:
        return  # the rest is the same code for both

    with serve(bundle, studies, tmp_path / "work") as server:  # the trained weights stay
        assert server.infer(name).body == after.body
    with serve(bundle, studies, tmp_path / "work", "--restore") as server:
        assert digest(server.weights) == shipped
        assert server.infer(name).body == before.body
    assert digest(tmp_path / "work" / bundle.name / "model" / bundle.name / "models" / "trained" / "1" / "model.pt")


def mean_dice(server: LabelServer, studies: Path, labels: Path) -> float:
    dices = []
    for image in sorted(studies.glob("*.jpg")):
        found = read_picture(server.infer(image.stem).body) > 0
        truth = np.asarray(Image.open(labels / f"{image.stem}.png")) > 0
        dices.append(2 * np.sum(found & truth) / (np.sum(found) + np.sum(truth)))
    return float(np.mean(dices))


def test_the_default_rate_keeps_what_the_weights_know(tmp_path):
    studies, labels = tmp_path / "studies", tmp_path / "labels"
    studies.mkdir()
    labels.mkdir()
    images = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name]
    for image in images[:6]:
        shutil.copy(image, studies)
    with serve(BREAST, studies, tmp_path / "work") as server:
        correct_pictures(server, studies, labels)
        before = mean_dice(server, studies, labels)
        job = server.train(max_epochs=3)
        assert job["status"] == "DONE", job["details"]
        assert mean_dice(server, studies, labels) > before - 0.02
