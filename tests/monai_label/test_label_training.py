"""Corrections become weights: training over HTTP from labels/final, and the way back to the shipped weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from label_service import BREAST, HIPPOCAMPUS, LabelServer, ask, read_picture, serve
from label_studies import read_truth
from PIL import Image

FEW = {"max_epochs": 2, "val_split": 0.34, "batch_size": 2}
IMAGES = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name][:3]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def correct_pictures(server: LabelServer, folder: Path, turned: bool = False) -> None:
    """Submits masks, one with 0 and 1, the others with 0 and 255; turned ones are wrong."""
    for index, image in enumerate(IMAGES):
        values = read_truth(image)
        values = (1 - values if turned else values) * (1 if index == 0 else 255)
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{image.stem}.png")
        assert server.save_label(image.stem, folder / f"{image.stem}.png").status == 200


def test_training_without_labels_says_how_many_it_needs(breast_server):
    job = breast_server.train(**FEW)
    assert job["status"] == "ERROR"
    assert any("labelled images" in line for line in job["details"])
    text = json.dumps(job)
    assert "Traceback" not in text and str(breast_server.workspace.parent) not in text


def test_training_names_and_leaves_out_a_broken_label(breast_server, studies, tmp_path):
    final = studies / "labels" / "final"
    (final / f"{IMAGES[2].stem}.png").write_text("put there by hand")
    for image in IMAGES[:2]:
        Image.fromarray(read_truth(image) * 255).save(tmp_path / f"{image.stem}.png")
        assert breast_server.save_label(image.stem, tmp_path / f"{image.stem}.png").status == 200
    end = time.monotonic() + 20
    while len(breast_server.ask("/datastore/", output="train").json) != 3:
        assert time.monotonic() < end
        time.sleep(0.1)
    job = breast_server.train(max_epochs=1, batch_size=1)
    assert job["status"] == "DONE", job["details"]
    log = breast_server.log.read_text()
    assert f"{IMAGES[2].stem}.png is left out: the label cannot be used" in log
    assert "1 image to learn from, 1 held out" in log


def test_worse_weights_are_not_installed_but_with_force(breast_server, tmp_path):
    """Wrong labels of the images to learn from make the weights worse on the held-out one."""
    correct_pictures(breast_server, tmp_path)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for image in (IMAGES[0], IMAGES[2]):
        Image.fromarray(1 - read_truth(image)).save(wrong / f"{image.stem}.png")
        assert breast_server.save_label(image.stem, wrong / f"{image.stem}.png").status == 200
    before = digest(breast_server.weights)
    job = breast_server.train(**FEW, learning_rate=0.01)
    assert job["status"] == "DONE", job["details"]
    (line,) = [line for line in job["details"] if "not installed: val_mean_dice is" in line]
    assert "before training" in line and "after it" in line
    assert digest(breast_server.weights) == before
    job = breast_server.train(**FEW, learning_rate=0.01, force=True)
    assert job["status"] == "DONE", job["details"]
    assert digest(breast_server.weights) != before


def test_corrections_become_the_weights_of_the_next_inference(breast_server, studies, tmp_path):
    """While they are installed, every inference is by the old weights or by the new ones."""
    correct_pictures(breast_server, tmp_path)
    name = IMAGES[1].stem
    before, shipped = breast_server.infer(name), digest(breast_server.weights)
    seen, end = [], Event()

    def ask_all_the_time() -> None:
        while not end.is_set():
            seen.append(breast_server.infer(name))
            assert breast_server.weights.is_file()

    thread = Thread(target=ask_all_the_time)
    thread.start()
    job = breast_server.train(**FEW, learning_rate=0.01, force=True)
    end.set()
    thread.join()
    assert job["status"] == "DONE", job["details"]
    assert any("val_mean_dice" in line for line in job["details"])
    after = breast_server.infer(name)
    assert digest(breast_server.weights) != shipped
    assert after.status == before.status == 200
    assert after.body != before.body
    assert {answer.body for answer in seen} <= {before.body, after.body}


def test_no_weights_no_mask(breast_server):
    """Also where they were loaded before; and no job that would begin with random ones."""
    held = breast_server.weights.read_bytes()
    assert ask(f"{breast_server.url}/model/{BREAST.name}", "DELETE").status == 200
    for answer in (
        breast_server.infer(IMAGES[0].stem),
        breast_server.post(f"/train/{BREAST.name}"),
        breast_server.post(f"/batch/infer/{BREAST.name}"),
    ):
        assert answer.status == 503
        assert "--restore" in answer.detail
    breast_server.weights.write_bytes(held)
    assert breast_server.infer(IMAGES[0].stem).status == 200


def test_a_batch_needs_no_gpu(breast_server):
    assert breast_server.post(f"/batch/infer/{BREAST.name}", max_batch_size=2, multi_gpu=True).status == 200
    job = breast_server.wait_for("/batch/infer")
    assert job["status"] == "DONE", job["details"]
    assert breast_server.ask("/datastore/").json["label_tags"]["original"] >= 2


def test_volumes_are_learnt_from_and_the_shipped_weights_come_back(tmp_path):
    studies, work = tmp_path / "studies", tmp_path / "work"
    studies.mkdir()
    for image in sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[:3]:
        shutil.copy(image, studies)
    name = sorted(studies.iterdir())[0].name.split(".")[0]
    shipped = digest(HIPPOCAMPUS / "models" / "model.pt")
    with serve(HIPPOCAMPUS, studies, work) as server:
        for image in sorted(studies.glob("*.nii.gz")):
            label = HIPPOCAMPUS / "sample_data" / "labels" / image.name
            assert server.save_label(image.name.split(".")[0], label).status == 200
        before = server.infer(name)
        job = server.train(**FEW, learning_rate=0.01, force=True)
        assert job["status"] == "DONE", job["details"]
        assert digest(server.weights) != shipped
        after = server.infer(name)
        assert after.status == before.status == 200
        assert after.body != before.body
    assert digest(HIPPOCAMPUS / "models" / "model.pt") == shipped
    with serve(HIPPOCAMPUS, studies, work, "--restore") as server:
        assert digest(server.weights) == shipped
        assert server.infer(name).body == before.body
    assert (work / HIPPOCAMPUS.name / "model" / HIPPOCAMPUS.name / "models" / "trained" / "1" / "model.pt").is_file()


def mean_dice(server: LabelServer) -> float:
    dices = []
    for image in IMAGES:
        found, truth = read_picture(server.infer(image.stem).body) > 0, read_truth(image) > 0
        dices.append(2 * np.sum(found & truth) / (np.sum(found) + np.sum(truth)))
    return float(np.mean(dices))


@pytest.mark.parametrize("restored", [True])
def test_the_default_rate_keeps_what_the_weights_know(breast_server, tmp_path, restored):
    shutil.copyfile(BREAST / "models" / "model.pt", breast_server.weights)
    correct_pictures(breast_server, tmp_path)
    before = mean_dice(breast_server)
    job = breast_server.train(max_epochs=2, force=restored)
    assert job["status"] == "DONE", job["details"]
    assert mean_dice(breast_server) > before - 0.02
