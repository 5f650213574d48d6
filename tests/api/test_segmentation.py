"""The Python API finds what the command finds, in files and in objects in memory."""

from __future__ import annotations

import csv
import gc
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image
from pydicom import dcmread
from scipy import ndimage

import mobileutr_monai
from mobileutr_monai import load_bundle
from mobileutr_monai.api.result import SegmentationResult
from mobileutr_monai.api.segmentation import BundleSegmenter
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.report.row import FLAG_SEPARATOR
from mobileutr_monai.readers.video.frames import iter_video
from tests.dicom_samples import write_cine, write_series, write_still
from tests.video_samples import write_video

ROOT = Path(__file__).resolve().parents[2]
BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
HIPPOCAMPUS = ROOT / "bundles" / "hippocampus_mri_segmentation"
LESION = BREAST / "sample_data" / "images" / "benign (91).jpg"
VOLUME = HIPPOCAMPUS / "sample_data" / "images" / "hippocampus_093.nii.gz"
MEASURED = ("percent", "pixels", "area_mm2", "volume_ml", "diameter_px", "diameter_mm", "components", "frames")


@pytest.fixture(scope="module")
def breast() -> BundleSegmenter:
    return load_bundle("breast_ultrasound_segmentation", device="cpu")


@pytest.fixture(scope="module")
def hippocampus() -> BundleSegmenter:
    return load_bundle(HIPPOCAMPUS, device="cpu")


@pytest.fixture(scope="module")
def volume(hippocampus: BundleSegmenter) -> SegmentationResult:
    return hippocampus(VOLUME)


@pytest.fixture
def predict(mobileutr: Callable, tmp_path: Path) -> Callable:
    """Runs the command on a folder; returns name and label -> row, and a function that reads a mask."""

    def run(bundle: Path, folder: Path, *more: str) -> tuple[dict[tuple[str, str], dict[str, str]], Path]:
        options = ("--format", "plain", "--workers", 0, "--no-page", *(more or ("--no-overlays",)))
        process = mobileutr("predict", bundle, folder, "--output", tmp_path / "out", *options)
        assert process.returncode == 0, process.stderr
        with (tmp_path / "out" / "report.csv").open(newline="") as file:
            return {(row["case"], row["label"]): row for row in csv.DictReader(file)}, tmp_path / "out"

    return run


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj if path.name.endswith(".nii.gz") else Image.open(path))


def assert_same(result, rows: dict[tuple[str, str], dict[str, str]], folder: Path) -> None:
    for name, measured in result.measurements.items():
        row = rows[result.name, name]
        confidence = result.confidence[name]
        assert row["confidence"] == ("" if confidence is None else f"{round(confidence, 4)}")
        assert row["flag"] == FLAG_SEPARATOR.join(result.flags[name])
        for column in MEASURED:
            value = getattr(measured, column)
            assert row[column] == ("" if value is None else str(value)), column
        mask = read_mask(folder / row["output"])
        assert result.label.dtype == np.uint8
        assert np.array_equal(result.label, mask.reshape(result.label.shape))


@pytest.mark.parametrize(("name", "folder"), [("breast", BREAST), ("hippocampus", HIPPOCAMPUS)])
def test_a_folder_of_samples_gives_what_the_command_gives(name, folder, predict, request):
    segment = request.getfixturevalue(name)
    rows, out = predict(folder, folder / "sample_data" / "images")
    results = list(segment.many(folder / "sample_data" / "images"))
    assert [result.name for result in results] == sorted({case for case, _ in rows})
    for result in results:
        assert_same(result, rows, out)


