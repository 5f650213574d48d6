"""``coco.json``: what pycocotools reads of it, and whose file it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from mobileutr_monai.bundle.running import run_bundle
from mobileutr_monai.datasets.annotations.formats import FORMATS
from mobileutr_monai.datasets.annotations.run_lengths import decode_runs
from tests.dicom_samples import write_cine, write_still

coco = pytest.importorskip("pycocotools.coco")

Run = Callable[..., int]


@pytest.fixture
def run(breast: Path, tmp_path: Path) -> Run:
    """Runs over an image, a NIfTI image, a still, a cine and what is no image; masks are not empty."""
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    gradient = Image.linear_gradient("L")
    gradient.resize((80, 60)).save(source / "picture.png")
    values = np.asarray(gradient.resize((50, 40)))
    nib.save(nib.Nifti1Image(values.T.copy(), np.eye(4)), source / "volume.nii.gz")
    write_still(source / "picture.png", "L", source / "sub" / "still.dcm")
    write_cine(source / "sub" / "still.dcm", source / "sub" / "cine.dcm")
    (source / "notes.txt").write_text("no image")

    def run(output_format: str = "coco", **overrides: object) -> int:
        overrides = {"image_size": [32, 32], "threshold": 0.02, "min_peak": 0, **overrides}
        overrides |= {"workers": 0, "overlays": False, "report_page": False, "output_format": output_format}
        return run_bundle(breast, source, tmp_path / "out", overrides)

    return run


def read_mask(path: Path) -> np.ndarray:
    if path.suffix == ".dcm":
        return dcmread(path).pixel_array.astype(np.uint8)
    return np.asarray(Image.open(path)) if path.suffix == ".png" else np.asarray(nib.load(path).dataobj).squeeze().T


@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
def test_pycocotools_reads_the_pixels_of_every_mask(run: Run, tmp_path: Path, seg_type: str) -> None:
    assert run(seg_type=seg_type) == 0
    out = tmp_path / "out"
    read = coco.COCO(out / "coco.json")
    masks = {"picture.png": "picture_mask.png", "sub/still.dcm": "sub/still_seg.dcm"}
    masks["volume.nii.gz"] = "volume_mask.nii.gz"
    images = {image["file_name"]: image for image in read.loadImgs(read.getImgIds())}
    assert images.keys() == masks.keys()
    assert [(item["id"], item["name"]) for item in read.loadCats(read.getCatIds())] == [(1, "lesion")]
    for name, mask in masks.items():
        expected = read_mask(out / mask)
        image = images[name]
        assert (image["height"], image["width"]) == expected.shape
        found = np.zeros_like(expected)
        for annotation in read.loadAnns(read.getAnnIds(imgIds=image["id"])):
            region = read.annToMask(annotation)
            found[region > 0] = annotation["category_id"]
            rows, columns = np.nonzero(region)
            assert annotation["area"] == len(rows) > 0
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert np.array_equal(found, expected)
    assert any(read_mask(out / mask).min() == 0 and read_mask(out / mask).max() == 1 for mask in masks.values())


def test_this_project_reads_it_as_annotations(run: Run, tmp_path: Path) -> None:
    assert run() == 0
    outlines = {outline.image: outline for outline in FORMATS["coco"](tmp_path / "out" / "coco.json")}
    assert outlines["picture.png"].label == "lesion"
    mask = decode_runs(outlines["picture.png"].runs or {}, (80, 60), "picture.png")
    assert np.array_equal(np.asarray(mask) > 0, read_mask(tmp_path / "out" / "picture_mask.png") > 0)


def test_it_is_of_the_results_that_are_there_after_every_run(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("auto") == 0
    assert not (out / "coco.json").exists()
    before = (out / "picture_mask.png").stat().st_mtime_ns
    assert run() == 0
    assert (out / "picture_mask.png").stat().st_mtime_ns == before, "the masks are not made again for it"
    first = (out / "coco.json").read_bytes()
    (tmp_path / "in" / "picture.png").rename(tmp_path / "in" / "other.png")
    assert run() == 0
    names = {image["file_name"] for image in json.loads((out / "coco.json").read_text())["images"]}
    assert names == {"other.png", "volume.nii.gz", "sub/still.dcm"}, "not of an input that is gone"
    (tmp_path / "in" / "other.png").rename(tmp_path / "in" / "picture.png")
    shutil.rmtree(out)
    assert run() == 0
    assert (out / "coco.json").read_bytes() == first
    assert run("auto") == 0
    assert not (out / "coco.json").exists(), "that of another run would be stale"


def test_a_file_of_others_stays_and_is_named_before_the_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "coco.json"
    assert run() == 0
    corrected = path.read_text().replace('"iscrowd": 0', '"iscrowd": 1')
    path.write_text(corrected)
    assert run() == 2
    assert f"{path} is in the output folder and was not written by this run; move it away" in capsys.readouterr().err
    assert run("auto") == 0
    assert path.read_text() == corrected


def test_a_result_that_cannot_be_read_costs_it_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such run lengths")

    monkeypatch.setattr("pycocotools.mask.encode", fail)
    assert run() == 0
    assert "no coco.json: no such run lengths; report.csv has all results" in caplog.messages
    assert sorted(path.name for path in (tmp_path / "out").glob("coco*")) == []
