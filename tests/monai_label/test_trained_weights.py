"""Corrections become weights: training over HTTP from labels/final, and the way back to the shipped weights.

Its name puts this file last: other tests need servers that have not been trained.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from label_service import BREAST, HIPPOCAMPUS, LabelServer, ask, read_picture
from label_studies import read_truth
from PIL import Image

from mobileutr_monai.monai_label.workspace import Workspace

FEW = {"max_epochs": 2, "val_split": 0.34, "batch_size": 2}
# The shipped weights find the lesions of these, but not those of the first two.
IMAGES = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name][2:5]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


@pytest.fixture(scope="module")
def wrong_labels(breast_server: LabelServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Inverted labels of the images to learn from; that of the held-out image is the shipped weights' own mask, which
    no other weights reach."""
    folder = tmp_path_factory.mktemp("wrong")
    for index, image in enumerate(IMAGES):
        own = index == 1
        values = read_picture(breast_server.infer(image.stem).body) if own else 255 * (1 - read_truth(image))
        Image.fromarray(values).save(folder / f"{image.stem}.png")
        assert breast_server.save_label(image.stem, folder / f"{image.stem}.png").status == 200


def test_worse_weights_are_not_installed(breast_server, wrong_labels):
    before = digest(breast_server.weights)
    job = breast_server.train(**FEW, learning_rate=0.01)
    assert job["status"] == "DONE", job["details"]
    line = next((line for line in job["details"] if "not installed: val_mean_dice is" in line), "")
    assert "before training" in line and "after it" in line, job["details"]
    assert digest(breast_server.weights) == before


def test_forced_weights_are_those_of_the_next_inference(breast_server, wrong_labels):
    """While they are installed, every inference is by the old weights or by the new ones."""
    name = IMAGES[1].stem
    before, old = breast_server.infer(name), digest(breast_server.weights)
    seen, end = [], Event()

    def ask_all_the_time() -> None:
        while not end.is_set():
            seen.append(breast_server.infer(name))
            seen.append(breast_server.weights.is_file())
            time.sleep(0.05)

    thread = Thread(target=ask_all_the_time)
    thread.start()
    job = breast_server.train(**FEW, learning_rate=0.01, force=True)
    end.set()
    thread.join()
    assert job["status"] == "DONE", job["details"]
    assert any("installed: val_mean_dice is" in line and "before training" in line for line in job["details"])
    after = breast_server.infer(name)
    assert digest(breast_server.weights) != old
    assert after.status == before.status == 200
    assert after.body != before.body
    assert False not in seen
    assert {answer.body for answer in seen if answer is not True} <= {before.body, after.body}


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


def test_volumes_are_learnt_from(four_bundles):
    """A model among several learns from its own labels alone, and the bundle stays as it is."""
    shipped = digest(HIPPOCAMPUS / "models" / "model.pt")
    volumes = sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[:2]
    for image in volumes:
        label = HIPPOCAMPUS / "sample_data" / "labels" / image.name
        assert four_bundles.save_label(image.name.split(".")[0], label).status == 200
    before = four_bundles.infer("turned", model=HIPPOCAMPUS.name)
    job = four_bundles.train(HIPPOCAMPUS.name, **FEW, learning_rate=0.01, force=True)
    assert job["status"] == "DONE", job["details"]
    after = four_bundles.infer("turned", model=HIPPOCAMPUS.name)
    assert after.status == before.status == 200
    assert after.body != before.body
    assert digest(HIPPOCAMPUS / "models" / "model.pt") == shipped
    log = four_bundles.log.read_text()
    assert "1 image to learn from, 1 held out" in log


def test_the_shipped_weights_come_back(tmp_path):
    """At a start with --restore; without it the trained ones stay. Those are kept."""
    models = Workspace.prepare(BREAST, tmp_path).bundle / "models"
    (models / "previous").mkdir()
    trained = {name: value + 1 for name, value in torch.load(models / "model.pt", weights_only=True).items()}
    torch.save(trained, models / "model.pt")
    kept, shipped = digest(models / "model.pt"), digest(BREAST / "models" / "model.pt")
    Workspace.prepare(BREAST, tmp_path)
    assert digest(models / "model.pt") == kept
    Workspace.prepare(BREAST, tmp_path, restore=True)
    assert digest(models / "model.pt") == shipped
    assert digest(models / "trained" / "1" / "model.pt") == kept
    assert (models / "trained" / "1" / "previous").is_dir()