def test_a_dicom_still_and_a_cine_give_what_the_command_gives(breast, predict, tmp_path):
    (tmp_path / "in").mkdir()
    write_still(LESION, "L", tmp_path / "in" / "a.dcm")
    write_cine(tmp_path / "in" / "a.dcm", tmp_path / "in" / "b.dcm")
    rows, out = predict(BREAST, tmp_path / "in")
    cine, still = breast.many([tmp_path / "in" / "b.dcm", tmp_path / "in" / "a.dcm"])
    assert (cine.name, still.name) == ("b.dcm", "a.dcm")
    assert cine.label.shape == (*still.label.shape, 2)
    assert_same(still, rows, out)
    stack = read_mask(out / rows["b.dcm", "lesion"]["output"])
    assert np.array_equal(cine.label, np.swapaxes(stack, 0, 1).reshape(cine.label.shape))
    assert cine.measurements["lesion"].frames == 2
    with pytest.raises(ValueError, match="probabilities of a cine or video are not kept"):
        _ = cine.probabilities


def test_a_video_gives_what_the_command_gives_and_each_frame_what_its_image_gives(breast, predict, tmp_path):
    av = pytest.importorskip("av")
    lesion = Image.open(LESION).convert("RGB").resize((301, 255))  # odd sides
    (tmp_path / "in").mkdir()
    times = (0.0, 0.1, 1.0)
    clip = write_video(tmp_path / "in" / "clip.mp4", [lesion, Image.new("RGB", lesion.size), lesion], times)
    rows, out = predict(BREAST, tmp_path / "in", "--whole-overlays")
    result = breast(clip)
    assert result.label.shape == (255, 301, 3)
    row = rows["clip.mp4", "lesion"]
    assert (row["kind"], row["shape"], row["output"]) == ("video", "255 x 301 x 3", "clip_mask.nii.gz")
    assert np.array_equal(result.label, np.swapaxes(read_mask(out / "clip_mask.nii.gz"), 0, 1))
    assert result.measurements["lesion"].frames == 2
    assert result.frame_times == pytest.approx(times, abs=1e-3)
    assert result.plot().size == lesion.size
    frames = [frame.pixels for frame in iter_video(clip)]
    for index in (0, 2):
        assert np.array_equal(breast(frames[index]).label, result.label[..., index])
    with (out / "clip_frames.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["pixels"]) for row in table] == np.count_nonzero(result.label, axis=(0, 1)).tolist()
    assert [float(row["seconds"]) for row in table] == pytest.approx(times, abs=1e-3)
    with av.open(str(out / "clip_overlay.mp4")) as overlay:
        assert overlay.streams.video[0].codec_context.name == "vp9"
        drawn = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in overlay.decode(video=0)]
    assert [time for time, _ in drawn] == pytest.approx(times, abs=1e-3)
    green = drawn[0][1].astype(int)
    contour = (green[..., 1] - np.maximum(green[..., 0], green[..., 2])) > 60
    assert contour.any() and not (contour & ~ndimage.binary_dilation(result.label[..., 0], iterations=3)).any()


def test_results_of_objects_in_memory_and_of_paths_given_twice_can_be_told_apart(breast):
    pixels = np.asarray(Image.open(LESION).convert("L").resize((64, 64)))
    results = list(breast.many([LESION, pixels, Image.fromarray(pixels), LESION]))
    assert [result.name for result in results] == [LESION.name, "image_1.png", "image_2.png", LESION.name]
    assert np.array_equal(results[0].label, results[3].label)
    with pytest.raises(ValueError, match=rf"{re.escape(LESION.name)} is given twice; .* many\(\) for a result each"):
        breast([LESION, LESION])


def test_another_modality_is_refused_with_the_argument_that_accepts_it(breast, tmp_path):
    write_still(LESION, "L", tmp_path / "a.dcm")
    dataset = dcmread(tmp_path / "a.dcm")
    dataset.Modality = "CT"
    with pytest.raises(ValueError, match=r'CT, the bundle is for US; .*settings=\{"any_modality": True\}\) accepts it'):
        breast(dataset)


