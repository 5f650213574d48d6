"""The strategy ``uncertainty``: what it offers, and its scores over HTTP."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
from label_service import BREAST, ROOT, ask
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


def test_images_are_offered_by_the_confidence_of_the_report(breast_server, studies, tmp_path):
    """Broken ones are not, and a label takes its image out."""
    names = [path.stem for path in sorted(studies.glob("*.jpg")) if path.stem != "cut"]
    given = tmp_path / "given"
    given.mkdir()
    for name in names[:2]:
        shutil.copy(studies / f"{name}.jpg", given)
    run_command(["predict", str(BREAST), str(given), "--output", str(tmp_path / "out"), "--no-overlays"])
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        report = {Path(row["case"]).stem: float(row["confidence"] or 0) for row in csv.DictReader(file)}

    assert breast_server.post("/scoring/uncertainty", max_samples="many").status == 422
    first = breast_server.post("/activelearning/uncertainty").json  # nothing is scored yet
    assert first["confidence"] is None
    job = breast_server.wait_for("/scoring/")
    assert job["status"] == "DONE", job["details"]
    scores = json.loads((breast_server.workspace / "scores.json").read_text())["images"]
    for name in names[:2]:
        assert scores[name]["confidence"] == pytest.approx(report[name], abs=1e-3)
    assert scores["text"]["confidence"] is None
    order = [name for name in sorted(names, key=lambda name: scores[name]["confidence"]) if name != first["id"]]
    offered = [breast_server.post("/activelearning/uncertainty").json["id"] for _ in order[:3]]
    assert offered == order[:3]
    label = tmp_path / "label.png"
    with Image.open(studies / f"{order[3]}.jpg") as image:
        Image.new("L", image.size).save(label)
    assert breast_server.save_label(order[3], label).status == 200
    assert breast_server.post("/activelearning/uncertainty").json["id"] == order[4]
    query = urlencode({"id": order[3], "tag": "final"})
    assert ask(f"{breast_server.url}/datastore/label?{query}", "DELETE").status == 200


def test_the_benchmark_runs(tmp_path):
    import bench_active_learning

    data = tmp_path / "data"
    for kind in ("images", "masks"):
        shutil.copytree(BREAST / "sample_data" / kind, data / kind)
    arguments = [str(BREAST), str(data), "--output", str(tmp_path / "results.json")]
    arguments += ["--start", "2", "--step", "1", "--end", "3", "--measured", "2", "--steps", "1", "--seeds", "1"]
    arguments += ["--image-size", "64", "64"]
    bench_active_learning.main(arguments)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["annotated"]) == ["2", "3"]
    assert results["annotated"]["2"]["gain"]["by_seed"] == [0.0]  # both begin with the same images
    assert {"seeds", "random", "uncertainty", "gain"} == set(results["annotated"]["3"])
    assert results["gain_after_the_start"] == results["annotated"]["3"]["gain"]
