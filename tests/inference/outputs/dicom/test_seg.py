"""DICOM Segmentations: the right mask on the right slice of the right object, whatever the source lacks."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr import _concepts_dict
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm, OutputCheckError
from mobileutr_monai.inference.outputs.dicom.seg import TISSUE, SegmentLabel, read_segment_labels, write_segmentation
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.series import DicomCase, find_dicom_cases

highdicom = pytest.importorskip("highdicom")

ROOT = Path(__file__).resolve().parents[4]
SHARED = ROOT.parent / "shared" / "data" / "dicom"
BUNDLES = sorted((ROOT / "bundles").glob("*/configs/metadata.json"))

ALGORITHM = Algorithm("lesion_segmentation", "1.2.3", hashlib.sha256(b"weights").hexdigest())
LABELS = [SegmentLabel(1, "front"), SegmentLabel(2, "back"), SegmentLabel(3, "nowhere")]
CREATED = datetime(2024, 2, 29, 12, 30)
ROWS, COLUMNS, SLICES = 20, 13, 5
# Oblique: rows and columns of the image in the patient.
ORIENTATION = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
NORMAL = np.cross(ORIENTATION[:3], ORIENTATION[3:])

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no DICOM files in {SHARED}")
needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")


def make_image(sop_class: str, modality: str, rows: int = ROWS, columns: int = COLUMNS, frames: int = 1) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = modality, 3, 7
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = bytes(rows * columns * frames + rows * columns * frames % 2)
    return dataset


def position(index: int) -> list[float]:
    return [float(f"{value:.6f}") for value in np.array([1.0, -2.0, 3.0]) + 2.5 * index * NORMAL]


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def find_case(*paths: Path) -> DicomCase:
    cases, problems = find_dicom_cases(paths)
    assert len(cases) == 1 and not problems
    return cases[0]


def paint(shape: tuple[int, ...], slices: int) -> np.ndarray:
    """A label map of (columns, rows, slices) with another area of label 1 in each slice but one, and a bit of 2."""
    label = np.zeros((*shape, slices), np.uint8)
    for index in range(slices):
        label[1 : 2 + index, 2:9, index] = 1
    label[:, :, 2] = 0
    label[3:5, 1:4, -1] = 2
    return label


@pytest.fixture
def series(tmp_path: Path) -> DicomCase:
    """An oblique CT series whose names, instance numbers and order of files say nothing."""
    first = make_image(CTImageStorage, "CT")
    paths = []
    for index, name in enumerate(("d", "a", "e", "b", "c")):
        dataset = make_image(CTImageStorage, "CT")
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, first[keyword].value)
        dataset.FrameOfReferenceUID = "1.2.3.4"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position(index), ORIENTATION
        dataset.PixelSpacing, dataset.InstanceNumber = [0.5, 0.7], 10 - index
        paths.append(save(dataset, tmp_path / name))
    return find_case(*sorted(paths))


@pytest.fixture
def still(tmp_path: Path) -> DicomCase:
    """An ultrasound image without frame of reference, and without anything of the patient."""
    return find_case(save(make_image(UltrasoundImageStorage, "US"), tmp_path / "still"))


def make_enhanced(path: Path, order: list[int], sop_class: str = EnhancedCTImageStorage) -> DicomCase:
    """An enhanced image with the slices in an order, orientation by frame, which highdicom alone refuses."""
    dataset = make_image(sop_class, "CT", frames=len(order))
    dataset.FrameOfReferenceUID = "1.2.3.4"
    groups = []
    for index in order:
        plane, orientation, measures = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient, orientation.ImageOrientationPatient = position(index), ORIENTATION
        measures.PixelSpacing, measures.SliceThickness = [0.5, 0.7], 2.5
        group = Dataset()
        group.PlanePositionSequence, group.PlaneOrientationSequence = Sequence([plane]), Sequence([orientation])
        group.PixelMeasuresSequence = Sequence([measures])
        groups.append(group)
    dataset.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return find_case(save(dataset, path))


def label_still(case: DicomCase) -> np.ndarray:
    label = np.zeros((case.rows, case.columns), np.uint8)
    label[: case.rows // 2, 1:] = 1
    label[case.rows // 2 :, :1] = 2
    return label


def label_any(case: DicomCase) -> np.ndarray:
    return label_still(case) if case.kind is CaseKind.STILL else paint((case.columns, case.rows), case.frames)


def write(case: DicomCase, label: np.ndarray, output: Path, **options: object) -> highdicom.seg.Segmentation:
    write_segmentation(case, label, LABELS, ALGORITHM, output, **{"created": CREATED, **options})
    return highdicom.seg.segread(output)


def areas(segmentation: Dataset) -> list[int]:
    """Area of each segment, decoded by pydicom."""
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    total = [0] * len(segmentation.SegmentSequence)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for group, mask in zip(segmentation.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        total[holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1] += int(mask.sum())
    return total


def find_errors(path: Path) -> set[str]:
    process = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in process.stderr.splitlines() if line.startswith("Error")}


def real_cases() -> list[DicomCase]:
    if not SHARED.is_dir():
        return []
    cases, _ = find_dicom_cases(path for path in SHARED.rglob("*") if path.is_file())
    return [case for case in cases if case.kind is not CaseKind.CINE and case.sop_uids[0]]


REAL = [pytest.param(case, id=case.paths[0].relative_to(SHARED).as_posix()) for case in real_cases()]


def test_each_slice_of_a_series_keeps_its_mask(series: DicomCase, tmp_path: Path) -> None:
    label = paint((COLUMNS, ROWS), SLICES)

    segmentation = write(series, label, tmp_path / "out.dcm")

    assert [path.name for path in series.paths] == ["d", "a", "e", "b", "c"]
    pixels = segmentation.get_pixels_by_source_instance(list(series.sop_uids), ignore_spatial_locations=True)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(pixels[..., number - 1].transpose(2, 1, 0), label == number)
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = series.sop_uids.index(reference.ReferencedSOPInstanceUID)
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, position(place), atol=1e-5)
        assert reference.ReferencedSOPClassUID == CTImageStorage
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.7]
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].SpacingBetweenSlices, 2.5, atol=1e-4)
    assert segmentation.FrameOfReferenceUID == "1.2.3.4"


@pytest.mark.parametrize("sop_class", [EnhancedCTImageStorage, CTImageStorage], ids=["enhanced", "single-frame class"])
def test_each_frame_of_a_volume_in_one_file_keeps_its_mask(tmp_path: Path, sop_class: str) -> None:
    order = [3, 0, 4, 1, 2]
    case = make_enhanced(tmp_path / "enhanced", order, sop_class)
    label = paint((COLUMNS, ROWS), SLICES)

    segmentation = write(case, label, tmp_path / "out.dcm")

    assert areas(segmentation) == [int((label == number).sum()) for number in (1, 2, 3)]
    seen = set()
    for group, mask in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        place = order[reference.ReferencedFrameNumber - 1]
        np.testing.assert_array_equal(mask, number == label[:, :, place].T)
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, position(place), atol=1e-5)
        assert reference.ReferencedSOPInstanceUID == case.sop_uids[0]
        assert reference.ReferencedSOPClassUID == sop_class
        seen.add((number, place))
    assert len(segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    assert {place for number, place in seen if number == 1} == {0, 1, 3, 4}


def test_two_frames_without_places_are_no_still(tmp_path: Path) -> None:
    path = save(make_image(UltrasoundImageStorage, "US", frames=2), tmp_path / "two")
    case = find_case(path)
    lies = DicomCase(**{**vars(case), "kind": CaseKind.STILL, "frames": 1})

    for each, shape in ((case, (COLUMNS, ROWS, 2)), (lies, (ROWS, COLUMNS))):
        with pytest.raises(DicomError, match="more than one frame"):
            write_segmentation(each, np.ones(shape, np.uint8), LABELS, ALGORITHM, tmp_path / "out.dcm")


def test_cine_is_refused_with_its_remedy(tmp_path: Path) -> None:
    case = find_case(save(make_image(UltrasoundMultiFrameImageStorage, "US", frames=3), tmp_path / "cine"))

    with pytest.raises(DicomError, match=r"3 frames; .* write_frame_masks"):
        write_segmentation(case, np.zeros((COLUMNS, ROWS, 3)), LABELS, ALGORITHM, tmp_path / "out.dcm")

    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize("fault", ["lost", "moved"])
def test_masks_that_highdicom_loses_are_noticed(
    series: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    class Faulty(highdicom.seg.Segmentation):
        def __init__(self, pixel_array: np.ndarray, **arguments: object) -> None:
            pixels = np.roll(pixel_array, 1, axis=0) if fault == "moved" else pixel_array * (pixel_array != 2)
            super().__init__(pixel_array=pixels, **arguments)

    monkeypatch.setattr(highdicom.seg, "Segmentation", Faulty)

    with pytest.raises(OutputCheckError, match=r"out\.dcm"):
        write(series, paint((COLUMNS, ROWS), SLICES), tmp_path / "out.dcm")

    assert not list(tmp_path.glob("out.dcm*"))


@pytest.mark.parametrize("kind", ["still", "series"])
def test_empty_result_is_an_explicit_object(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case = request.getfixturevalue(kind)

    segmentation = write(case, np.zeros_like(label_any(case)), tmp_path / "out.dcm")

    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["front", "back", "nowhere"]
    assert segmentation.NumberOfFrames == case.frames * 3
    assert areas(segmentation) == [0, 0, 0]


def test_empty_frames_are_kept_on_request(series: DicomCase, tmp_path: Path) -> None:
    label = paint((COLUMNS, ROWS), SLICES)

    sparse, full = (write(series, label, tmp_path / f"{keep}.dcm", keep_empty_frames=keep) for keep in (False, True))

    assert (sparse.NumberOfFrames, full.NumberOfFrames) == (5, SLICES * 3)
    assert areas(sparse) == areas(full) == [int((label == number).sum()) for number in (1, 2, 3)]
    assert sparse.SOPInstanceUID != full.SOPInstanceUID


def test_says_what_it_is(still: DicomCase, tmp_path: Path) -> None:
    codes = {
        "category": highdicom.sr.CodedConcept("91723000", "SCT", "Anatomical Structure"),
        "type": highdicom.sr.CodedConcept("5366008", "SCT", "Hippocampus"),
        "type_modifier": highdicom.sr.CodedConcept("255549009", "SCT", "Anterior"),
        "anatomic_region": highdicom.sr.CodedConcept("12738006", "SCT", "Brain"),
    }
    labels = [SegmentLabel(4, "anterior", **codes), SegmentLabel(9, "lesion")]
    label = label_still(still) * 4

    write_segmentation(still, np.where(label == 8, 9, label), labels, ALGORITHM, tmp_path / "out.dcm")

    segmentation = highdicom.seg.segread(tmp_path / "out.dcm")
    assert segmentation.SegmentationType == "BINARY"
    assert segmentation.SeriesDescription.startswith("Research only")
    assert segmentation.ContentDescription == "Research only. Not for diagnosis or treatment."
    assert segmentation.DeviceSerialNumber == ALGORITHM.weights_sha256
    assert (segmentation.SeriesNumber, segmentation.InstanceNumber) == (1003, 7)
    one, two = segmentation.SegmentSequence
    assert (one.SegmentNumber, two.SegmentNumber) == (1, 2)
    assert one.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = one.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lesion_segmentation", "1.2.3")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    kind = one.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "5366008"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Anterior"
    assert one.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert two.SegmentedPropertyTypeCodeSequence[0].CodeValue == TISSUE.value
    assert areas(segmentation) == [int((label == 4).sum()), int((label == 8).sum())]


def test_what_a_source_lacks_is_empty(still: DicomCase, tmp_path: Path) -> None:
    before = still.paths[0].read_bytes()

    segmentation = write(still, label_still(still), tmp_path / "out.dcm")

    assert "FrameOfReferenceUID" not in segmentation
    for keyword in ("PatientOrientation", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID"):
        assert keyword in segmentation and not segmentation[keyword].value
    assert still.paths[0].read_bytes() == before


def test_source_without_study_and_series_gets_derived_ones(tmp_path: Path) -> None:
    dataset = make_image(UltrasoundImageStorage, "US")
    dataset.StudyInstanceUID = ""
    del dataset.SeriesInstanceUID
    case = find_case(save(dataset, tmp_path / "still"))

    one, two = (write(case, label_still(case), tmp_path / name) for name in ("1.dcm", "2.dcm"))

    assert one.StudyInstanceUID == two.StudyInstanceUID != ""


def test_volume_without_frame_of_reference_gets_a_derived_one(series: DicomCase, tmp_path: Path) -> None:
    for path in series.paths:
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)

    segmentation = write(series, paint((COLUMNS, ROWS), SLICES), tmp_path / "out.dcm")

    assert segmentation.FrameOfReferenceUID.is_valid
    assert len(segmentation.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence) == 1


def test_source_without_instance_uid_is_an_error(still: DicomCase, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(still.paths[0])
    del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID
    pydicom.dcmwrite(still.paths[0], dataset)

    with pytest.raises(DicomError, match="no SOPInstanceUID"):
        write(find_case(still.paths[0]), label_still(still), tmp_path / "out.dcm")


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.6", "1.2.3.4.5"], ids=["retired", "private"])
def test_sop_classes_that_highdicom_does_not_know(tmp_path: Path, sop_class: str) -> None:
    case = find_case(save(make_image(sop_class, "US"), tmp_path / "still"))

    segmentation = write(case, label_still(case), tmp_path / "out.dcm")

    assert segmentation.SourceImageSequence[0].ReferencedSOPClassUID == sop_class
    assert areas(segmentation) == [int((label_still(case) == number).sum()) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((COLUMNS, ROWS), np.uint8), "shape"),
        (np.full((ROWS, COLUMNS), 4, np.uint8), "no label's index"),
        (np.full((ROWS, COLUMNS), -1), "no label's index"),
        (np.full((ROWS, COLUMNS), 0.5, np.float32), "no label's index"),
    ],
)
def test_label_maps_that_do_not_fit_are_errors(
    still: DicomCase, tmp_path: Path, label: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        write(still, label, tmp_path / "out.dcm")

    assert str(still.paths[0]) in str(caught.value)
    assert not list(tmp_path.glob("out.dcm*"))


def test_float_label_map_is_taken(still: DicomCase, tmp_path: Path) -> None:
    segmentation = write(still, label_still(still).astype(np.float32), tmp_path / "out.dcm")

    assert areas(segmentation)[0] == (label_still(still) == 1).sum()


def test_patient_is_copied_as_it_is_and_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    with pydicom.config.disable_value_validation():
        dataset = make_image(UltrasoundImageStorage, "US")
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName, dataset.PatientID = "Sécret^Name", "SECRET-" + 70 * "7"
        dataset.PatientSex, dataset.PatientBirthDate = "SECRET", "1994.11.05"
        dataset.PatientWeight = "70"
        dataset.StudyDescription = "SECRET study"
        case = find_case(save(dataset, tmp_path / "still"))
    caplog.set_level(logging.DEBUG)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_segmentation(case, label_still(case), LABELS, ALGORITHM, tmp_path / "out.dcm")
        with pytest.raises(ValueError) as error:
            write_segmentation(case, np.zeros((1, 1)), LABELS, ALGORITHM, tmp_path / "out.dcm")
    told = " ".join([caplog.text, *capfd.readouterr(), str(error.value), *(str(item.message) for item in caught)])

    assert "cret" not in told and "SECRET" not in told and "1994" not in told
    with pydicom.config.disable_value_validation():
        written = pydicom.dcmread(tmp_path / "out.dcm")
        for keyword in ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "PatientWeight"):
            assert written[keyword].value == dataset[keyword].value
        assert str(written.PatientName) == "Sécret^Name"
        assert written.StudyDescription == "SECRET study"


@pytest.mark.parametrize("kind", ["still", "series"])
def test_two_runs_write_the_same_bytes_but_dates(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case = request.getfixturevalue(kind)
    label = label_any(case)

    one = write(case, label, tmp_path / "1.dcm")
    write(case, label, tmp_path / "2.dcm")
    later = write(case, label, tmp_path / "3.dcm", created=datetime(2025, 1, 2, 3, 4, 5))

    assert (tmp_path / "1.dcm").read_bytes() == (tmp_path / "2.dcm").read_bytes()
    differ = {element.keyword for element in one if element != later[element.tag]}
    assert differ == {
        "InstanceCreationDate",
        "InstanceCreationTime",
        "ContentDate",
        "ContentTime",
        "ContributingEquipmentSequence",
    }


def test_other_results_are_other_objects_of_one_series(still: DicomCase, tmp_path: Path) -> None:
    label = label_still(still)
    other = Algorithm(ALGORITHM.name, ALGORITHM.version, hashlib.sha256(b"other").hexdigest())

    one = write(still, label, tmp_path / "1.dcm")
    two = write(still, np.zeros_like(label), tmp_path / "2.dcm")
    write_segmentation(still, label, LABELS, other, tmp_path / "3.dcm")

    three = pydicom.dcmread(tmp_path / "3.dcm")
    assert len({one.SOPInstanceUID, two.SOPInstanceUID, three.SOPInstanceUID}) == 3
    assert one.SeriesInstanceUID == two.SeriesInstanceUID != three.SeriesInstanceUID
    assert all(uid.is_valid and len(uid) <= 64 for uid in (one.SOPInstanceUID, one.SeriesInstanceUID))


@needs_shared
@pytest.mark.parametrize("case", REAL)
def test_real_sources(case: DicomCase, tmp_path: Path) -> None:
    label = label_any(case)

    segmentation = write(case, label, tmp_path / "out.dcm")

    assert areas(segmentation) == [int((label == number).sum()) for number in (1, 2, 3)]
    if case.kind is CaseKind.SERIES:
        pixels = segmentation.get_pixels_by_source_instance(list(case.sop_uids), ignore_spatial_locations=True)
        np.testing.assert_array_equal(pixels[..., 0].transpose(2, 1, 0), label == 1)


@needs_shared
@needs_dciodvfy
@pytest.mark.parametrize("case", REAL)
def test_dciodvfy_finds_no_error_that_is_not_in_the_source(case: DicomCase, tmp_path: Path) -> None:
    write(case, label_any(case), tmp_path / "out.dcm")

    in_source = set().union(*(find_errors(path) for path in case.paths))
    new = find_errors(tmp_path / "out.dcm") - in_source
    # A UID that is wrong in the source is wrong in the reference to it.
    wrong_uids = [uid for uid in case.sop_uids if any(uid in error for error in in_source)]
    assert not [error for error in new if not any(uid in error for uid in wrong_uids)]


@needs_dciodvfy
@pytest.mark.parametrize("kind", ["still", "series"])
@pytest.mark.parametrize("is_empty", [False, True])
def test_dciodvfy_finds_no_error(kind: str, is_empty: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case = request.getfixturevalue(kind)

    write(case, label_any(case) * (not is_empty), tmp_path / "out.dcm")

    assert not find_errors(tmp_path / "out.dcm")


def metadata(codes: dict) -> dict:
    pred = {"channel_def": {"0": "background", "2": "b", "1": "a"}, "segment_codes": codes}
    return {"network_data_format": {"outputs": {"pred": pred}}}


LESION = {"scheme": "SCT", "value": "52988006", "meaning": "Lesion"}


def test_labels_are_read_from_the_metadata() -> None:
    one, two = read_segment_labels(metadata({"1": {"category": LESION, "type": LESION}}))

    assert (one.index, one.name, one.type.meaning, one.type_modifier) == (1, "a", "Lesion", None)
    assert (two.index, two.name, two.category, two.type) == (2, "b", TISSUE, TISSUE)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"3": {}}, r"segment_codes has \[3\]"),
        ({"1": {"type": LESION}}, "needs category and type"),
        ({"1": {"kind": LESION}}, "'kind', allowed are category"),
        ({"1": {"category": LESION, "type": {"value": "1"}}}, "type has no scheme, meaning"),
    ],
)
def test_bad_codes_are_errors(codes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_segment_labels(metadata(codes))


@pytest.mark.parametrize("path", BUNDLES, ids=[path.parents[1].name for path in BUNDLES])
def test_codes_of_the_bundles_are_in_pydicoms_dictionary(path: Path) -> None:
    for label in read_segment_labels(json.loads(path.read_text(encoding="utf-8"))):
        for code in (label.category, label.type, label.type_modifier, label.anatomic_region):
            if code is not None:
                concepts = _concepts_dict.concepts[code.scheme_designator].values()
                assert code.meaning in [entry[code.value][0] for entry in concepts if code.value in entry]


def make_slice(index: int = 0, **attributes: object) -> Dataset:
    dataset = make_image("1.2.840.10008.5.1.4.1.1.4", "MR")
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position(index), ORIENTATION
    dataset.PixelSpacing, dataset.FrameOfReferenceUID = [1.5, 0.5], "1.2.3.4"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("count", "stated", "thickness", "distance"),
    [
        (3, {"SliceThickness": None}, 2.5, 2.5),
        (3, {}, 2.5, 2.5),
        (3, {"SliceThickness": 4}, 4, 2.5),
        (1, {"SliceThickness": 4}, 4, None),
        (1, {"SliceThickness": 4, "SpacingBetweenSlices": 5}, 4, 5),
        (1, {"SliceThickness": None, "SpacingBetweenSlices": 5}, 5, 5),
        (1, {"SliceThickness": None}, None, None),
        (1, {"SliceThickness": 0}, None, None),
        (1, {}, None, None),
    ],
)
def test_lengths_that_the_source_does_not_state_are_derived_or_left_out(
    tmp_path: Path, count: int, stated: dict[str, float | None], thickness: float | None, distance: float | None
) -> None:
    series = generate_uid()
    paths = []
    for index in range(count):
        dataset = make_slice(index, SeriesInstanceUID=series, StudyInstanceUID="1.2.3", **stated)
        paths.append(save(dataset, tmp_path / f"{index}.dcm"))
    case = find_case(*paths)
    label = np.ones((ROWS, COLUMNS) if count == 1 else (COLUMNS, ROWS, count), np.uint8)
    write_segmentation(case, label, LABELS, ALGORITHM, tmp_path / "seg.dcm", created=CREATED)
    shared = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0] if "PixelMeasuresSequence" in shared else Dataset()
    assert measures.get("SliceThickness") == (None if thickness is None else pytest.approx(thickness))
    assert measures.get("SpacingBetweenSlices") == (None if distance is None else pytest.approx(distance))
    if shutil.which("dciodvfy") is not None:
        done = subprocess.run(["dciodvfy", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False)
        assert not [line for line in done.stderr.splitlines() if line.startswith("Error") and "PixelMeasures" in line]