def list_2d_inputs() -> Iterator[object]:
    grey = np.asarray(Image.open(LESION).convert("L"))
    yield pytest.param(lambda folder: Image.fromarray(grey), id="PIL image")
    yield pytest.param(lambda folder: grey, id="array")
    yield pytest.param(lambda folder: np.repeat(grey[..., None], 3, axis=2).astype(np.float64), id="array of colours")
    yield pytest.param(lambda folder: LoadImage(image_only=True)(folder / "grey.png"), id="MetaTensor")
    yield pytest.param(
        lambda folder: LoadImage(image_only=True, ensure_channel_first=True)(folder / "grey.png"),
        id="MetaTensor with a channel",
    )
    yield pytest.param(lambda folder: nib.Nifti1Image(grey.T, np.eye(4)), id="NIfTI image")
    yield pytest.param(lambda folder: dcmread(folder / "grey.dcm"), id="Dataset")
    yield pytest.param(lambda folder: str(folder / "grey.png"), id="path")


@pytest.mark.parametrize("make", list_2d_inputs())
def test_an_image_in_memory_gives_what_its_file_gives(make, breast, tmp_path):
    grey = Image.open(LESION).convert("L")
    grey = grey.crop((0, 0, grey.width // 2 * 2, grey.height // 2 * 2))
    grey.save(tmp_path / "grey.png")
    write_still(tmp_path / "grey.png", "L", tmp_path / "grey.dcm")
    expected = breast(tmp_path / "grey.png").label
    found = breast(make(tmp_path)).label[: grey.height, : grey.width]
    assert expected.any()
    assert np.mean(found != expected) < 0.002  # a row or column less moves the mask by a part of a pixel


def list_3d_inputs() -> Iterator[object]:
    image = nib.load(VOLUME)
    values = np.asarray(image.dataobj)
    yield pytest.param(lambda: (image, None), id="NIfTI image")
    yield pytest.param(lambda: (values, image.affine), id="array with affine")
    yield pytest.param(lambda: (LoadImage(image_only=True, ensure_channel_first=True)(VOLUME), None), id="MetaTensor")


@pytest.mark.parametrize("make", list_3d_inputs())
def test_a_volume_in_memory_gives_what_its_file_gives(make, hippocampus, volume):
    expected, found = volume, hippocampus(*make())
    assert np.array_equal(found.label, expected.label)
    assert np.allclose(found.affine, expected.affine)
    assert found.measurements["anterior"].volume_ml == expected.measurements["anterior"].volume_ml


def test_a_series_is_one_volume_as_a_folder_its_files_or_datasets(hippocampus, tmp_path):
    write_series(VOLUME, tmp_path)
    paths = sorted(tmp_path.iterdir())
    folder, datasets = hippocampus.many([tmp_path, [dcmread(path) for path in paths]])
    assert folder.label.max() == 2
    assert np.array_equal(folder.label, datasets.label)
    assert hippocampus._find_case(paths).case.kind is CaseKind.SERIES


def test_probabilities_have_the_image_s_size_and_make_the_label(breast, volume):
    image = breast(LESION)
    assert image.probabilities.shape == (2, *image.label.shape)
    assert np.array_equal(image.probabilities[1] >= 0.5, image.label == 1)
    assert volume.probabilities.shape == (3, *volume.label.shape)
    assert np.array_equal(volume.probabilities.argmax(0), volume.label)
    assert image.probabilities.dtype == volume.probabilities.dtype == np.float32


def test_results_come_in_order_and_errors_are_among_them(breast, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Image.new("L", (40, 30), 7).save(tmp_path / "flat.png")
    other = BREAST / "sample_data" / "images" / "malignant (37).jpg"
    given = [LESION, tmp_path / "broken.png", "nowhere.png", other, 3, tmp_path / "flat.png", LESION, VOLUME, []]
    results = list(breast.many(iter(given)))
    assert [result.error is None for result in results] == [True, False, False, True, False, False, True, False, False]
    assert np.array_equal(results[0].label, results[6].label)
    assert results[3].label.shape == Image.open(other).size[::-1]
    assert "there is nothing to segment" in str(results[5].error)
    assert results[7].error.reason is Reason.DIMENSION
    with pytest.raises(ValueError, match=r"nowhere\.png"):
        _ = results[2].label


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("nowhere.png", FileNotFoundError, "no image at 'nowhere.png'"),
        (ROOT / "README.md", ValueError, "README.md: not an image"),
        (VOLUME, ValueError, "the bundle takes images"),
        (BREAST / "sample_data" / "images", ValueError, "8 images, not one"),
        (np.zeros((4, 5, 6, 7)), ValueError, r"must be \(rows, columns\)"),
        (np.full((8, 8, 3), 0.5), ValueError, "whole numbers from 0 to 255"),
        (object(), TypeError, "must be a path"),
    ],
)
def test_what_cannot_be_segmented_is_an_error_in_one_line(image, error, message, breast):
    with pytest.raises(error, match=message) as raised:
        breast(image)
    assert "\n" not in str(raised.value)


def test_a_volume_without_affine_is_refused(hippocampus):
    with pytest.raises(ValueError, match="needs affine="):
        hippocampus(np.zeros((20, 20, 20)))


@pytest.mark.parametrize(
    ("bundle", "options", "error", "message"),
    [
        ("breast", {}, FileNotFoundError, "known names: breast_ultrasound_segmentation, colon"),
        (ROOT / "tests", {}, FileNotFoundError, "is not a bundle's folder"),
        (ROOT / "README.md", {}, (ValueError, FileNotFoundError), "README.md"),
        (BREAST, {"settings": {"tresh": 1}}, ValueError, "no id 'tresh'"),
        (BREAST, {"device": "gpu"}, ValueError, "device 'gpu' is unknown"),
        (BREAST, {"engine": "warp"}, ValueError, "engine 'warp' is unknown"),
        (BREAST, {"weights": "nowhere.pt"}, FileNotFoundError, "nowhere.pt"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_in_one_line(bundle, options, error, message):
    with pytest.raises(error, match=message) as raised:
        load_bundle(bundle, **options)
    assert "\n" not in str(raised.value)


def test_a_picture_has_contours_and_shows_no_name(breast, volume, tmp_path):
    result = breast(LESION)
    assert result.plot().size == Image.open(LESION).size
    assert np.any(np.asarray(result.plot()) != np.asarray(Image.open(LESION).convert("RGB")))
    assert volume.plot().mode == "RGB"
    write_still(LESION, "L", tmp_path / "still.dcm")
    still = breast(tmp_path / "still.dcm")
    with pytest.raises(ValueError, match="a burned-in name cannot be ruled out"):
        still.plot()
    assert still.plot(whole=True).size == still.label.shape[::-1]


def test_files_of_an_image_in_memory_go_with_its_result(breast, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = breast(Image.open(LESION))
    assert result.plot().size == Image.open(LESION).size
    assert list(tmp_path.iterdir())
    del result
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_change_no_result(breast):
    paths = sorted((BREAST / "sample_data" / "images").iterdir())[:3]
    one, two = list(breast.many(paths)), list(breast.many(paths, workers=1))
    assert all(np.array_equal(a.label, b.label) for a, b in zip(one, two, strict=True))


def test_a_packed_bundle_is_loaded_from_its_zip(breast, tmp_path):
    from scripts.pack_bundle import pack

    segment = load_bundle(pack(BREAST, tmp_path / "breast.zip"), settings={"threshold": 0.5})
    assert np.array_equal(segment(LESION).label, breast(LESION).label)


def test_the_package_says_its_version_and_what_it_lacks(mobileutr):
    assert mobileutr("--version").stdout.split() == ["mobileutr", mobileutr_monai.__version__]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mobileutr_monai.nothing


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), Image.new("L", (64, 64)), {"a": 1}, None, 3])
def test_one_image_is_no_list_of_images(breast, image):
    with pytest.raises(TypeError, match=r"many\(\) takes a folder or a list of images, got .*; give a list"):
        breast.many(image)
