"""NRRD and MetaImage give the masks of the same volume in NIfTI."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.readers import cases
from mobileutr_monai.readers.cases import find_cases
from mobileutr_monai.readers.converted import itk

sitk = pytest.importorskip("SimpleITK")

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "hippocampus_mri_segmentation"
VOLUME = BUNDLE / "sample_data" / "images" / "hippocampus_093.nii.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    image = sitk.ReadImage(str(VOLUME))
    shutil.copy(VOLUME, tmp_path / "in" / "base.nii.gz")
    sitk.WriteImage(image, str(tmp_path / "in" / "a.nrrd"))
    sitk.WriteImage(image, str(tmp_path / "in" / "deep" / "b.mha"))
    return tmp_path / "in"


@pytest.mark.slow
def test_nrrd_and_metaimage_give_the_mask_of_nifti(folder: Path, mobileutr: Callable, tmp_path: Path) -> None:
    sitk.WriteImage(sitk.ReadImage(str(VOLUME)), str(folder / "detached.mhd"))
    options = ("--workers", 0, "--no-overlays", "--no-page")
    command = ("predict", BUNDLE, folder, "--output", tmp_path / "out", *options)
    process = mobileutr(*command)
    assert process.returncode == 0, process.stderr
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        rows = {(row["case"], row["label"]): row for row in csv.DictReader(file) if row["status"] == "ok"}
    assert {case for case, _ in rows} == {"base.nii.gz", "a.nrrd", "deep/b.mha", "detached.mhd"}
    base = nib.load(tmp_path / "out" / rows["base.nii.gz", "anterior"]["output"])
    assert rows["a.nrrd", "anterior"]["output"] == "a_mask.nii.gz"
    for case in ("a.nrrd", "deep/b.mha", "detached.mhd"):
        row = rows[case, "anterior"]
        mask = nib.load(tmp_path / "out" / row["output"])
        assert np.array_equal(np.asarray(mask.dataobj), np.asarray(base.dataobj))
        assert np.allclose(mask.affine, base.affine, atol=1e-4)
        assert row["volume_ml"] == rows["base.nii.gz", "anterior"]["volume_ml"]
    assert not (tmp_path / "out" / ".unpacked").exists()
    resumed = mobileutr(*command)
    assert "4 cases segmented" in resumed.stderr
    with (tmp_path / "out" / "report.csv").open(newline="") as file:  # nothing was segmented again
        assert all(
            row["seconds"] == rows[row["case"], row["label"]]["seconds"] for row in csv.DictReader(file) if row["label"]
        )


def test_a_volume_without_a_voxel_size_is_not_measured_in_mm(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nendian: little\nencoding: raw\n\n"
    values = np.arange(120, dtype="<i2")
    (tmp_path / "in" / "bare.nrrd").write_bytes(header + values.tobytes())
    (case,) = find_cases(tmp_path / "in", tmp_path / "unpacked").cases
    assert (case.name, case.output, case.kind) == ("bare.nrrd", "bare", CaseKind.NIFTI)
    image = nib.load(case.paths[0])
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 0)
    assert np.array_equal(np.asarray(image.dataobj), values.reshape((4, 5, 6), order="F"))


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("a.nrrd", b"NRRD0004\ntype: short\n", "hit end of header"),
        ("a.mhd", b"ObjectType = Image\nNDims = 3\nElementDataFile = /etc/passwd\n", "its values are in '/etc/passwd'"),
        ("a.nhdr", b"NRRD0004\ntype: short\ndata file: ../x.raw\n", "its values are in '../x.raw'"),
        ("a.seg.nrrd", b"NRRD0004\nSegment0_ID:=1\n", "it is a segmentation of 3D Slicer"),
        (
            "a.nrrd",
            b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9999 9999 99\nendian: little\nencoding: raw\n\n",
            "9898020099 voxels are declared, limit",
        ),
    ],
)
def test_a_file_that_cannot_be_converted_fails_alone(name: str, content: bytes, detail: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    found = find_cases(tmp_path / "in", tmp_path / "unpacked")
    assert not found.cases
    (file,) = found.unused
    assert file.failed
    assert detail in file.detail
    assert "\n" not in file.detail


def test_without_simpleitk_the_report_says_what_to_install(folder: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cases, "can_convert", lambda: False)
    found = find_cases(folder, tmp_path / "unpacked")
    assert [case.name for case in found.cases] == ["base.nii.gz"]
    assert all(file.detail.endswith('or pip install "mobileutr-monai[itk]"') for file in found.unused)
    assert len(found.unused) == 2


def test_a_crash_or_a_file_that_takes_too_long_costs_itself(folder: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(itk, "TIME_LIMIT", 0.01)
    found = find_cases(folder, tmp_path / "unpacked")
    assert [case.name for case in found.cases] == ["base.nii.gz"]
    assert {file.reason.value for file in found.unused} == {"took too long"}
