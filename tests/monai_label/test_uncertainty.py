"""The strategy ``uncertainty``: what it offers, and its scores over HTTP."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from label_service import BREAST, ROOT, serve
from label_studies import read_truth
from PIL import Image

from mobileutr_monai.__main__ import main as run_command
from mobileutr_monai.monai_label.choosing import choose_image

sys.path.insert(0, str(ROOT / "benchmarks"))

SURE = {"confidence": 0.9}
UNSURE = {"confidence": 0.2}


@pytest.mark.parametrize(
    ("scores", "labelled", "offered", "expected"),
    [
        ({"a": SURE, "b": UNSURE}, [], [], "b"),
        ({"a": SURE, "b": UNSURE}, [], ["b"], "a"),  # somebody has it already
        ({"a": SURE}, [], [], "a"),  # what is not scored waits
        ({"a": SURE, "b": {"confidence": None}}, [], [], "a"),
        ({}, [], [], "a"),
        ({"a": SURE, "b": UNSURE | {"patient": "1"}, "c": {"patient": "1"}}, ["c"], [], "a"),
        ({"a": SURE | {"patient": "1"}, "b": UNSURE | {"patient": "1"}, "c": {"patient": "1"}}, ["c"], [], "b"),
        ({"a": SURE, "b": UNSURE | {"group": "c"}, "c": {"group": "c"}}, ["c"], [], "a"),
        ({"a": SURE | {"patient": ""}, "b": UNSURE | {"patient": ""}, "c": {"patient": ""}}, ["c"], [], "b"),
    ],
)
def test_the_least_sure_image_comes_first_and_no_work_is_done_twice(scores, labelled, offered, expected):
    assert choose_image(["a", "b"], scores, labelled, offered) == expected


def test_no_image_is_left():
    assert choose_image([], {}, ["a"]) is None


def test_images_are_offered_by_the_confidence_of_the_report(tmp_path):
    """Of two images that are nearly the same one is offered; a broken one is not; a new label takes its image out."""
    studies, work = tmp_path / "studies", tmp_path / "work"
    studies.mkdir()
    images = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name][:4]
    for image in images:
        shutil.copy(image, studies)
    (studies / "text.png").write_text("not an image")
    command = ["predict", str(BREAST), str(studies), "--output", str(tmp_path / "out"), "--no-overlays"]
    run_command(command)
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        rows = {Path(row["case"]).stem: row["confidence"] for row in csv.DictReader(file) if row.get("confidence")}
    with serve(BREAST, studies, work) as server:
        assert server.post("/scoring/other").status == 404
        assert server.post("/scoring/uncertainty", max_samples="many").status == 422
        first = server.post("/activelearning/uncertainty").json  # nothing is scored yet
        assert first["confidence"] is None
        job = server.wait_for("/scoring/")
        assert job["status"] == "DONE", job["details"]
        scores = json.loads((work / BREAST.name / "scores.json").read_text())["images"]
        for name, confidence in rows.items():
            assert scores[name]["confidence"] == pytest.approx(float(confidence), abs=1e-3)
        order = sorted((image.stem for image in images), key=lambda name: scores[name]["confidence"])
        order = [name for name in order if name != first["id"]]
        offered = [server.post("/activelearning/uncertainty").json["id"] for _ in order]
        assert offered == order
        label = tmp_path / "label.png"
        Image.fromarray(read_truth(studies / f"{order[0]}.jpg")).save(label)
        assert server.save_label(order[0], label).status == 200
        time.sleep(0.5)
        assert server.post("/activelearning/first").json["id"] != order[0]
        strategies = server.ask("/info/").json["strategies"]
        assert list(strategies) == ["random", "first", "uncertainty"]


def test_the_benchmark_runs(tmp_path):
    import bench_active_learning

    data = tmp_path / "data"
    for kind in ("images", "masks"):
        shutil.copytree(BREAST / "sample_data" / kind, data / kind)
    arguments = [str(BREAST), str(data), "--output", str(tmp_path / "results.json")]
    arguments += ["--start", "2", "--step", "1", "--end", "3", "--measured", "2", "--epochs", "1", "--seeds", "1"]
    bench_active_learning.main(arguments)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["annotated"] == [2, 3]
    assert results["gain_by_seed"][0] == [0.0]  # both begin with the same images
    assert set(results["seeds"][0]) == {"random", "uncertainty"}
