"""The soak, a minute of it: the long runs and their results are in ``docs/reliability.md``."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.outputs.dicom.provenance import CREATION_DATES
from tests.soak.corpus import make_file
from tests.soak.fuzz import NOT_THE_FILES, Tally, check_row
from tests.soak.fuzz_data import check_files
from tests.soak.kills import DATES, compare
from tests.soak.seeds import find_seeds, make_image

WHOLE = {
    "a_mask.png": "1",
    "b_mask.png": "2",
    "sub": "folder",
    "report.csv": "3",
    "run.json": "4",
    ".mobileutr/lock": "5",
}


@pytest.mark.soak
def test_hostile_files_break_no_promise(python, tmp_path):
    results = tmp_path / "fuzz.json"
    options = ["--files", 60, "--first", 20_000, "--no-real", "--output", results]
    process = python("-m", "tests.soak.fuzz", *options)
    runs = json.loads(results.read_text())["runs"]
    assert {name: run["violations"] for name, run in runs.items()} == {"2D": [], "3D": []}
    assert process.returncode == 0, process.stderr[-2000:]
    assert runs["2D"]["statuses"]["ok"] > 5, "too few were read to prove anything"
    assert runs["2D"]["inputs"] >= 60


def test_hostile_files_in_a_data_set_break_no_promise():
    found = check_files(range(20_000, 20_030), 0, find_seeds(real=False))
    assert found["violations"] == []
    assert found["ends"]["check: 1"] > 20 and found["ends"]["split: 2"] > 20


@pytest.mark.soak
def test_a_run_that_was_killed_ends_as_one_that_was_not(python, tmp_path):
    results = tmp_path / "kills.json"
    options = ["--kills", 2, "--images", 12, "--no-real", "--no-volumes", "--output", results]
    process = python("-m", "tests.soak.kills", *options)
    found = json.loads(results.read_text())
    assert found["violations"] == []
    assert process.returncode == 0, process.stderr[-2000:]
    assert found["kills"] == 2


@pytest.mark.parametrize(
    ("changes", "ended", "wrong"),
    [
        ({}, True, []),
        ({"a_mask.png": None}, False, []),
        ({"a_mask.png": None}, True, ["a_mask.png is missing"]),
        ({"a_mask.png": "9"}, False, ["a_mask.png is another"]),
        ({"report.csv": "9", "a_mask.png.tmp": "9", ".mobileutr/unpacked/a.zip/b.png": "9"}, False, []),
        ({"report.csv": "9"}, True, ["report.csv is another"]),
        ({"a_mask.png.tmp": "9"}, True, ["a_mask.png.tmp should not be there"]),
        ({"c_mask.png": "9"}, False, ["c_mask.png should not be there"]),
    ],
)
def test_tells_what_a_kill_left_wrong(changes, ended, wrong):
    found = {name: content for name, content in {**WHOLE, **changes}.items() if content is not None}
    assert compare(found, WHOLE, ended) == wrong


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"status": "skipped", "reason": "not an image"}, []),
        ({"status": "skipped", "reason": ""}, ["skipped without a reason"]),
        ({"status": "failed", "reason": "unreadable image", "detail": "cut off"}, []),
        ({"status": "failed", "reason": "unreadable image", "detail": "a\nb"}, ["a detail of several lines"]),
        ({"status": "failed", "reason": "network failed", "detail": "KeyError"}, ["network failed: KeyError"]),
        ({"status": "ok", "kind": "image", "output": "whole.png"}, []),
        ({"status": "ok", "kind": "image", "output": "small.png"}, ["result of (8, 8), input of (24, 40)"]),
    ],
)
def test_tells_which_promise_a_row_breaks(tmp_path, row, wrong):
    for name, size in (("in.png", (40, 24)), ("whole.png", (40, 24)), ("small.png", (8, 8))):
        (tmp_path / name).write_bytes(make_image("PNG", size=size))
    assert check_row(row, tmp_path / "in.png", tmp_path) == wrong


def test_a_file_of_the_corpus_can_be_made_again():
    seeds = find_seeds(real=False)
    files = [make_file(0, number, seeds) for number in range(30)]
    assert files == [make_file(0, number, seeds) for number in range(30)]
    assert len({file.data for file in files}) == 30


def test_a_tally_goes_on_from_what_was_written():
    tally = Tally(inputs=3, statuses=Counter(ok=2, failed=1), violations=["no row: a"])
    assert Tally(**json.loads(json.dumps(tally.describe()))) == tally


def test_knows_the_words_of_the_package_without_importing_it():
    assert {Reason.NETWORK.value, Reason.OUTPUT.value} == set(NOT_THE_FILES)
    assert {*(keyword for pair in CREATION_DATES for keyword in pair), "ContributionDateTime"} == set(DATES)
