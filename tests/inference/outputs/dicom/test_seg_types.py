"""LABELMAP and fractional segmentations: the same pixels when highdicom reads them, and what dciodvfy says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, SegmentationStorage, UltrasoundImageStorage
from test_seg import (
    ALGORITHM,
    COLUMNS,
    CREATED,
    LABELS,
    REAL,
    ROWS,
    SLICES,
    find_case,
    find_errors,
    label_any,
    make_enhanced,
    make_image,
    paint,
    save,
)

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.outputs.dicom.provenance import OutputCheckError
from mobileutr_monai.inference.outputs.dicom.seg import write_probabilities, write_segmentation
from mobileutr_monai.inference.outputs.dicom.seg_reader import read_segmentation
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.series import DicomCase

highdicom = pytest.importorskip("highdicom")

NUMBERS = [1, 2, 3]
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")


@pytest.fixture
def still(tmp_path: Path) -> DicomCase:
    return find_case(save(make_image(UltrasoundImageStorage, "US"), tmp_path / "still"))


@pytest.fixture
def volume(tmp_path: Path) -> DicomCase:
    return make_enhanced(tmp_path / "enhanced", [3, 0, 4, 1, 2])


def make_probabilities(label: np.ndarray) -> np.ndarray:
    """High where the label is and low elsewhere; the last label is 0 everywhere, and so is one slice of a volume."""
    random = np.random.default_rng(0)
    found = [np.where(label == number, 255, random.integers(0, 100, label.shape)) for number in NUMBERS[:2]]
    probabilities = np.stack([*found, np.zeros(label.shape)]).astype(np.uint8)
    if label.ndim == 3:
        probabilities[..., 2] = 0
    return probabilities


def write(case: DicomCase, kind: str, output: Path, **options: bool) -> np.ndarray:
    """Writes a segmentation of a kind; returns what it was made of."""
    label = label_any(case)
    if kind == "fractional":
        probabilities = make_probabilities(label)
        write_probabilities(case, probabilities, LABELS, ALGORITHM, output, created=CREATED, **options)
        return probabilities
    write_segmentation(case, label, LABELS, ALGORITHM, output, seg_type=kind, created=CREATED, **options)
    return label


def read_pixels(case: DicomCase, path: Path, **options: bool) -> np.ndarray:
    """Returns what highdicom reads, with the axes of a label map, segments first if they are not combined."""
    segmentation = highdicom.seg.segread(path)
    given = {"ignore_spatial_locations": True, "assert_missing_frames_are_empty": True, **options}
    if case.frame_order:
        frames = [frame + 1 for frame in case.frame_order]
        found = segmentation.get_pixels_by_source_frame(case.sop_uids[0], frames, **given)
    else:
        found = segmentation.get_pixels_by_source_instance(list(case.sop_uids), **given)
    if case.kind is CaseKind.STILL:
        return np.moveaxis(found[0], -1, 0) if found.ndim == 4 else found[0]
    return found.transpose(3, 2, 1, 0) if found.ndim == 4 else found.transpose(2, 1, 0)


@pytest.mark.parametrize("keep_empty_frames", [False, True])
@pytest.mark.parametrize("kind", ["still", "volume"])
def test_a_labelmap_is_read_as_the_label_map(
    kind: str, keep_empty_frames: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case = request.getfixturevalue(kind)
    label = write(case, "labelmap", tmp_path / "seg.dcm", keep_empty_frames=keep_empty_frames)

    np.testing.assert_array_equal(read_pixels(case, tmp_path / "seg.dcm", combine_segments=True), label)
    np.testing.assert_array_equal(read_segmentation(case, tmp_path / "seg.dcm", LABELS), label)
    dataset = dcmread(tmp_path / "seg.dcm")
    assert dataset.SOPClassUID == LABEL_MAP_STORAGE
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == ["Background", "front", "back", "nowhere"]
    assert dataset.NumberOfFrames == case.frames - (kind == "volume" and not keep_empty_frames)


@pytest.mark.parametrize("keep_empty_frames", [False, True])
@pytest.mark.parametrize("kind", ["still", "volume"])
def test_probabilities_are_read_as_they_were_written(
    kind: str, keep_empty_frames: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case = request.getfixturevalue(kind)
    probabilities = write(case, "fractional", tmp_path / "seg.dcm", keep_empty_frames=keep_empty_frames)

    found = read_pixels(case, tmp_path / "seg.dcm", rescale_fractional=True)
    np.testing.assert_allclose(found, probabilities / 255, atol=1e-6)
    dataset = dcmread(tmp_path / "seg.dcm")
    assert (dataset.SegmentationFractionalType, dataset.MaximumFractionalValue) == ("PROBABILITY", 255)
    filled = 2 * (case.frames - (kind == "volume"))
    assert dataset.NumberOfFrames == (3 * case.frames if keep_empty_frames else filled)
    with pytest.raises(DicomError, match="a fractional segmentation holds no label map"):
        read_segmentation(case, tmp_path / "seg.dcm", LABELS)


def test_each_kind_is_an_object_of_its_own(still: DicomCase, tmp_path: Path) -> None:
    datasets = {}
    for kind in ("binary", "labelmap", "fractional"):
        write(still, kind, tmp_path / kind)
        datasets[kind] = dcmread(tmp_path / kind)
    assert len({dataset.SOPInstanceUID for dataset in datasets.values()}) == 3
    assert datasets["binary"].SeriesInstanceUID == datasets["labelmap"].SeriesInstanceUID
    assert datasets["binary"].SeriesInstanceUID != datasets["fractional"].SeriesInstanceUID
    assert datasets["fractional"].SeriesDescription.endswith("probabilities")


@pytest.mark.parametrize("kind", ["labelmap", "fractional"])
@pytest.mark.parametrize("fault", ["lost", "moved"])
def test_pixels_that_highdicom_loses_are_noticed(
    volume: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fault: str
) -> None:
    class Faulty(highdicom.seg.Segmentation):
        def __init__(self, pixel_array: np.ndarray, **arguments: object) -> None:
            pixels = np.roll(pixel_array, 1, axis=0)
            if fault == "lost":
                pixels = pixel_array.copy()
                pixels[1] = 0
            super().__init__(pixel_array=pixels, **arguments)

    monkeypatch.setattr(highdicom.seg, "Segmentation", Faulty)
    with pytest.raises(OutputCheckError, match=r"seg\.dcm"):
        write(volume, kind, tmp_path / "seg.dcm")
    assert not list(tmp_path.glob("seg.dcm*"))


def test_what_does_not_fit_is_an_error(still: DicomCase, tmp_path: Path) -> None:
    label = label_any(still)
    with pytest.raises(ValueError, match="seg_type must be binary or labelmap, got 'fractional'"):
        write_segmentation(still, label, LABELS, ALGORITHM, tmp_path / "seg.dcm", seg_type="fractional")
    for wrong in (make_probabilities(label)[:2], make_probabilities(label) / 255, paint((COLUMNS, ROWS), SLICES)):
        with pytest.raises(ValueError, match="the DICOM still needs"):
            write_probabilities(still, wrong, LABELS, ALGORITHM, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


@needs_dciodvfy
@pytest.mark.skipif(not REAL, reason="the real DICOM files are not next to the project")
@pytest.mark.parametrize("case", REAL)
@pytest.mark.parametrize("kind", ["labelmap", "fractional"])
def test_real_sources_are_read_back_and_have_no_new_error(case: DicomCase, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    expected = write(case, kind, path)
    if kind == "labelmap":
        np.testing.assert_array_equal(read_segmentation(case, path, LABELS), expected)
        declare_as_binary(path)
    else:
        np.testing.assert_allclose(read_pixels(case, path, rescale_fractional=True), expected / 255, atol=1e-6)
    in_source = set().union(*(find_errors(source) for source in case.paths))
    wrong_uids = [uid for uid in case.sop_uids if any(uid in error for error in in_source)]
    new = {error for error in find_errors(path) - in_source if not any(uid in error for uid in wrong_uids)}
    assert not {error for error in new if not (kind == "labelmap" and is_of_labelmaps(error))}


def declare_as_binary(path: Path) -> None:
    """Declares a LABELMAP to be of the older SOP class: dciodvfy of 2022 does not know the new one, of 2024."""
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    del dataset.SegmentSequence[0]  # the background, number 0
    dataset.save_as(path)


def is_of_labelmaps(error: str) -> bool:
    """Whether an error is about what is defined for LABELMAP alone: its name, and frames that are of no segment."""
    return (
        "<LABELMAP> for value 1 of attribute <Segmentation Type>" in error or "SegmentIdentificationSequence" in error
    )


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("spacing", [None, [0.25, 0.5]])
def test_a_still_may_get_a_synthetic_place_that_says_so(kind: str, spacing: list[float] | None, tmp_path: Path) -> None:
    image = make_image(UltrasoundImageStorage, "US")
    if spacing:
        image = make_image(CTImageStorage, "CT")
        image.PixelSpacing = spacing
    case = find_case(save(image, tmp_path / "still"))
    label = write(case, kind, tmp_path / "plain.dcm")
    write(case, kind, tmp_path / "placed.dcm", place_stills=True)
    plain, placed = dcmread(tmp_path / "plain.dcm"), dcmread(tmp_path / "placed.dcm")
    assert "FrameOfReferenceUID" not in plain and placed.FrameOfReferenceUID and "FrameOfReferenceUID" not in image
    assert plain.SOPInstanceUID != placed.SOPInstanceUID
    assert np.array_equal(read_pixels(case, tmp_path / "placed.dcm", combine_segments=True), label)
    shared, frame = placed.SharedFunctionalGroupsSequence[0], placed.PerFrameFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == (spacing or [1, 1])
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    derivation = frame.DerivationImageSequence[0]
    assert derivation.DerivationDescription.startswith("Place and slice thickness are synthetic")
    assert ("PixelSpacing is synthetic" in derivation.DerivationDescription) is (spacing is None)
    assert derivation.SourceImageSequence[0].ReferencedSOPInstanceUID == case.sop_uids[0]
    if kind == "binary" and shutil.which("dciodvfy") is not None:
        assert not find_errors(tmp_path / "placed.dcm") - find_errors(tmp_path / "plain.dcm")


def test_a_still_with_a_place_keeps_it(tmp_path: Path) -> None:
    image = make_image(UltrasoundImageStorage, "US")
    image.FrameOfReferenceUID, image.PixelSpacing, image.SliceThickness = "1.2.3", [0.5, 0.5], 3
    image.ImagePositionPatient, image.ImageOrientationPatient = [1, 2, 3], [0, 1, 0, 0, 0, -1]
    case = find_case(save(image, tmp_path / "still"))
    for name, options in (("a", {}), ("b", {"place_stills": True})):
        write(case, "binary", tmp_path / name, **options)
    assert dcmread(tmp_path / "a") == dcmread(tmp_path / "b")
