"""The batch runner on NIfTI volumes: geometry, volumes in ml, and what bad input gets."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from mobileutr_monai.inference.outputs.overlay import draw_volume

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "hippocampus_mri_segmentation"
SAMPLE = sorted((BUNDLE / "sample_data" / "images").iterdir())[0]


@pytest.fixture
def run(tmp_path):
    def run(**overrides) -> dict[tuple[str, str], dict[str, str]]:
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs" / "inference.json"))
        parser.read_meta(str(BUNDLE / "configs" / "metadata.json"))
        folders = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
        parser.update({"bundle_root": str(BUNDLE), **folders, **overrides})
        try:
            parser.get_parsed_content("runner").main()
        except SystemExit as stop:
            assert stop.code == 1
        with (tmp_path / "out" / "report.csv").open(newline="") as file:
            return {(row["case"], row["label"]): row for row in csv.DictReader(file)}

    (tmp_path / "in").mkdir()
    return run


def flip(image: nib.Nifti1Image, axcodes: str) -> nib.Nifti1Image:
    ornt = nib.orientations.axcodes2ornt(tuple(axcodes))
    start = nib.io_orientation(image.affine)
    return image.as_reoriented(nib.orientations.ornt_transform(start, ornt))


def test_mask_has_the_grid_of_the_file_whatever_its_orientation(run, tmp_path):
    image = nib.load(SAMPLE)
    nib.save(image, tmp_path / "in" / "ras.nii.gz")
    nib.save(flip(image, "LPS"), tmp_path / "in" / "lps.nii")
    nib.save(flip(image, "SAR"), tmp_path / "in" / "sar.nii.gz")
    rows = run()
    reference = nib.load(tmp_path / "out" / "ras_mask.nii.gz")
    labels = np.asarray(reference.dataobj)
    assert set(np.unique(labels)) == {0, 1, 2}
    for name in ("ras.nii.gz", "lps.nii", "sar.nii.gz"):
        source = nib.load(tmp_path / "in" / name)
        mask = nib.load(tmp_path / "out" / f"{name.split('.')[0]}_mask.nii.gz")
        assert mask.shape == source.shape
        assert np.allclose(mask.affine, source.affine)
        assert np.array_equal(np.asarray(flip(mask, "RAS").dataobj), labels)
        for index, label in ((1, "anterior"), (2, "posterior")):
            row = rows[name, label]
            assert int(row["pixels"]) == (labels == index).sum()
            assert float(row["volume_ml"]) == pytest.approx((labels == index).sum() / 1000, abs=1e-4)


def test_volume_in_ml_follows_the_voxel_size_and_is_absent_without_one(run, tmp_path):
    image = nib.load(SAMPLE)
    values = np.asarray(image.dataobj, dtype=np.float32)
    large = nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]))
    large.header.set_xyzt_units("mm")
    nib.save(large, tmp_path / "in" / "large.nii.gz")
    bare = nib.Nifti1Image(values, None)
    nib.save(bare, tmp_path / "in" / "bare.nii.gz")
    rows = run(overlays=False)
    row = rows["large.nii.gz", "anterior"]
    assert float(row["volume_ml"]) == pytest.approx(int(row["pixels"]) * 8 / 1000, abs=1e-3)
    assert rows["bare.nii.gz", "anterior"]["volume_ml"] == ""


@pytest.mark.parametrize(
    ("shape", "status", "detail"),
    [
        ((24, 30), "skipped", "a 2D image or cine; the bundle takes volumes"),
        ((24, 30, 20, 2), "failed", "the network expects 1 channel and 3 spatial dimensions; save the 1 channel that"),
    ],
)
def test_another_number_of_dimensions_costs_only_that_file(run, tmp_path, shape, status, detail):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "in" / "odd.nii.gz")
    nib.save(nib.load(SAMPLE), tmp_path / "in" / "good.nii.gz")
    rows = run(overlays=False)
    assert rows["odd.nii.gz", ""]["status"] == status
    assert detail in rows["odd.nii.gz", ""]["detail"]
    assert rows["good.nii.gz", "anterior"]["status"] == "ok"


def test_a_voxel_that_is_no_number_is_an_error_and_not_an_empty_mask(run, tmp_path):
    image = nib.load(SAMPLE)
    values = np.asarray(image.dataobj, dtype=np.float32).copy()
    values[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "in" / "nan.nii.gz")
    (row,) = run(overlays=False).values()
    assert (row["status"], row["reason"]) == ("failed", "unreadable image")
    assert "NaN" in row["detail"]


def test_a_run_writes_the_same_bytes_again(run, tmp_path):
    nib.save(nib.load(SAMPLE), tmp_path / "in" / "a.nii.gz")
    run(overlays=False)
    first = (tmp_path / "out" / "a_mask.nii.gz").read_bytes()
    run(overlays=False)
    assert (tmp_path / "out" / "a_mask.nii.gz").read_bytes() == first


def test_overlay_shows_the_patients_left_on_the_right_and_the_head_up():
    volume = np.zeros((40, 40, 40), np.float32)
    label = np.zeros((40, 40, 40), np.uint8)
    label[5:11, 28:34, 24:36] = 1  # RAS: left, front, up
    for affine, order in ((np.eye(4), (1, 1)), (np.diag([-1.0, -1.0, 1.0, 1.0]), (-1, -1))):
        picture = np.asarray(draw_volume(volume, label[:: order[0], :: order[1]], affine))
        rows, columns = np.nonzero(picture[..., 1] > 200)
        side = picture.shape[1] // 3
        axial = columns < side
        assert columns[axial].mean() > side / 2
        assert rows[axial].mean() < picture.shape[0] / 2
        coronal = (columns >= side) & (columns < 2 * side)
        assert columns[coronal].mean() - side > side / 2
        assert rows[coronal].mean() < picture.shape[0] / 2


def test_overlay_of_a_label_map_without_labels_shows_the_middle():
    picture = draw_volume(np.zeros((20, 30, 40)), np.zeros((20, 30, 40), np.uint8), np.eye(4))
    assert isinstance(picture, Image.Image)
    assert not np.asarray(picture).any()


def test_the_same_voxels_in_another_form_give_the_same_mask_and_the_same_mm(run, tmp_path):
    image = nib.load(SAMPLE)
    values, metres = np.asarray(image.dataobj, np.float32), np.array(image.affine)
    metres[:3] /= 1000
    forms = {"plain": nib.Nifti1Image(values, image.affine), "tail": nib.Nifti1Image(values[..., None], image.affine)}
    forms["metre"] = nib.Nifti1Image(values, metres)
    forms["metre"].header.set_xyzt_units("meter")
    turned = nib.Nifti1Image(values, image.affine)
    turned.set_sform(image.affine, 2)
    turned.set_qform(image.affine @ nib.affines.from_matvec(np.eye(3), (0, 8, 0)), 1)
    forms["turned"] = turned
    for name, form in forms.items():
        nib.save(form, tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "packed").write_bytes((tmp_path / "in" / "plain.nii.gz").read_bytes())
    rows = run()
    expected = np.asarray(nib.load(tmp_path / "out" / "plain_mask.nii.gz").dataobj)
    for name in (*(f"{form}.nii.gz" for form in forms), "packed"):
        mask = nib.load(tmp_path / "out" / rows[name, "anterior"]["output"])
        assert np.array_equal(np.asarray(mask.dataobj), expected), name
        for column in ("volume_ml", "diameter_mm", "confidence"):
            assert rows[name, "anterior"][column] == rows["plain.nii.gz", "anterior"][column]


def test_a_volume_of_one_value_fails_before_the_network(run, tmp_path):
    image = nib.load(SAMPLE)
    nib.save(nib.Nifti1Image(np.full(image.shape, 100, np.float32), image.affine), tmp_path / "in" / "blank.nii.gz")
    (row,) = run(overlays=False).values()
    assert (row["status"], row["reason"]) == ("failed", "unreadable image")
    assert row["detail"] == "all voxels have the value 100: there is nothing to segment"
