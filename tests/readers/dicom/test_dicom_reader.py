"""The reader that bundles give to ``LoadImaged``."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, PILReader
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, LoadImaged
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.by_content import ReaderByContent
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.reader import DicomReader, read_volume
from mobileutr_monai.readers.dicom.series import find_dicom_cases
from mobileutr_monai.readers.image_reader import ImageFileReader
from mobileutr_monai.readers.nifti import NiftiImageReader
from mobileutr_monai.readers.pillow_io import to_mode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path, "PNG")
    return path


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("pixels", [COLOUR, COLOUR[..., 0]], ids=["colour", "grey"])
def test_a_still_is_what_pillow_would_give(write_dicom, tmp_path: Path, pixels: np.ndarray, mode: str) -> None:
    def convert(image: Image.Image) -> Image.Image:
        return to_mode(image, mode)

    expected = LoadImage(reader=PILReader(converter=convert))(write_png(tmp_path / "a.png", pixels))
    loaded = LoadImage(reader=DicomReader(mode=mode))(write_dicom("a.dcm", pixels))
    assert torch.equal(loaded, expected)
    for key in set(expected.meta) - {"filename_or_obj", "format"}:
        assert str(loaded.meta[key]) == str(expected.meta[key]), key
    assert EnsureChannelFirst()(loaded).shape == EnsureChannelFirst()(expected).shape


def test_readers_are_chosen_by_content(write_dicom, tmp_path: Path) -> None:
    load = LoadImage(reader=[PILReader(), DicomReader()])
    pixels = torch.as_tensor(COLOUR.transpose(1, 0, 2)).float()
    for path in (write_dicom("no_extension", COLOUR), write_dicom("called.png", COLOUR)):
        assert torch.equal(load(path), pixels)
    assert torch.equal(load(write_png(tmp_path / "called.dcm", COLOUR)), pixels)


def test_a_reader_of_several_kinds_asks_only_the_one_that_knows_the_file(
    write_dicom, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    readers = [ImageFileReader(), NiftiImageReader(), DicomReader()]
    load, each_tries = LoadImage(reader=ReaderByContent(readers)), LoadImage(reader=readers)
    nibabel.save(nibabel.Nifti1Image(COLOUR[..., 0], np.eye(4)), tmp_path / "a.nii")
    paths = (
        write_dicom("called.png", COLOUR),
        write_png(tmp_path / "called.dcm", COLOUR),
        tmp_path / "a.nii",
    )
    caplog.set_level(logging.INFO)
    for path in paths:
        loaded = load(path)
        assert "unable to load" not in caplog.text, path  # which LoadImage says of readers that failed
        expected = each_tries(path)
        assert torch.equal(loaded, expected)
        assert str(loaded.meta) == str(expected.meta)
        caplog.clear()


def test_a_reader_of_several_kinds_does_not_guess_what_one_refuses(write_dicom) -> None:
    load = LoadImage(reader=ReaderByContent([ImageFileReader(), DicomReader()]))
    with pytest.raises(DicomError, match=r"called\.png: pixels cannot be decoded"):
        load(write_dicom("called.png", COLOUR, Rows=13))
    with pytest.raises(ValueError, match="readers must be one at least, got none"):
        ReaderByContent([])


def test_verify_suffix_looks_at_the_content(write_dicom, tmp_path: Path) -> None:
    reader = DicomReader()
    still, png = write_dicom("folder/still", COLOUR), write_png(tmp_path / "a.dcm", COLOUR)
    assert reader.verify_suffix(still)
    assert reader.verify_suffix([still, str(still)])
    assert reader.verify_suffix(still.parent)
    assert not reader.verify_suffix(png)
    assert not reader.verify_suffix([still, png])
    assert not reader.verify_suffix(tmp_path / "nothing")


def test_no_other_reader_guesses_what_we_refuse(write_dicom) -> None:
    broken = write_dicom("a.dcm", COLOUR, Rows=13)
    with pytest.raises(DicomError, match=r"a\.dcm: pixels cannot be decoded"):
        LoadImage(reader=[PILReader(), DicomReader()])(broken)


def test_a_reader_goes_to_other_processes(write_dicom) -> None:
    reader = pickle.loads(pickle.dumps(DicomReader(mode="L", frame=1)))
    assert (reader.mode, reader.frame) == ("L", 1)
    error = pickle.loads(pickle.dumps(DicomError("a", Reason.SLICE_GAP, "here")))
    assert str(error) == "a: unevenly spaced slices: here"


def test_a_cine_is_read_frame_by_frame(write_dicom) -> None:
    cine = np.stack([COLOUR, 255 - COLOUR])
    path = write_dicom("cine", cine)
    with pytest.raises(DicomError, match=r"cine: more than one frame: 2 frames; .* frame, or .* iter_data") as error:
        LoadImage(reader=DicomReader())(path)
    assert error.value.reason is Reason.NOT_ONE_FRAME
    second = LoadImage(reader=DicomReader(frame=1))(path)
    assert np.array_equal(second.numpy(), cine[1].transpose(1, 0, 2))
    read = list(DicomReader().iter_data(path))
    assert np.array_equal([array for array, _ in read], cine.transpose(0, 2, 1, 3))
    assert read[0][1]["spatial_shape"].tolist() == [10, 12]
    assert len(list(DicomReader().iter_data(path, 1))) == 1


def write_slices(write_dicom: Any, folder: str, uid: str = "1.2.3.4") -> list[Path]:
    return [
        write_dicom(
            f"{folder}/{index}",
            np.full((4, 6), z, np.int16),
            Modality="CT",
            SeriesInstanceUID=uid,
            ImagePositionPatient=[0, 0, z],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[0.5, 0.8],
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        for index, z in enumerate((4, 0, 2))
    ]


def test_a_series_is_a_volume_in_order(write_dicom) -> None:
    paths = write_slices(write_dicom, "a")
    (paths[0].parent / "notes.txt").write_text("not DICOM")
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "PixelData": None}
    write_dicom("a/report", COLOUR, **report)
    for given in (paths, paths[0].parent):
        volume = LoadImage(reader=DicomReader())(given)
        assert isinstance(volume, MetaTensor)
        assert volume.shape == (6, 4, 3)
        assert volume[0, 0].tolist() == [-1024, -1022, -1020]
        assert np.allclose(volume.affine, [[-0.8, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
        assert EnsureChannelFirst()(volume).shape == (1, 6, 4, 3)


def test_more_than_a_series_is_refused_with_the_uids(write_dicom) -> None:
    paths = write_slices(write_dicom, "a") + write_slices(write_dicom, "b", uid="5.6.7")
    with pytest.raises(DicomError, match=r"more than one series or image: 2 images, of the series 1\.2\.3\.4, 5\.6\.7"):
        LoadImage(reader=DicomReader())(paths)


def test_a_gap_is_refused_with_the_positions(write_dicom) -> None:
    paths = write_slices(write_dicom, "a")
    dataset = dcmread(paths[0])
    dataset.ImagePositionPatient = [0, 0, 8]
    dataset.save_as(paths[0])
    with pytest.raises(DicomError, match=r"between \(0, 0, 2\) mm and \(0, 0, 8\) mm"):
        LoadImage(reader=DicomReader())(paths)


def test_frames_of_an_enhanced_image_are_ordered_and_rescaled(write_dicom) -> None:
    def item(**attributes: Any) -> Dataset:
        dataset = Dataset()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        return dataset

    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
    )
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])],
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")],
        )
        for z, slope in ((4, 1), (0, 10), (2, 100))
    ]
    path = write_dicom(
        "a",
        np.ones((3, 4, 6), np.uint16),
        Modality="MR",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
    volume = LoadImage(reader=DicomReader())(path)
    assert volume.shape == (6, 4, 3)
    assert volume[0, 0].tolist() == [10, 100, 1]
    assert LoadImage(reader=DicomReader(mode="L", frame=0))(path).shape == (6, 4)


def test_the_real_ct_lies_where_its_nifti_does(dicom_folder: Path) -> None:
    volume = LoadImage(reader=DicomReader())(dicom_folder / "ct_series_totalseg")
    labels = nibabel.load(dicom_folder.parent / "totalsegmentator_example" / "example_seg_dicom.nii.gz")
    # The NIfTI's rows run the other way.
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = volume.shape[1] - 1
    assert np.allclose(volume.affine @ flip, labels.affine)
    assert volume.shape == labels.shape
    regions = np.asarray(labels.dataobj)[:, ::-1]
    liver, bone = volume.numpy()[regions == 5], volume.numpy()[regions == 69]
    assert 50 < np.median(liver) < 150
    assert np.median(bone) > 300


def test_values_of_a_real_series_are_those_of_pydicom(dicom_folder: Path) -> None:
    (case,), _ = find_dicom_cases((dicom_folder / "ct_series_totalseg").iterdir())
    volume = read_volume(case)
    for index in (0, 7, 19):
        dataset = dcmread(case.paths[index])
        expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(volume[:, :, index].T, expected)
        corner = np.array([*map(float, dataset.ImagePositionPatient)]) * [-1, -1, 1]
        assert np.allclose((case.affine @ [0, 0, index, 1])[:3], corner)


@pytest.mark.parametrize("name", ["philips_mono_jpegll", "OBXXXX1A_rle", "US1_J2KR", "color-pl"])
def test_ultrasound_goes_through_a_bundles_transforms_as_its_png_does(
    dicom_folder: Path, breast: Path, tmp_path: Path, name: str
) -> None:
    parser = ConfigParser()
    parser.read_config(breast / "configs" / "inference.json")
    parser["bundle_root"] = str(breast)
    by_pillow = Compose(parser.get_parsed_content("image_transforms"))
    parser["image_reader"] = {"_target_": "mobileutr_monai.readers.dicom.reader.DicomReader", "mode": "@pillow_mode"}
    parser.parse(True)
    by_us = Compose(parser.get_parsed_content("image_transforms"))
    path = Path(shutil.copy(dicom_folder / "us" / f"{name}.dcm", tmp_path / "no_extension"))
    image = by_us({"image": str(path)})["image"]
    array, _ = LoadImage(reader=DicomReader(), image_only=False)(path)
    png = write_png(tmp_path / "a.png", array.numpy().astype(np.uint8).transpose(1, 0, 2))
    assert torch.equal(image, by_pillow({"image": str(png)})["image"])
    assert image.shape == (3, 256, 256)
    restored = by_us.inverse({"image": image})["image"]
    assert restored.shape[1:] == array.shape[:2]


def test_a_reader_can_be_named_in_a_config(write_dicom) -> None:
    load = LoadImaged(keys="image", reader="mobileutr_monai.readers.dicom.reader.DicomReader", mode="L")
    assert load({"image": write_dicom("a", COLOUR)})["image"].shape == (10, 12)
