"""Inputs that went wrong once, through a whole run: the same mask as their plain form, or a reason in plain words."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image
from pydicom import dcmread

from tests.dicom_samples import write_series, write_still

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT.parent / "shared" / "cases"
SMALL_VOLUMES = {"roi_size": [16, 16, 16], "spacing": [8.0, 8.0, 8.0]}
IMAGES, VOLUMES = "breast_ultrasound_segmentation", "hippocampus_mri_segmentation"
SAMPLE = sorted((ROOT / "bundles" / VOLUMES / "sample_data" / "images").iterdir())[0]
PICTURE = sorted((ROOT / "bundles" / IMAGES / "sample_data" / "images").iterdir())[0]

Rows = dict[str, dict[str, str]]
Run = Callable[..., Rows]

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no {CASES}")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a bundle over ``in`` without pictures; returns the first row of each case."""

    def run(name: str, **overrides: object) -> Rows:
        bundle = ROOT / "bundles" / name
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        folders = {"bundle_root": str(bundle), "dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
        parser.update({**folders, "overlays": False, "report_page": False, "workers": 0, **overrides})
        try:
            parser.get_parsed_content("runner").main()
        except SystemExit as stop:
            assert stop.code == 1
        rows: Rows = {}
        with (tmp_path / "out" / "report.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["case"], row)
        return rows

    (tmp_path / "in").mkdir()
    return run


# What each file is to be: "base", the mask of its plain form, or words of the detail of its failure.
IMAGE_CASES = {
    "exif3.jpg": "base",
    "white_is_zero16.tif": "base",
    "voi_8in16.dcm": "base",
    "voi_right.dcm": "base",
    "dcm_highbit11.dcm": "base",
    "dcm_highbit15.dcm": "base",
    "itk_rgb.nii.gz": "",
    "rgb10in16.png": "uses 4 of 256 levels",
    "pages.tif": "it holds 3 images",
    "jp2.jpg": "JPEG 2000 is not supported",
    "float16.tif": "16-bit floating-point values",
    "frames_uncounted_jpeg.dcm": "3 frames encoded, the header declares 1",
    "DMS.dcm": "",
}


@needs_cases
def test_images_of_public_reports(run: Run, tmp_path: Path) -> None:
    for name in ("base.png", *IMAGE_CASES):
        shutil.copy(CASES / name, tmp_path / "in" / name)
    rows = run(IMAGES, any_modality=True, output_format="plain")
    base = np.asarray(Image.open(tmp_path / "out" / rows["base.png"]["output"])) > 0
    for name, expected in IMAGE_CASES.items():
        row = rows[name]
        if expected not in ("", "base"):
            assert row["status"] == "failed" and expected in row["detail"], (name, row["detail"])
            continue
        assert row["status"] == "ok", (name, row["detail"])
        if expected == "base":
            mask = np.asarray(Image.open(tmp_path / "out" / row["output"])) > 0
            # Lossy, or rounded at another depth.
            assert 2 * (mask & base).sum() / (mask.sum() + base.sum()) > 0.99, name


VOLUME_CASES = {
    "unit_meter.nii.gz": "base",
    "forms_differ.nii.gz": "base",
    "tail1.nii.gz": "base",
    "nosuffix_packed": "",
    "sheared.nii.gz": "",
    "no_forms.nii.gz": "",
    "sform_of_voxels.nii.gz": "1 x 1 x 1 mm by the sform and 1.3 x 1.3 x 2 mm by pixdim",
    "zero_pixdim.nii.gz": "pixdim, the size of a voxel, is 0 x 0 x 0",
    "blank.nii.gz": "all voxels have the value 100",
}


@needs_cases
def test_volumes_of_public_reports(run: Run, tmp_path: Path) -> None:
    for name in ("base.nii.gz", *VOLUME_CASES):
        shutil.copy(CASES / name, tmp_path / "in" / name)
    shutil.copytree(CASES / "same_uid", tmp_path / "in" / "same_uid")
    rows = run(VOLUMES)
    base = np.asarray(nib.load(tmp_path / "out" / rows["base.nii.gz"]["output"]).dataobj)
    for name, expected in VOLUME_CASES.items():
        row = rows[name]
        if expected not in ("", "base"):
            assert row["status"] == "failed" and expected in row["detail"], (name, row["detail"])
            continue
        mask = nib.load(tmp_path / "out" / row["output"])
        if expected == "base":
            assert np.array_equal(np.asarray(mask.dataobj), base), name
        if name.endswith(".nii.gz"):
            source = nib.load(tmp_path / "in" / name).header
            for field in ("qform_code", "sform_code", "xyzt_units", "quatern_d", "qoffset_x", "srow_x", "srow_y"):
                assert np.array_equal(mask.header[field], source[field]), (name, field)
            assert np.array_equal(mask.header["pixdim"][:4], source["pixdim"][:4])
    sheared = nib.load(tmp_path / "out" / rows["sheared.nii.gz"]["output"])
    voxels = np.count_nonzero(np.asarray(sheared.dataobj) == 1)
    volume = voxels * abs(np.linalg.det(sheared.affine[:3, :3])) / 1000
    assert float(rows["sheared.nii.gz"]["volume_ml"]) == pytest.approx(volume, abs=0.001) != 0
    assert rows["no_forms.nii.gz"]["volume_ml"] == ""
    (shared_uid,) = (row for name, row in rows.items() if name.startswith("same_uid"))
    assert (shared_uid["status"], shared_uid["reason"]) == ("failed", "files that share a SOP instance UID")


def test_series_of_one_value_tilted_or_without_a_study(run: Run, tmp_path: Path) -> None:
    for name in ("flat", "tilted", "nameless"):
        (tmp_path / "in" / name).mkdir()
        write_series(SAMPLE, tmp_path / "in" / name)
        for path in (tmp_path / "in" / name).iterdir():
            dataset = dcmread(path)
            if name == "flat":
                dataset.RescaleSlope, dataset.RescaleIntercept = 0, 7
            elif name == "tilted":
                x, y, z = dataset.ImagePositionPatient
                dataset.ImagePositionPatient = [x, float(y) + 0.364 * float(z), z]
            else:
                del dataset.StudyInstanceUID
            dataset.save_as(path)
    rows = {name.split("/")[0]: row for name, row in run(VOLUMES, **SMALL_VOLUMES).items()}
    assert (rows["flat"]["status"], rows["flat"]["reason"]) == ("failed", "unreadable image")
    assert rows["flat"]["detail"] == "all voxels have the value 7: there is nothing to segment"
    # A voxel of 1 x 1 x 1 mm, whose slices are shifted: longer along its third axis, but no larger.
    assert float(rows["tilted"]["volume_ml"]) == pytest.approx(int(rows["tilted"]["pixels"]) / 1000, abs=1e-3)
    # A segmentation would refer to a study that does not exist.
    assert rows["nameless"]["output"].endswith("_mask.nii.gz")
    assert "without StudyInstanceUID" in rows["nameless"]["detail"]


def test_a_still_of_one_value_fails_and_one_without_a_series_gets_a_plain_mask(run: Run, tmp_path: Path) -> None:
    for name in ("flat", "nameless"):
        write_still(PICTURE, "L", tmp_path / "in" / f"{name}.dcm")
        dataset = dcmread(tmp_path / "in" / f"{name}.dcm")
        if name == "flat":
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.WindowCenter, dataset.WindowWidth = 0, 7, 7, 20
        else:
            del dataset.SeriesInstanceUID
        dataset.save_as(tmp_path / "in" / f"{name}.dcm")
    rows = run(IMAGES, whole_overlays=True, image_size=[32, 32])
    assert rows["flat.dcm"]["status"] == "failed"
    assert "there is nothing to segment" in rows["flat.dcm"]["detail"]
    assert rows["nameless.dcm"]["output"] == "nameless_mask.png"
    assert "without SeriesInstanceUID" in rows["nameless.dcm"]["detail"]


def test_frames_of_mr_without_positions_are_no_cine_for_a_bundle_of_volumes(run: Run, tmp_path: Path) -> None:
    write_series(SAMPLE, tmp_path / "in")
    paths = sorted((tmp_path / "in").iterdir())
    dataset = dcmread(paths[0])
    dataset.NumberOfFrames, dataset.PixelData = 3, dataset.PixelData * 3
    for path in paths[1:]:
        path.unlink()
    dataset.save_as(paths[0])
    shutil.copy(SAMPLE, tmp_path / "in" / "a.nii.gz")
    row = run(VOLUMES, **SMALL_VOLUMES)[paths[0].name]
    assert (row["status"], row["reason"]) == ("skipped", "not for this bundle's dimensions")
    assert row["detail"].startswith("no volume: 3 frames of MR without ImagePositionPatient")
