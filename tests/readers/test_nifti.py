"""NIfTI that lies: each is an error in one line that names the file, before its values are read."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import NibabelReader
from monai.transforms import LoadImage

from mobileutr_monai.readers.nifti import NiftiImageReader, NiftiVolumeReader
from mobileutr_monai.readers.nifti_file import count_dimensions
from mobileutr_monai.readers.nifti_geometry import read_unit

SHAPE = (8, 6, 4)
NAN = float("nan")


def make_nifti(shape: tuple[int, ...] = SHAPE) -> bytes:
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    image = nib.nifti1.Nifti1Image(values, np.diag([2.0, 1.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def put(data: bytes, offset: int, kind: str, *values: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(f"<{kind}", changed, offset, *values)
    return bytes(changed)


def bomb(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) + gzip.compress(bytes(2**20), mtime=0) * 64


LIES = {
    "no magic": (lambda data: put(data, 344, "4s", b"xxxx"), "not the NIfTI that its name says"),
    "empty": (lambda data: b"", "the file is empty"),
    "cut in the header": (lambda data: data[:300], "cut off"),
    "a billion voxels": (lambda data: put(data, 42, "3h", 32767, 32767, 32767), "voxels are declared, limit"),
    "more axes than there are": (lambda data: put(data, 40, "h", 9), "dim, the number of axes"),
    "a negative side": (lambda data: put(data, 42, "h", -8), "dim, the number of axes"),
    "values are missing": (lambda data: data[:-100], "bytes of values, its header says"),
    "more values than said": (lambda data: data + bytes(9), "more values than"),
    "an unknown type": (lambda data: put(data, 70, "h", 77), "datatype 77"),
    "complex numbers": (lambda data: put(data, 70, "hh", 32, 64), "datatype 32"),
    "bits that lie": (lambda data: put(data, 72, "h", 64), "bitpix is 64"),
    "an offset of NaN": (lambda data: put(data, 108, "f", NAN), "vox_offset"),
    "an offset into the header": (lambda data: put(data, 108, "f", 4), "within the header"),
    "an infinite slope": (lambda data: put(data, 112, "f", float("inf")), "scl_slope"),
    "an unknown unit": (lambda data: put(data, 123, "B", 255), "no unit of length"),
    "an affine of NaN": (lambda data: put(data, 280, "f", NAN), "no numbers"),
    "a singular affine": (lambda data: put(data, 280, "12f", *[1] * 12), "singular"),
    "voxels of a hundred kilometres": (lambda data: put(data, 280, "f", 1e8), "more than any patient"),
    "sheared by 1e30 mm": (lambda data: put(data, 288, "f", -1e30), "singular"),
    "values elsewhere": (lambda data: put(data, 344, "4s", b"ni1\0"), "in another file"),
}


@pytest.mark.parametrize(("lie", "words"), LIES.values(), ids=LIES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_lie_is_an_error_that_names_the_file(tmp_path: Path, lie, words, packed):
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(lie(make_nifti())) if packed else lie(make_nifti()))
    reader = NiftiVolumeReader()
    with pytest.raises(ValueError, match=words) as error:
        reader.get_data(reader.read(path))
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_a_bomb_is_inflated_no_further_than_its_header_says(tmp_path: Path):
    (tmp_path / "a.nii.gz").write_bytes(bomb(make_nifti()))
    reader = NiftiVolumeReader()
    with pytest.raises(ValueError, match="more values than"):
        reader.get_data(reader.read(tmp_path / "a.nii.gz"))


def test_reads_what_nibabel_reads(tmp_path: Path):
    (tmp_path / "a.nii").write_bytes(make_nifti())
    image = LoadImage(reader=NiftiVolumeReader())(tmp_path / "a.nii")
    expected = nib.load(tmp_path / "a.nii")
    assert np.array_equal(image.numpy(), expected.get_fdata())
    assert np.array_equal(image.affine, expected.affine)
    assert read_unit(expected.header) == "mm"


def test_files_of_one_channel_each_are_stacked_as_monai_does(tmp_path: Path):
    paths = [tmp_path / "a.nii", tmp_path / "b.nii"]
    for path in paths:
        path.write_bytes(make_nifti())
    image, expected = (LoadImage(reader=reader)(paths) for reader in (NiftiVolumeReader(), NibabelReader()))
    assert image.shape == expected.shape == (2, *SHAPE)
    assert np.array_equal(image.numpy(), expected.numpy())


def test_no_other_reader_guesses_at_what_is_no_nifti(tmp_path: Path):
    (tmp_path / "a.nii.gz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not the NIfTI that its name says"):
        LoadImage(reader=NiftiVolumeReader())(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("shape", "dims"), [((8, 6), 2), ((8, 6, 1), 2), ((8, 6, 4), 3)])
def test_counts_the_dimensions_of_what_it_reads(tmp_path: Path, shape, dims):
    (tmp_path / "a.nii").write_bytes(make_nifti(shape))
    assert count_dimensions(tmp_path / "a.nii") == dims
    if dims == 2:
        reader = NiftiImageReader("L")
        values, _ = reader.get_data(reader.read(tmp_path / "a.nii"))
        assert values.shape == (8, 6)


def test_a_unit_of_time_that_is_none_does_not_matter(tmp_path: Path):
    (tmp_path / "a.nii").write_bytes(put(make_nifti(), 123, "B", 2 | 56))
    reader = NiftiVolumeReader()
    reader.get_data(reader.read(tmp_path / "a.nii"))
    assert read_unit(nib.load(tmp_path / "a.nii").header) == "mm"


@pytest.mark.parametrize("shape", [(8, 6, 1, 1, 3), (8, 6, 1, 1, 1), (8, 6, 1, 1), "RGB"])
def test_an_image_is_2d_however_many_axes_of_one_follow(tmp_path: Path, shape):
    colours = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    if shape == "RGB":
        values = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(8, 6)
    else:
        values = np.broadcast_to(
            colours[:, :, None, None, : shape[-1]] if len(shape) == 5 else colours[:, :, :1, None], shape
        )
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    assert count_dimensions(tmp_path / "a.nii.gz") == 2
    reader = NiftiImageReader("RGB")
    found, _ = reader.get_data(reader.read(tmp_path / "a.nii.gz"))
    assert np.array_equal(
        found, colours if shape == "RGB" or shape[-1] == 3 else np.repeat(colours[..., :1], 3, axis=2)
    )


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_axes_of_one_behind_a_volume_are_none(tmp_path: Path, shape):
    (tmp_path / "a.nii").write_bytes(make_nifti(shape))
    image = LoadImage(reader=NiftiVolumeReader(), ensure_channel_first=True)(tmp_path / "a.nii")
    assert image.shape == (1, *SHAPE)


def test_more_axes_than_space_and_channels_are_an_error(tmp_path: Path):
    (tmp_path / "a.nii").write_bytes(make_nifti((4, 3, 2, 2, 3)))
    reader = NiftiVolumeReader()
    with pytest.raises(ValueError, match="4 x 3 x 2 x 2 x 3 values; give one file for each volume"):
        reader.get_data(reader.read(tmp_path / "a.nii"))
