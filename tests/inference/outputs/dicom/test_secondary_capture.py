"""Secondary captures and mask stacks of cines: every frame in its place, streamed, marked as what they are."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, UltrasoundMultiFrameImageStorage, generate_uid

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.outputs.dicom import secondary_capture
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm, OutputCheckError
from mobileutr_monai.inference.outputs.dicom.secondary_capture import (
    write_frame_masks,
    write_overlay_capture,
)
from mobileutr_monai.inference.outputs.mask_stack import iter_frame_masks
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.pixels import iter_frames
from mobileutr_monai.readers.dicom.series import DicomCase, find_dicom_cases

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "dicom"
ALGORITHM = Algorithm("lesion_segmentation", "1.2.3", hashlib.sha256(b"weights").hexdigest())
CREATED = datetime(2024, 2, 29, 12, 30)
ROWS, COLUMNS, FRAMES = 15, 11, 5

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no DICOM files in {SHARED}")
needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")


def real_cases() -> list[DicomCase]:
    if not SHARED.is_dir():
        return []
    cases, _ = find_dicom_cases(path for path in SHARED.rglob("*") if path.is_file())
    return [
        case
        for case in cases
        if case.sop_uids[0] and (case.kind is CaseKind.CINE or (case.kind is CaseKind.STILL and case.modality == "US"))
    ]


REAL = [pytest.param(case, id=case.paths[0].name) for case in real_cases()]


def make_cine(
    path: Path, frames: int = FRAMES, rows: int = ROWS, columns: int = COLUMNS, **values: object
) -> DicomCase:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundMultiFrameImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.InstanceNumber, dataset.NumberOfFrames = "US", 4, frames
    dataset.PatientID, dataset.SeriesNumber = "someone", 2
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(rows * columns * frames + rows * columns * frames % 2)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    cases, problems = find_dicom_cases([path])
    assert not problems
    return cases[0]


@pytest.fixture
def cine(tmp_path: Path) -> DicomCase:
    return make_cine(tmp_path / "cine", FrameTime="40")


def make_pictures(case: DicomCase, seed: int = 0) -> Iterator[Image.Image]:
    random = np.random.default_rng(seed)
    for _ in range(case.frames):
        yield Image.fromarray(random.integers(0, 9, (case.rows, case.columns, 3), np.uint8))


def make_masks(case: DicomCase) -> Iterator[np.ndarray]:
    for index in range(case.frames):
        mask = np.zeros((case.rows, case.columns), np.uint8)
        mask[: index + 1, 2 : 4 + index] = 1 + index % 2
        yield mask


def decode(path: Path, case: DicomCase) -> np.ndarray:
    return pydicom.dcmread(path).pixel_array.reshape(case.frames, case.rows, case.columns, 3)


def find_errors(path: Path) -> set[str]:
    process = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in process.stderr.splitlines() if line.startswith("Error")}


@pytest.mark.parametrize(("compress", "syntax"), [(True, RLELossless), (False, ExplicitVRLittleEndian)])
@pytest.mark.parametrize(("frames", "rows"), [(2, ROWS), (5, ROWS), (5, ROWS + 1)])
def test_capture_holds_every_picture(tmp_path: Path, compress: bool, syntax: str, frames: int, rows: int) -> None:
    case = make_cine(tmp_path / "cine", frames, rows)

    write_overlay_capture(case, make_pictures(case), ALGORITHM, tmp_path / "out.dcm", compress=compress)

    assert pydicom.dcmread(tmp_path / "out.dcm").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(decode(tmp_path / "out.dcm", case), np.stack(list(make_pictures(case))))


def test_capture_says_what_it_is(cine: DicomCase, tmp_path: Path) -> None:
    write_overlay_capture(cine, make_pictures(cine), ALGORITHM, tmp_path / "out.dcm", created=CREATED)

    capture = pydicom.dcmread(tmp_path / "out.dcm")
    assert capture.SOPClassUID.name == "Multi-frame True Color Secondary Capture Image Storage"
    assert capture.file_meta.MediaStorageSOPInstanceUID == capture.SOPInstanceUID != cine.sop_uids[0]
    assert capture.ImageType == ["DERIVED", "SECONDARY"]
    assert capture.StudyInstanceUID == cine.study_uid
    assert (capture.PatientID, capture.PatientSex, capture.Modality) == ("someone", "", "US")
    assert (capture.SeriesNumber, capture.InstanceNumber, capture.FrameTime) == (2002, 4, 40)
    assert capture.SeriesDescription == "Research only: lesion_segmentation overlay"
    assert "Not for diagnosis" in capture.DerivationDescription
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == cine.sop_uids[0]
    assert capture.ContentDate == "20240229"


@pytest.mark.parametrize(("source", "expected"), [(None, "YES"), ("YES", "YES"), ("NO", "NO")])
def test_capture_vouches_for_no_clean_picture(tmp_path: Path, source: str | None, expected: str) -> None:
    case = make_cine(tmp_path / "cine", **({} if source is None else {"BurnedInAnnotation": source}))

    write_overlay_capture(case, make_pictures(case), ALGORITHM, tmp_path / "out.dcm")

    assert pydicom.dcmread(tmp_path / "out.dcm").BurnedInAnnotation == expected


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        ({"FrameTime": "40"}, "FrameTime"),
        ({"FrameTimeVector": [0, 33, 33, 50, 33]}, "FrameTimeVector"),
        ({"FrameTimeVector": [0, 33]}, "PageNumberVector"),
        ({}, "PageNumberVector"),
    ],
)
def test_capture_has_the_times_of_its_cine(tmp_path: Path, values: dict, pointer: str) -> None:
    case = make_cine(tmp_path / "cine", RecommendedDisplayFrameRate=25, **values)

    write_overlay_capture(case, make_pictures(case), ALGORITHM, tmp_path / "out.dcm")

    capture = pydicom.dcmread(tmp_path / "out.dcm")
    assert capture.FrameIncrementPointer == pydicom.datadict.tag_for_keyword(pointer)
    assert pointer in capture and capture.RecommendedDisplayFrameRate == 25


def test_two_captures_are_the_same_bytes_but_dates(cine: DicomCase, tmp_path: Path) -> None:
    def write(name: str, created: datetime = CREATED, seed: int = 0) -> Dataset:
        write_overlay_capture(cine, make_pictures(cine, seed), ALGORITHM, tmp_path / name, created=created)
        return pydicom.dcmread(tmp_path / name)

    one, _ = write("1"), write("2")
    later, other = write("3", created=datetime(2025, 1, 2, 3, 4, 5)), write("4", seed=1)

    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    differ = {element.keyword for element in one if element != later[element.tag]}
    assert differ == {"InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"}
    assert other.SOPInstanceUID != one.SOPInstanceUID
    assert other.SeriesInstanceUID == one.SeriesInstanceUID


@pytest.mark.parametrize("count", [0, FRAMES - 1, FRAMES + 1])
@pytest.mark.parametrize("what", ["pictures", "label maps"])
def test_a_frame_too_few_or_too_many_is_an_error(cine: DicomCase, tmp_path: Path, count: int, what: str) -> None:
    output = tmp_path / "out"
    with pytest.raises(ValueError, match=f"{what} for 5 frames"):
        if what == "pictures":
            write_overlay_capture(cine, [Image.new("RGB", (COLUMNS, ROWS))] * count, ALGORITHM, output)
        else:
            write_frame_masks(cine, [np.zeros((ROWS, COLUMNS))] * count, output)

    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("picture", [Image.new("RGB", (ROWS, COLUMNS)), Image.new("L", (COLUMNS, ROWS))])
def test_other_pictures_are_errors(cine: DicomCase, tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(ValueError, match="pictures must be RGB, 15 x 11"):
        write_overlay_capture(cine, [picture] * FRAMES, ALGORITHM, tmp_path / "out")

    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "mask", [np.zeros((COLUMNS, ROWS)), np.full((ROWS, COLUMNS), 256), np.full((ROWS, COLUMNS), 0.5)]
)
def test_other_masks_are_errors(cine: DicomCase, tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="8-bit indices"):
        write_frame_masks(cine, [mask] * FRAMES, tmp_path / "out.nii")

    assert not list(tmp_path.glob("out*"))


def test_wrong_last_frame_is_noticed(cine: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secondary_capture, "pixel_array", lambda *_, **__: np.zeros((ROWS, COLUMNS, 3)))

    with pytest.raises(OutputCheckError, match="last frame"):
        write_overlay_capture(cine, make_pictures(cine), ALGORITHM, tmp_path / "out.dcm")

    assert not list(tmp_path.glob("out*"))


def test_more_pictures_than_an_element_can_hold_are_compressed(
    cine: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secondary_capture, "_MAX_ELEMENT_BYTES", ROWS * COLUMNS * 3 * FRAMES - 1)

    write_overlay_capture(cine, make_pictures(cine), ALGORITHM, tmp_path / "out.dcm")

    assert pydicom.dcmread(tmp_path / "out.dcm").file_meta.TransferSyntaxUID == RLELossless
    np.testing.assert_array_equal(decode(tmp_path / "out.dcm", cine), np.stack(list(make_pictures(cine))))


def test_source_without_instance_uid_is_an_error(cine: DicomCase, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(cine.paths[0])
    del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID
    pydicom.dcmwrite(cine.paths[0], dataset)

    with pytest.raises(DicomError, match="no SOPInstanceUID"):
        write_overlay_capture(cine, make_pictures(cine), ALGORITHM, tmp_path / "out.dcm")


@pytest.mark.parametrize("name", ["masks.nii.gz", "masks.nii"])
def test_masks_of_frames_are_a_stack(cine: DicomCase, tmp_path: Path, name: str) -> None:
    path, again = tmp_path / name, tmp_path / f"again_{name}"

    write_frame_masks(cine, make_masks(cine), path)
    write_frame_masks(cine, (mask.astype(np.float32) for mask in make_masks(cine)), again)

    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    expected = np.stack(list(make_masks(cine)))
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected.transpose(2, 1, 0))
    np.testing.assert_array_equal(np.stack(list(iter_frame_masks(path))), expected)
    assert path.read_bytes() == again.read_bytes()


def test_cine_too_long_for_nifti_is_an_error(cine: DicomCase, tmp_path: Path) -> None:
    long = DicomCase(**{**vars(cine), "frames": 40_000})

    with pytest.raises(ValueError, match="32767"):
        write_frame_masks(long, [], tmp_path / "out.nii")


def test_frames_are_written_one_at_a_time(tmp_path: Path) -> None:
    case = make_cine(tmp_path / "cine", frames=120, rows=64, columns=128)
    frame_bytes = 64 * 128 * 3

    tracemalloc.start()
    write_overlay_capture(case, make_pictures(case), ALGORITHM, tmp_path / "out.dcm")
    write_frame_masks(case, make_masks(case), tmp_path / "out.nii")
    list(map(np.sum, iter_frame_masks(tmp_path / "out.nii")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < case.frames * frame_bytes / 2


@needs_shared
@needs_dciodvfy
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("case", REAL)
def test_captures_of_real_sources(case: DicomCase, tmp_path: Path, compress: bool) -> None:
    output = tmp_path / "out.dcm"

    pictures = map(Image.fromarray, iter_frames(case.paths[0]))
    write_overlay_capture(case, pictures, ALGORITHM, output, compress=compress)

    for written, frame in zip(decode(output, case), iter_frames(case.paths[0]), strict=True):
        np.testing.assert_array_equal(written, frame)
    in_source = find_errors(case.paths[0])
    # A UID that is wrong in the source is wrong in the reference to it.
    wrong_uids = [uid for uid in case.sop_uids if any(uid in error for error in in_source)]
    new = find_errors(output) - in_source
    assert not [error for error in new if not any(uid in error for uid in wrong_uids)]
