"""Geometry from the raw headers of NIfTI: every unit, both forms, and contradictions refused with both values."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mobileutr_monai.inference.measure import measure_labels
from mobileutr_monai.inference.outputs.nifti import save_label_volume
from mobileutr_monai.readers.nifti import NiftiVolumeReader
from mobileutr_monai.readers.nifti_file import load_nifti, read_nifti_header, read_volume_geometry
from mobileutr_monai.readers.nifti_geometry import make_label_header, read_pixel_mm

SHAPE = (6, 5, 4)
AFFINE = np.array([[0.0, -2, 0, 9], [1.5, 0, 0, -3], [0, 0, 3, 7], [0, 0, 0, 1]])
SHEARED = np.array([[1.0, 0, 0, 0], [0, 1, 0.364, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a volume and changes raw fields of its header afterwards, as nibabel itself would not let them be."""

    def write(affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image, name: str = "a.nii", **fields: object) -> Path:
        values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
        image = kind(values, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 2)
        content = bytearray(image.to_bytes())
        size = image.header.sizeof_hdr
        header = type(image.header)(bytes(content[:size]), check=False)
        for field, value in fields.items():
            header[field] = value
        content[:size] = header.binaryblock
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize(("unit", "mm"), [(1, 1e3), (2, 1.0), (3, 1e-3), (0, 1.0), (1 | 8, 1e3)])
@pytest.mark.parametrize("forms", [{}, {"sform_code": 0}, {"qform_code": 0}])
def test_every_unit_of_length_becomes_mm_in_either_form(write: Write, unit: int, mm: float, forms: dict[str, int]):
    scaled = AFFINE.copy()
    scaled[:3] /= mm
    path = write(scaled, kind=nib.Nifti2Image, xyzt_units=unit, **forms)
    assert np.allclose(read_volume_geometry(path).affine, AFFINE, atol=1e-6)
    reader = NiftiVolumeReader()
    _, meta = reader.get_data(reader.read(path))
    assert np.allclose(meta["affine"], AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pixdim": [1, 0, 0, 0, 1, 1, 1, 1], "sform_code": 0}, "pixdim, the size of a voxel, is 0 x 0 x 0"),
        ({"pixdim": [1, 1.5, 2, 0, 1, 1, 1, 1]}, "pixdim, the size of a voxel, is 1.5 x 2 x 0"),
        ({"pixdim": [1, -1.5, 2, 3, 1, 1, 1, 1]}, "pixdim, the size of a voxel, is -1.5 x 2 x 3"),
        ({"pixdim": [1, np.nan, 2, 3, 1, 1, 1, 1], "sform_code": 0}, "nan x 2 x 3"),
        ({"pixdim": [1, 1.3, 1.3, 2, 1, 1, 1, 1]}, "1.5 x 2 x 3 mm by the sform and 1.3 x 1.3 x 2 mm by pixdim"),
        ({"pixdim": [-1, 1.5, 2, 3, 1, 1, 1, 1]}, "mirror images of each other"),
        ({"quatern_b": 1, "quatern_c": 1}, "is no rotation"),
        ({"srow_x": [0, 0, 0, 0]}, "singular"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_size_or_contradicts_itself_is_refused_with_the_values(write: Write, fields, words: str):
    path = write(**fields)
    with pytest.raises(ValueError, match=words) as error:
        read_volume_geometry(path)
    assert str(error.value).startswith(f"{path}: ")
    reader = NiftiVolumeReader()
    with pytest.raises(ValueError, match=words):
        reader.get_data(reader.read(path))


@pytest.mark.parametrize("handedness", [0, 0.5, np.nan])
def test_a_handedness_that_is_neither_1_nor_minus_1_is_1(write: Write, handedness: float):
    expected = read_volume_geometry(write(np.diag([1.5, 2, 3, 1]), sform_code=0)).affine
    path = write(np.diag([1.5, 2, 3, 1]), sform_code=0, pixdim=[handedness, 1.5, 2, 3, 1, 1, 1, 1])
    assert np.allclose(read_volume_geometry(path).affine, expected)


def test_of_two_places_the_sform_is_used_and_said(write: Write):
    path = write(qoffset_x=29.0, qoffset_y=-3.0)
    geometry = read_volume_geometry(path)
    assert np.allclose(geometry.affine, AFFINE)
    assert geometry.notes == ("sform and qform differ by up to 20 mm: the sform is used",)


def test_without_a_form_nothing_is_in_mm_and_the_assumed_axes_are_said(write: Write):
    geometry = read_volume_geometry(write(sform_code=0, qform_code=0))
    assert geometry.to_mm is None
    assert "neither qform nor sform: its axes are assumed to be LAS" in geometry.notes[0]


@pytest.mark.parametrize("distance", ["step", "slices"])
def test_a_sheared_voxel_has_the_volume_of_the_determinant(write: Write, distance: str):
    depth = np.linalg.norm(SHEARED[:3, 2]) if distance == "step" else 1.0
    geometry = read_volume_geometry(write(SHEARED, pixdim=[1, 1, 1, depth, 1, 1, 1, 1]))
    label = np.zeros((3, 20, 20), np.uint8)
    label[1, 2:12, 3:18] = 1
    (found,) = measure_labels(label, {1: "a"}, geometry.to_mm)
    assert found.volume_ml == pytest.approx(150 / 1000)
    corners = np.array([[1, y, z] for y in (2, 11) for z in (3, 17)]) @ SHEARED[:3, :3].T
    widest = max(np.linalg.norm(a - b) for a in corners for b in corners)
    assert found.diameter_mm == pytest.approx(widest, abs=0.01)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    "fields",
    [
        {"qoffset_x": 29.0},
        {"qform_code": 0, "sform_code": 0},
        {"qform_code": 3, "sform_code": 0, "xyzt_units": 1},
        {"qform_code": 0, "sform_code": 4, "xyzt_units": 3 | 8},
    ],
)
def test_a_mask_keeps_forms_codes_voxel_sizes_and_unit(write: Write, tmp_path: Path, kind: type, fields):
    source = read_nifti_header(write(kind=kind, **fields))
    label = np.ones(SHAPE, np.uint8)
    save_label_volume(label, source, tmp_path / "mask.nii.gz")
    mask = read_nifti_header(tmp_path / "mask.nii.gz")
    for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y"):
        assert np.array_equal(mask[field], source[field]), field
    assert np.array_equal(mask["pixdim"][:4], source["pixdim"][:4])
    assert mask["xyzt_units"] == source["xyzt_units"]
    assert np.array_equal(load_nifti(tmp_path / "mask.nii.gz").values, label)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), label)


