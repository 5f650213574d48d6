"""Presentation states: contours that fill to the label map, what viewers of dcmtk draw, and no error of validators."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from mobileutr_monai.inference.outputs.dicom import presentation_state
from mobileutr_monai.inference.outputs.dicom.presentation_state import write_presentation_state
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm, OutputCheckError
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.series import DicomCase, find_one_case
from tests.dicom_samples import write_cine, write_series, write_still

ROOT = Path(__file__).parents[4]
PICTURE = next((ROOT / "bundles/breast_ultrasound_segmentation/sample_data/images").iterdir())
ALGORITHM = Algorithm("Breast ultrasound segmentation", "0.3.0", "ab" * 32)
LABELS = [SegmentLabel(1, "lesion"), SegmentLabel(2, "Läsion"), SegmentLabel(3, "nowhere")]


@pytest.fixture(params=["L", "RGB"])
def still(request: pytest.FixtureRequest, tmp_path: Path) -> DicomCase:
    write_still(PICTURE, request.param, tmp_path / "still.dcm")
    return find_one_case([tmp_path / "still.dcm"])


def make_label(case: DicomCase, seed: int = 0) -> np.ndarray:
    """A label with a hole, another that touches the border and has islands, and single pixels."""
    label = np.zeros((case.rows, case.columns), np.uint8)
    label[10:60, 20:90] = 1
    label[20:30, 30:40] = 0
    label[-30:, -40:] = 2
    label[np.random.default_rng(seed).random(label.shape) < 0.002] = 2
    return label


def read_label_map(path: Path, case: DicomCase, frame: int | None = None) -> np.ndarray:
    """Fills the contours of a frame: pixels whose centre is within an odd number of them."""
    label = np.zeros((case.rows, case.columns), np.uint8)
    y, x = np.mgrid[: case.rows, : case.columns] + 0.5
    for annotation in dcmread(path).GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        assert image.ReferencedSOPInstanceUID == case.sop_uids[0]
        if not annotation.GraphicLayer.startswith("LABEL_") or image.get("ReferencedFrameNumber") != frame:
            continue
        inside = np.zeros(label.shape, bool)
        for graphic in annotation.GraphicObjectSequence:
            points = np.reshape(graphic.GraphicData, (-1, 2))
            assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
            assert len(points) == graphic.NumberOfGraphicPoints and (points[0] == points[-1]).all()
            for (x0, y0), (_, y1) in pairwise(points):
                inside ^= (min(y0, y1) < y) & (y < max(y0, y1)) & (x0 < x)
        label[inside] = int(annotation.GraphicLayer.removeprefix("LABEL_"))
    return label


def test_contours_fill_to_the_label_map(still: DicomCase, tmp_path: Path) -> None:
    label = make_label(still)
    write_presentation_state(still, [label], LABELS, ALGORITHM, tmp_path / "a.dcm")
    assert np.array_equal(read_label_map(tmp_path / "a.dcm", still), label)
    state, source = dcmread(tmp_path / "a.dcm"), dcmread(still.paths[0])
    is_grey = source.SamplesPerPixel == 1
    assert ("ICCProfile" in state, "PresentationLUTShape" in state) == (not is_grey, is_grey)
    references = [*state.ReferencedSeriesSequence, *state.GraphicAnnotationSequence]
    assert {item.ReferencedImageSequence[0].ReferencedSOPClassUID for item in references} == {source.SOPClassUID}
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName"):
        assert state[keyword].value == source[keyword].value
    assert [layer.GraphicLayerDescription for layer in state.GraphicLayerSequence][:3] == [
        "lesion",
        "L?sion",
        "nowhere",
    ]
    texts = [text.UnformattedTextValue for item in state.GraphicAnnotationSequence for text in item.TextObjectSequence]
    assert texts == ["lesion", "L?sion", "Research only: lesion, L?sion"]
    write_presentation_state(still, [label], LABELS, ALGORITHM, tmp_path / "b.dcm")
    again = dcmread(tmp_path / "b.dcm")
    assert again.SOPInstanceUID == state.SOPInstanceUID
    assert {item.keyword for item in state if item != again[item.tag]} <= {
        "ContributingEquipmentSequence",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "PresentationCreationDate",
        "PresentationCreationTime",
    }


def test_frames_of_a_cine_have_contours_of_their_own(still: DicomCase, tmp_path: Path) -> None:
    write_cine(still.paths[0], tmp_path / "cine.dcm")
    cine = find_one_case([tmp_path / "cine.dcm"])
    labels = [np.zeros((cine.rows, cine.columns), np.uint8), make_label(cine, 1)]
    write_presentation_state(cine, labels, LABELS, ALGORITHM, tmp_path / "a.dcm")
    for frame, label in enumerate(labels, start=1):
        assert np.array_equal(read_label_map(tmp_path / "a.dcm", cine, frame), label)


def test_nothing_found_is_said(still: DicomCase, tmp_path: Path) -> None:
    write_presentation_state(
        still, [np.zeros((still.rows, still.columns), np.uint8)], LABELS, ALGORITHM, tmp_path / "a"
    )
    (annotation,) = dcmread(tmp_path / "a").GraphicAnnotationSequence
    assert annotation.TextObjectSequence[0].UnformattedTextValue == "Research only: nothing found"


def test_brightness_and_size_of_pixels_are_those_of_the_image(tmp_path: Path) -> None:
    write_still(PICTURE, "L", tmp_path / "still.dcm")
    source = dcmread(tmp_path / "still.dcm")
    source.PhotometricInterpretation, source.PixelSpacing = "MONOCHROME1", [0.4, 0.2]
    source.WindowCenter, source.WindowWidth, source.RescaleSlope, source.RescaleIntercept = 100, 150, 2, -5
    source.RescaleType = "US"
    source.save_as(tmp_path / "still.dcm")
    case = find_one_case([tmp_path / "still.dcm"])
    write_presentation_state(case, [make_label(case)], LABELS, ALGORITHM, tmp_path / "a.dcm")
    state = dcmread(tmp_path / "a.dcm")
    assert (state.PresentationLUTShape, state.RescaleSlope, state.RescaleIntercept) == ("INVERSE", 2, -5)
    (lookup,) = state.SoftcopyVOILUTSequence
    assert (lookup.WindowCenter, lookup.WindowWidth) == (100, 150)
    (area,) = state.DisplayedAreaSelectionSequence
    assert area.PresentationPixelSpacing == [0.4, 0.2] and "PresentationPixelAspectRatio" not in area


def test_contours_that_do_not_fill_the_label_map_are_not_left(
    still: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = presentation_state.trace_polygons
    monkeypatch.setattr(presentation_state, "trace_polygons", lambda region: trace(region)[1:])
    with pytest.raises(OutputCheckError, match=r"a\.dcm: the contours do not fill the label map"):
        write_presentation_state(still, [make_label(still)], LABELS, ALGORITHM, tmp_path / "a.dcm")
    assert not list(tmp_path.glob("a.dcm*"))


def test_a_series_is_refused(repository: Path, tmp_path: Path) -> None:
    samples = repository / "bundles" / "hippocampus_mri_segmentation" / "sample_data"
    write_series(next(samples.rglob("*.nii.gz")), tmp_path)
    case = find_one_case(sorted(tmp_path.iterdir()))
    with pytest.raises(DicomError, match="presentation states are of stills and cines"):
        write_presentation_state(case, [], LABELS, ALGORITHM, tmp_path / "a.dcm")


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")
def test_dciodvfy_finds_no_error(still: DicomCase, tmp_path: Path) -> None:
    write_presentation_state(still, [make_label(still)], LABELS, ALGORITHM, tmp_path / "a.dcm")
    done = subprocess.run(["dciodvfy", str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    assert "SoftcopyPresentationState" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.skipif(shutil.which("dcmpschk") is None, reason="no dcmpschk (Debian's dcmtk)")
def test_the_checker_of_dcmtk_passes_it(still: DicomCase, tmp_path: Path) -> None:
    write_presentation_state(still, [make_label(still)], LABELS, ALGORITHM, tmp_path / "a.dcm")
    done = subprocess.run(["dcmpschk", tmp_path / "a.dcm"], capture_output=True, text=True, check=False)
    assert "Test passed" in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("dcmp2pgm") is None, reason="no dcmp2pgm (Debian's dcmtk)")
def test_dcmtk_reads_it_and_draws_the_image_as_it_is(tmp_path: Path) -> None:
    write_still(PICTURE, "L", tmp_path / "still.dcm")
    case = find_one_case([tmp_path / "still.dcm"])
    write_presentation_state(case, [make_label(case)], LABELS, ALGORITHM, tmp_path / "a.dcm")
    command = ["dcmp2pgm", "--pstate", tmp_path / "a.dcm", tmp_path / "still.dcm", tmp_path / "a.pgm"]
    subprocess.run(command, check=True, capture_output=True)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.pgm")), dcmread(tmp_path / "still.dcm").pixel_array)
