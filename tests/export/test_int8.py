"""Int8 exports: what they are calibrated with and compared on, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from mobileutr_monai.core.choices import check_export
from mobileutr_monai.export.bundle import export_bundle
from mobileutr_monai.export.int8 import MAX_CALIBRATING, MAX_HELD_OUT, split_images


@pytest.mark.parametrize(("number", "held_out", "calibrating"), [(24, 5, 19), (160, 32, 64), (1000, MAX_HELD_OUT, 61)])
def test_images_to_compare_on_are_not_calibrated_with(
    number: int, held_out: int, calibrating: int, tmp_path: Path
) -> None:
    for index in range(number):
        (tmp_path / f"{index:04}.PNG").touch()
    (tmp_path / "notes.txt").touch()
    used, others = split_images(tmp_path)
    assert (len(others), len(used)) == (held_out, calibrating)
    assert not set(used) & set(others)
    assert len(used) <= MAX_CALIBRATING


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "one.png").touch()
    with pytest.raises(ValueError, match="holds 1 images; --int8 needs at least 16 to calibrate with"):
        split_images(tmp_path)


@pytest.mark.parametrize(
    ("file_format", "suffix", "end_to_end", "message"),
    [
        ("onnx", ".onnx", False, "--int8 is for --format openvino without --end-to-end"),
        ("openvino", ".xml", True, "--int8 is for --format openvino without --end-to-end"),
        ("openvino", ".xml", False, "--int8 takes a folder of images, got .*none"),
    ],
)
def test_int8_is_for_openvino_and_a_folder(
    file_format: str, suffix: str, end_to_end: bool, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        check_export(file_format, tmp_path / f"model{suffix}", end_to_end, tmp_path / "none")


def test_a_missing_package_is_one_line_with_its_remedy(
    breast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else find(name))
    with pytest.raises(ValueError, match=r'--int8 needs nncf: pip install "mobileutr-monai\[int8\]"'):
        export_bundle(breast, "openvino", tmp_path / "model.xml", int8=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_quantised_file_is_smaller_and_says_what_it_is(breast: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="not in dev: it brings scikit-learn")
    folder = tmp_path / "images"
    folder.mkdir()
    for path in (breast / "sample_data" / "images").iterdir():
        with Image.open(path) as image:
            for turn in (None, *list(Image.Transpose)[:2]):
                (image if turn is None else image.transpose(turn)).save(folder / f"{path.stem}-{turn}.png")
    made = export_bundle(breast, "openvino", tmp_path / "model.xml", int8=folder)
    content = json.loads(made.report.read_text())
    assert content["facts"]["precision"].startswith("int8")
    assert content["largest_logit_difference"] > 0
    assert content["percent_differing"] <= content["limit_percent"]
    assert len(content["images"]) == 8 + 5
    assert made.files[0].stat().st_size < 0.8 * (breast / "models" / "model.pt").stat().st_size
