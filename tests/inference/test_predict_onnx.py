"""Prediction with an exported file: the bundle's masks, without torch and MONAI."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.inference.end_to_end import EndToEndModel
from mobileutr_monai.inference.predict_onnx import segment_folder

BLOCKED = """
import sys
for name in ("torch", "monai", "scipy", "nibabel", "pydicom"):
    sys.modules[name] = None
from mobileutr_monai.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

ENDS = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
OTHER_MODEL = helper.make_model(
    helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", ENDS[:1], ENDS[1:]),
    opset_imports=[helper.make_opsetid("", 13)],  # that of this onnx may be newer than this onnxruntime
    ir_version=8,
)


@pytest.fixture
def folder(breast: Path, tmp_path: Path) -> Path:
    """Two pictures of one name, one in a subfolder, a broken one and a file of another kind."""
    target = tmp_path / "in"
    (target / "sub").mkdir(parents=True)
    samples = sorted((breast / "sample_data" / "images").iterdir())
    shutil.copyfile(samples[0], target / "a.jpg")
    with Image.open(samples[1]) as image:
        image.save(target / "a.png")
        image.save(target / "sub" / "b.bmp")
    (target / "broken.png").write_bytes((target / "a.png").read_bytes()[:200])
    (target / "notes.txt").write_text("not an image")
    (target / "study").write_bytes(bytes(128) + b"DICM")
    (target / "volume.nii.gz").write_bytes(b"\x1f\x8b")
    return target


@pytest.fixture
def end_to_end_openvino(end_to_end_onnx: Path, tmp_path: Path) -> Path:
    """The same file for OpenVINO."""
    from mobileutr_monai.export.formats import convert_to_openvino

    convert_to_openvino(end_to_end_onnx, tmp_path / "breast.xml", EndToEndModel(end_to_end_onnx).facts)
    return tmp_path / "breast.xml"


