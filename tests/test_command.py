"""The ``mobileutr`` command: exit codes, one-line errors, no traceback."""

from __future__ import annotations

import json
import shutil

import pytest

from mobileutr_monai.datasets.datalist import load_datalist


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: VERB"),
        (("segment",), "invalid choice"),
        (("predict", "BUNDLE", "FOLDER"), "--output"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--overlay-all"), "unrecognized arguments"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--batch-size", "0"), "at least 1"),
        (("predict", "nowhere", "FOLDER", "--output", "out"), "is not a bundle"),
        (("predict", "nowhere.onnx", "FOLDER", "--output", "out"), "nowhere.onnx"),
        (("predict", "BUNDLE", "nowhere", "--output", "out"), "no file or folder 'nowhere'"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--weights", "none.pt"), "no weights at none.pt"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--engine", "tensorflow"), "choose from "),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--workers", "-1"), "a whole number, 0 or more, got -1"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--workers", "two"), "a whole number, 0 or more, got two"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--time-limit", "nan"), "must be more than 0, got nan"),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--memory-limit", "-1"), "must be 0 or more, got -1"),
        (
            ("predict", "BUNDLE", "FOLDER", "--output", "out", "--set", "min_peak=2"),
            "min_peak must be from 0 to 1, got 2",
        ),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--set", "min_peak=high"), "min_peak must be a number"),
        (
            ("predict", "BUNDLE", "FOLDER", "--output", "out", "--set", "image_size=large"),
            "image_size must be 2 whole numbers, such as [256, 256], got 'large'",
        ),
        (("predict", "BUNDLE", "FOLDER", "--output", "out", "--set", "tta=maybe"), "tta must be true or false"),
        (("predict", "BUNDLE", "", "--output", "out"), "is empty; give a path"),
        (("predict", "BUNDLE", "FOLDER", "--output", ""), "is empty; give a path"),
        (("export", "BUNDLE", "BUNDLE", "--output", "m.onnx"), "for onnx export one at a time"),
        (("export", "BUNDLE"), "--output"),
        (("export", "BUNDLE", "--format", "tflite", "--output", "m.tflite"), "invalid choice"),
        (("export", "nowhere", "--output", "m.onnx"), "is not a bundle"),
        (("export", "BUNDLE", "--output", "m.xml"), "must end in .onnx"),
        (
            ("export", "BUNDLE", "--format", "torchscript", "--output", "m.ts", "--end-to-end"),
            "--end-to-end is for --format onnx and openvino, not torchscript",
        ),
        (
            ("export", "VOLUMES", "--output", "m.onnx", "--end-to-end"),
            "--end-to-end and --format web are for 2D bundles",
        ),
        (("export", "BUNDLE", "--output", "m.onnx", "--weights", "none.pt"), "no weights at none.pt"),
        (("predict", "BUNDLE", "FOLDER", "--output", "WEIGHTS"), "is a file; choose another one"),
        (("split", "nowhere", "--output", "d.json"), "nowhere"),
        (("split", "SAMPLES", "--output", "BUNDLE", "--overwrite"), "is a folder; give a file"),
        (("split", "FOLDER", "--output", "d.json"), "images and no masks"),
        (("split", "SAMPLES", "--output", "d.json", "--validation", "1.5"), "must be in [0, 1)"),
        (("split", "SAMPLES", "--output", "d.json", "--validation", "0.5", "--test", "0.5"), "take fewer"),
        (("split", "SAMPLES", "--output", "/proc/none/d.json"), "/proc/none"),
        (("split", "SAMPLES", "--output", "d.json", "--folds", "9"), "cannot make 9 folds"),
        (("split", "SAMPLES", "--output", "d.json", "--folds", "3", "--validation", "0.1"), "exclude each other"),
        (("split", "SAMPLES", "--output", "d.json", "--groups", "none.csv"), "'none.csv' does not exist"),
        (("split", "SAMPLES", "--output", "d.json", "--classes", "folder"), "give --classes prefix"),
        (("split", "SAMPLES", "--output", "d.json", "--masks", "grey"), "mask coding 'grey' cannot be read"),
        (("check", "nowhere"), "'nowhere' is not a folder"),
        (("check", "SAMPLES", "--maks", "0/255"), "unrecognized arguments: --maks 0/255; see mobileutr check --help"),
        (("check", "FOLDER"), "images and no masks"),
        (("check", "SAMPLES", "--datalist", "none.json"), "'none.json' does not exist"),
        (("check", "SAMPLES", "--masks", "grey"), "mask coding 'grey' cannot be read"),
        (("check", "SAMPLES", "--json", "/proc/none/d.json"), "/proc/none"),
        (("convert", "none.pth", "--output", "model.pt"), "no checkpoint at none.pth"),
        (("convert", "WEIGHTS", "--output", "model.pt"), "under MobileUtr's own keys; use it as it is"),
        (("convert", "WEIGHTS", "--output", "WEIGHTS"), "is the checkpoint itself"),
        (("new-bundle", "mine", "--from", "BUNDLE"), "--labels"),
        (("new-bundle", "mine", "--from", "FOLDER", "--labels", "lesion"), "is not a bundle"),
        (("new-bundle", "Mine", "--from", "BUNDLE", "--labels", "lesion"), "must be lower case"),
        (("new-bundle", "configs", "--from", "BUNDLE", "--labels", "lesion", "--output", "BUNDLE"), "exists already"),
    ],
)
def test_bad_usage_gives_one_line_and_code_2(mobileutr, breast, tmp_path, arguments, message):
    names = {"BUNDLE": breast, "FOLDER": breast / "sample_data" / "images", "SAMPLES": breast / "sample_data"}
    names["WEIGHTS"] = breast / "models" / "model.pt"
    names["VOLUMES"] = breast.parent / "hippocampus_mri_segmentation"
    process = mobileutr(*(names.get(argument, argument) for argument in arguments), cwd=tmp_path)
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("mobileutr: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["export", "convert"])
def test_what_is_there_is_not_replaced_unasked(mobileutr, breast, tmp_path, verb):
    source = breast if verb == "export" else tmp_path / "official.pth"
    output = tmp_path / "model.onnx"
    output.write_bytes(b"mine")
    process = mobileutr(verb, source, "--output", output)
    assert process.returncode == 2
    assert process.stderr.strip().endswith("exists already; choose another --output, or give --overwrite")
    assert output.read_bytes() == b"mine"


TOLD_EARLY = [
    ("predict", "nowhere", "FOLDER", "--output", "out"),
    ("predict", "BUNDLE", "FOLDER", "--output", "out", "--engine", "tensorflow"),
    ("predict", "BUNDLE", "FOLDER", "--output", "out", "--workers", "-1"),
    ("export", "nowhere", "--output", "m.onnx"),
    ("export", "BUNDLE", "--output", "FOLDER"),
    ("export", "BUNDLE", "--output", "m.xml"),
    ("export", "BUNDLE", "--output", "m.onnx", "--weights", "none.pt"),
    ("export", "BUNDLE", "--output", "there.onnx"),
    ("check", "nowhere"),
    ("check", "FOLDER", "--masks", "grey"),
    ("check", "FOLDER", "--datalist", "none.json"),
    ("split", "nowhere", "--output", "d.json"),
    ("split", "FOLDER", "--output", "there.onnx"),
    ("split", "FOLDER", "--output", "d.json", "--groups", "none.csv"),
    ("convert", "none.pth", "--output", "m.pt"),
    ("new-bundle", "mine", "--from", "nowhere", "--labels", "lesion"),
]

CALL_ALL = """
import json, sys
sys.modules.update(dict.fromkeys(("torch", "monai")))  # importing them is an error then
from mobileutr_monai.__main__ import main
codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        codes.append(main(arguments))
    except SystemExit as stop:
        codes.append(stop.code)
print(json.dumps(codes))
"""


def test_bad_usage_is_told_before_torch_is_imported(python, breast, tmp_path):
    (tmp_path / "there.onnx").touch()
    names = {"BUNDLE": str(breast), "FOLDER": str(breast / "sample_data")}
    given = [[names.get(argument, argument) for argument in arguments] for arguments in TOLD_EARLY]
    process = python("-c", CALL_ALL, json.dumps(given), cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == [2] * len(TOLD_EARLY)
    assert len(process.stderr.splitlines()) == len(TOLD_EARLY), "one line for each"
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--help",), 0), (("predict", "nowhere", "FOLDER", "--output", "out"), 2)],
)
def test_the_program_ends_with_the_code_of_its_verb(python, tmp_path, arguments, code):
    process = python("-m", "mobileutr_monai", *arguments, cwd=tmp_path)
    assert process.returncode == code
    assert "Traceback" not in process.stderr


def test_split_writes_a_datalist_that_training_takes(mobileutr, breast, tmp_path):
    shutil.copytree(breast / "sample_data", tmp_path / "data")
    output = tmp_path / "data" / "datalist.json"
    process = mobileutr("split", tmp_path / "data", "--output", output, "--validation", "0.25", "--test", "0.125")
    assert process.returncode == 0, process.stderr
    datalist = json.loads(output.read_text())
    assert {name: len(datalist[name]) for name in ("training", "validation", "testing")} == {
        "training": 5,
        "validation": 2,
        "testing": 1,
    }
    first = output.read_bytes()
    again = ("split", tmp_path / "data", "--output", output, "--validation", "0.25", "--test", "0.125")
    refused = mobileutr(*again)
    assert (refused.returncode, output.read_bytes()) == (2, first)
    assert "exists already; choose another --output, or give --overwrite" in refused.stderr
    assert mobileutr(*again, "--overwrite").returncode == 0
    assert output.read_bytes() == first


def test_check_tells_errors_by_its_exit_code(mobileutr, breast, tmp_path):
    shutil.copytree(breast / "sample_data", tmp_path / "data")
    process = mobileutr("check", tmp_path / "data", "--json", tmp_path / "report.json")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1].startswith("0 errors, ")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["mask_coding"] == {"kind": "threshold", "files": "folder", "threshold": 127.5}
    assert {problem["severity"] for problem in report["problems"]} <= {"warning"}
    next((tmp_path / "data" / "masks" / "0").iterdir()).unlink()
    process = mobileutr("check", tmp_path / "data")
    assert process.returncode == 1
    assert "missing_mask" in process.stdout
    assert process.stdout.splitlines()[-1].startswith("1 error, ")
    assert "Traceback" not in process.stderr


def test_folds_of_a_split_are_what_training_holds_out(mobileutr, breast, tmp_path):
    shutil.copytree(breast / "sample_data", tmp_path / "data")
    output = tmp_path / "data" / "datalist.json"
    process = mobileutr("split", tmp_path / "data", "--output", output, "--folds", "4", "--masks", "0/255")
    assert process.returncode == 0, process.stderr
    sections = load_datalist(tmp_path / "data", fold=3)
    assert (len(sections["training"]), len(sections["validation"])) == (6, 2)
    assert mobileutr("check", tmp_path / "data").returncode == 0


def test_help_says_research_only(mobileutr):
    process = mobileutr("--help")
    assert process.returncode == 0
    assert "Research only" in process.stdout