def test_a_mask_of_a_big_endian_file_is_little_endian(write: Write):
    source = read_nifti_header(write()).as_byteswapped(">")
    assert np.array_equal(make_label_header(source, SHAPE)["srow_x"], source["srow_x"])
    assert make_label_header(source, SHAPE).endianness == "<"


def test_the_pixels_of_an_image_have_mm_only_where_they_are_stated(write: Write):
    assert read_pixel_mm(read_nifti_header(write(xyzt_units=1))) == pytest.approx((2000.0, 1500.0))
    assert read_pixel_mm(read_nifti_header(write(sform_code=0, qform_code=0))) is None
    assert read_pixel_mm(read_nifti_header(write(pixdim=[1, 0, 2, 1, 1, 1, 1, 1]))) is None


@pytest.mark.parametrize(
    ("name", "packed"), [("volume", True), ("volume", False), ("a.nii", True), ("a.nii.gz", False)]
)
def test_content_decides_whether_a_file_is_compressed(write: Write, name: str, packed: bool):
    path = write(name=name)
    expected = nib.Nifti1Image.from_bytes(path.read_bytes())
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(load_nifti(path).values, np.asarray(expected.dataobj))


def test_a_compressed_file_is_inflated_once(write: Write, monkeypatch: pytest.MonkeyPatch):
    path = write()
    path.write_bytes(gzip.compress(path.read_bytes()))
    opened = []
    real = gzip.GzipFile
    monkeypatch.setattr(gzip, "GzipFile", lambda **options: opened.append(1) or real(**options))
    reader = NiftiVolumeReader()
    reader.get_data(reader.read(path))
    assert len(opened) == 1