@pytest.mark.parametrize("model", ["end_to_end_onnx", "end_to_end_openvino"])
def test_writes_the_masks_of_the_bundle_without_torch(model, folder, breast, tmp_path, python, mobileutr, request):
    out = tmp_path / "out"
    process = python("-c", BLOCKED, "predict", request.getfixturevalue(model), folder, "--output", out)
    assert process.returncode == 1
    *failures, last = process.stderr.splitlines()
    assert last.startswith("3 cases segmented, 1 failed, 3 skipped")
    assert mobileutr("predict", breast, folder, "--output", tmp_path / "bundle", "--no-overlays").returncode == 1
    with (out / "report.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    outputs = {name: row["output"] for name, row in rows.items() if row["status"] == "ok"}
    with (tmp_path / "bundle" / "report.csv").open(newline="") as file:
        expected = {row["case"]: row for row in csv.DictReader(file)}
    assert outputs == {name: expected[name]["output"] for name in outputs}
    for name, output in outputs.items():
        masks = [np.asarray(Image.open(where / output)) for where in (out, tmp_path / "bundle")]
        assert np.mean(masks[0] != masks[1]) <= MAX_MISMATCH_PERCENT / 100, name
        assert int(rows[name]["pixels"]) == np.count_nonzero(masks[0])
        assert model == "end_to_end_openvino" or rows[name]["pixels"] == expected[name]["pixels"]
    assert (rows["broken.png"]["status"], rows["notes.txt"]["status"]) == ("failed", "skipped")
    assert failures == [f"broken.png: unreadable image: {rows['broken.png']['detail']}"]
    assert str(folder) not in failures[0]
    assert rows["notes.txt"]["reason"] == "not an image"
    for name, kind in (("study", "DICOM"), ("volume.nii.gz", "NIfTI")):
        assert rows[name]["detail"].startswith(f"{kind}: an exported file reads images only")
    assert not list(out.rglob("*.tmp"))


def test_a_dry_run_names_every_file_as_that_of_the_bundle_does(end_to_end_onnx, folder, breast, tmp_path, mobileutr):
    (folder / "empty.png").touch()
    told = []
    for model in (end_to_end_onnx, breast):
        process = mobileutr("predict", model, folder, "--output", tmp_path / "out", "--dry-run")
        assert process.returncode == 1, process.stderr  # a file is empty
        told.append(dict(line.split(": ", 1) for line in process.stdout.splitlines()))
    assert told[0].keys() == told[1].keys()
    for name in ("a.jpg", "a.png", "sub/b.bmp", "broken.png", "empty.png", "notes.txt"):
        assert told[0][name] == told[1][name]
    assert told[0]["a.jpg"] == "image, would be segmented"
    assert told[0]["study"].startswith("would be skipped: DICOM: an exported file reads images only")
    assert not (tmp_path / "out").exists()


def test_the_installed_command_takes_it(end_to_end_onnx, folder, tmp_path):
    command = [sys.executable, "-c", "import sys; from mobileutr_monai.__main__ import command; sys.exit(command())"]
    arguments = ["predict", str(end_to_end_onnx), str(folder / "sub"), "--output", str(tmp_path / "out")]
    process = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stderr.startswith("1 case segmented, 0 failed, 0 skipped; see ")


def test_one_picture_is_one_case(end_to_end_onnx, folder, tmp_path, mobileutr):
    process = mobileutr("predict", end_to_end_onnx, folder / "sub", "--output", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert process.stderr.startswith("1 case segmented, 0 failed, 0 skipped; see ")


@pytest.fixture(scope="module")
def bright_pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that labels bright pixels: small, so that these tests are about files."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["numbers"], ["brightest"], axes=[2], keepdims=0),
        helper.make_node("Greater", ["brightest", "limit"], ["is_bright"]),
        helper.make_node("Cast", ["is_bright"], ["label"], to=TensorProto.UINT8),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["rows", "columns", 3])
    label = helper.make_tensor_value_info("label", TensorProto.UINT8, ["rows", "columns"])
    limit = helper.make_tensor("limit", TensorProto.INT32, [], [127])
    graph = helper.make_graph(nodes, "bright", [pixels], [label], [limit])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(
        model, {"end_to_end": "true", "channels": "3", "labels": '{"0": "background", "1": "bright"}'}
    )
    path = tmp_path_factory.mktemp("onnx") / "bright.onnx"
    onnx.save(model, path)
    return path


def save_image(path: Path, columns: int, value: int) -> None:
    """Makes an image of one value, but for one pixel: images of one value are refused."""
    image = Image.new("L", (columns, 8), value)
    image.putpixel((0, 0), 60)
    image.save(path)


def test_every_image_keeps_its_mask_whatever_the_names(bright_pixels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for grey, name in enumerate(("a.png", "a.jpg", "a_png.bmp")):
        save_image(folder / name, 8 + grey, 255 * (grey % 2))
    assert segment_folder(bright_pixels, folder, tmp_path / "out") == {"ok": 3, "failed": 0, "skipped": 0}
    masks = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*_mask.png")}
    assert sorted(mask.shape for mask in masks.values()) == [(8, 8), (8, 9), (8, 10)]
    assert [mask.any() for mask in sorted(masks.values(), key=np.size)] == [False, True, False]


def test_a_second_run_resumes_and_removes_nothing_of_others(
    bright_pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        save_image(folder / name, 8, 255)
    segment_folder(bright_pixels, folder, out)
    (out / "note.txt").write_text("mine")
    save_image(folder / "b.png", 9, 255)
    seen: list[str] = []
    segment = EndToEndModel.segment
    monkeypatch.setattr(EndToEndModel, "segment", lambda self, path: seen.append(path.name) or segment(self, path))
    assert segment_folder(bright_pixels, folder, out) == {"ok": 2, "failed": 0, "skipped": 0}
    assert seen == ["b.png"]
    assert (out / "note.txt").read_text() == "mine"
    assert np.asarray(Image.open(out / "b_mask.png")).shape == (8, 9)


def test_the_output_of_a_bundle_is_left_alone(end_to_end_onnx, folder, breast, tmp_path, mobileutr):
    run = tmp_path / "run"
    options = ("--output", run, "--no-overlays", "--no-page")
    assert mobileutr("predict", breast, folder, *options).returncode == 1
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    process = mobileutr("predict", end_to_end_onnx, folder, "--output", run)
    assert process.returncode == 2
    assert process.stderr.strip().endswith("choose another output folder, or replace them with --overwrite")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx", "FOLDER", "--output", "out"), "no ONNX file at none.onnx"),
        (("FOLDER/a.onnx", "FOLDER", "--output", "out"), "can run; make one with mobileutr export BUNDLE --end-to-end"),
        (("FOLDER/b.onnx", "FOLDER", "--output", "out"), "b.onnx is no ONNX model that onnxruntime"),
        (("FOLDER/c.onnx", "FOLDER", "--output", "out"), "takes no pixels; make one with mobileutr export"),
        (("none.xml", "FOLDER", "--output", "out"), "no OpenVINO file at none.xml"),
        (("FOLDER/a.xml", "FOLDER", "--output", "out"), "no a.bin next to "),
        (
            ("FOLDER/b.xml", "FOLDER", "--output", "out"),
            "can run; make one with mobileutr export BUNDLE --format openvino --end-to-end --output FILE.xml",
        ),
        (("FOLDER/c.xml", "FOLDER", "--output", "out"), "c.xml is an OpenVINO model, but takes no pixels; make one"),
        (("MODEL", "nowhere", "--output", "out"), "is not a folder"),
        (("MODEL", "FOLDER", "--output", "FOLDER/out"), "lies inside the input folder"),
        (("MODEL", "FOLDER", "--output", "out", "--weights", "x.pt"), "--weights is for bundles"),
        (("MODEL", "FOLDER", "--output", "out", "--format", "geojson"), "--format is for bundles"),
        (("MODEL", "FOLDER/sub", "--output", "out"), "no images in"),
        (("MODEL", "FOLDER", "--output", "taken"), "output folder taken is a file; choose another one"),
        (("MODEL", "FOLDER", "--output", "taken/out"), "cannot make the output folder taken/out: Not a directory"),
    ],
)
def test_bad_usage_gives_one_line_and_code_2(end_to_end_onnx, tmp_path, mobileutr, arguments, message):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.onnx").write_bytes(b"not ONNX")
    (folder / "b.onnx").touch()
    onnx.save(OTHER_MODEL, folder / "c.onnx")
    for name in ("a.xml", "b.xml", "b.bin"):
        (folder / name).write_text("not OpenVINO")
    openvino.save_model(openvino.convert_model(folder / "c.onnx"), folder / "c.xml")
    (folder / "a.png").write_bytes(b"")
    (tmp_path / "taken").write_text("")
    names = [text.replace("MODEL", str(end_to_end_onnx)).replace("FOLDER", str(folder)) for text in arguments]
    process = mobileutr("predict", *names, cwd=tmp_path)
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("mobileutr: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_files_of_others_stay_and_no_names_collide(bright_pixels, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = ["a.png", "a.jpg", "a_png.bmp", "A.PNG", "\u00e4.png", "a\u0308.png", "=1+1.png"]
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / name)
    assert segment_folder(bright_pixels, source, out)["failed"] == 0
    with (out / "report.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    masks = {unicodedata.normalize("NFC", row["output"]).casefold() for row in rows.values()}
    assert len(masks) == len(names) == len(list(out.glob("*_mask.png")))
    assert "'=1+1.png" in rows
    mask = out / rows["a.jpg"]["output"]
    mask.write_text("corrected by hand")
    (source / "a.png").unlink()
    kept = out / rows["a.png"]["output"]
    assert segment_folder(bright_pixels, source, out)["failed"] == 1
    assert mask.read_text() == "corrected by hand" and kept.is_file()
    with (out / "report.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["a.jpg"]["detail"].endswith(
        "was not written by this run; move it away, or choose another output folder"
    )
    assert rows["a.png"]["flag"] == "input is gone"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a_mask.png").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(a_mask.png\) and no run of mobileutr"):
        segment_folder(bright_pixels, source, tmp_path / "theirs")


@pytest.mark.slow
def test_openvino_is_exported_end_to_end_and_gives_the_masks_of_the_bundle(breast, tmp_path, mobileutr):
    model, samples = tmp_path / "breast.xml", breast / "sample_data" / "images"
    process = mobileutr("export", breast, "--format", "openvino", "--end-to-end", "--output", model)
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in tmp_path.glob("breast*")) == [
        "breast.bin",
        "breast.xml",
        "breast.xml.parity.json",
    ]
    assert mobileutr("predict", model, samples, "--output", tmp_path / "out").returncode == 0
    options = ("--no-overlays", "--no-page", "--workers", 0)
    assert mobileutr("predict", breast, samples, "--output", tmp_path / "expected", *options).returncode == 0
    masks = [
        np.concatenate([np.asarray(Image.open(path)).ravel() for path in sorted((tmp_path / name).glob("*_mask.png"))])
        for name in ("out", "expected")
    ]
    assert np.mean(masks[0] != masks[1]) <= MAX_MISMATCH_PERCENT / 100
