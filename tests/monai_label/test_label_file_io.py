"""Label maps between DICOM and annotation tools: on the image's grid, or refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_samples import write_series, write_still
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel, write_segmentation
from mobileutr_monai.inference.outputs.dicom.seg_reader import read_segmentation
from mobileutr_monai.monai_label.label_file_io import read_label_file, read_one_case, to_nifti, write_label_file
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.nifti import NiftiImageReader

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
PICTURE = sorted((BUNDLES / "breast_ultrasound_segmentation" / "sample_data" / "images").iterdir())[0]
VOLUME = sorted((BUNDLES / "hippocampus_mri_segmentation" / "sample_data" / "images").iterdir())[0]
LABELS = [SegmentLabel(1, "anterior"), SegmentLabel(2, "posterior")]


@pytest.fixture(params=["still", "series"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "dicom"
    folder.mkdir()
    if request.param == "still":
        write_still(PICTURE, "RGB", folder / "still.dcm")
    else:
        write_series(VOLUME, folder)
    return folder


def draw(case) -> np.ndarray:
    """A label map without any symmetry."""
    shape = (case.rows, case.columns) if case.affine is None else (case.columns, case.rows, case.frames)
    label = np.zeros(shape, np.uint8)
    label[3:9, 5:16] = 1
    label[12:14, 2:5] = 2
    if case.affine is not None:
        label[..., : case.frames // 3] = 0
    return label


def test_a_label_map_comes_back_from_its_file(folder, tmp_path):
    case = read_one_case(folder)
    label = draw(case)
    write_label_file(label, case, tmp_path / "label.nii.gz")
    assert np.array_equal(read_label_file(tmp_path / "label.nii.gz", case), label)


def test_a_label_map_with_other_axes_is_put_back(tmp_path):
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_series(VOLUME, folder)
    case = read_one_case(folder)
    label = draw(case)
    turn = ornt_transform(io_orientation(case.affine), axcodes2ornt("PLS"))
    turned = nib.nifti1.Nifti1Image(label, case.affine).as_reoriented(turn)
    nib.save(turned, tmp_path / "label.nii.gz")
    assert np.array_equal(read_label_file(tmp_path / "label.nii.gz", case), label)


def test_a_label_map_of_another_grid_is_refused(folder, tmp_path):
    case = read_one_case(folder)
    if case.affine is None:
        path = tmp_path / "label.png"
        Image.fromarray(draw(case)[:-2]).save(path)
    else:
        path = tmp_path / "label.nii.gz"
        moved = np.array(case.affine)
        moved[0, 3] += 5
        nib.save(nib.nifti1.Nifti1Image(draw(case), moved), path)
    with pytest.raises(ValueError, match="not on the grid"):
        read_label_file(path, case)


def test_a_segmentation_is_read_as_the_label_map_it_was_written_from(folder, tmp_path):
    case = read_one_case(folder)
    label = draw(case)
    write_segmentation(case, label, LABELS, Algorithm("test", "1", "0" * 64), tmp_path / "seg.dcm")
    assert np.array_equal(read_segmentation(case, tmp_path / "seg.dcm", LABELS), label)
    renamed = [SegmentLabel(1, "Posterior"), SegmentLabel(2, "Anterior")]
    assert np.array_equal(read_segmentation(case, tmp_path / "seg.dcm", renamed), np.array([0, 2, 1])[label])


def test_a_segmentation_of_another_image_is_refused(folder, tmp_path):
    case = read_one_case(folder)
    write_segmentation(case, draw(case), LABELS, Algorithm("test", "1", "0" * 64), tmp_path / "seg.dcm")
    for path in folder.iterdir():
        path.unlink()
    if case.affine is None:
        write_still(PICTURE, "RGB", folder / "still.dcm")
    else:
        write_series(VOLUME, folder)
    with pytest.raises(DicomError, match="another image"):
        read_segmentation(read_one_case(folder), tmp_path / "seg.dcm", LABELS)


@pytest.mark.parametrize(("stored", "axes"), [("L", 3), ("RGB", 5)])
def test_a_still_as_nifti_has_the_pixels_of_the_still(stored, axes, tmp_path):
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_still(PICTURE, stored, folder / "still.dcm")
    image = to_nifti(read_one_case(folder))
    if stored == "RGB":  # a grey picture: make one of its pixels coloured
        values = np.repeat(np.asarray(image.dataobj)[..., None, None], 3, axis=-1)
        values[0, 0, 0, 0] = (10, 20, 30)
        image = nib.nifti1.Nifti1Image(values, image.affine)
    assert image.ndim == axes
    nib.save(image, tmp_path / "still.nii.gz")
    expected = np.asarray(image.dataobj).reshape(*image.shape[:2], -1).astype(np.float32)
    reader = NiftiImageReader("RGB")
    data, meta = reader.get_data(reader.read(tmp_path / "still.nii.gz"))
    assert tuple(meta["spatial_shape"]) == image.shape[:2]
    assert np.array_equal(data, np.broadcast_to(expected, data.shape))
    grey, _ = NiftiImageReader("L").get_data([tmp_path / "still.nii.gz"])
    pillow = Image.fromarray(data.astype(np.uint8)).convert("L")
    assert np.array_equal(grey, np.asarray(pillow, np.float32))
