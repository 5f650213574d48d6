"""Structured reports: what they hold, read back by highdicom, and what validators say of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from highdicom import sr
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from mobileutr_monai.core.text import NOTICE
from mobileutr_monai.inference.measure import Assessment, measure_labels
from mobileutr_monai.inference.outputs.dicom.provenance import CREATION_DATES, Algorithm, OutputCheckError
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel, write_segmentation
from mobileutr_monai.inference.outputs.dicom.sr import EXPECTED_DICE, write_report
from mobileutr_monai.readers.dicom.series import DicomCase, find_dicom_cases
from tests.dicom_samples import write_series, write_still

ROOT = Path(__file__).parents[4]
ALGORITHM = Algorithm("Breast ultrasound segmentation", "0.3.0", "ab" * 32)
BREAST = Code("76752008", "SCT", "Breast")
LABELS = [
    SegmentLabel(1, "lesion", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, anatomic_region=BREAST),
    SegmentLabel(2, "shadow"),
]
NAMES = {label.index: label.name for label in LABELS}
PIXEL = (0.5, 0.25)


def find_case(*paths: Path) -> DicomCase:
    (case,), problems = find_dicom_cases(paths)
    assert not problems
    return case


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> DicomCase:
    path = tmp_path_factory.mktemp("still") / "still.dcm"
    write_still(next((ROOT / "bundles/breast_ultrasound_segmentation/sample_data/images").iterdir()), "L", path)
    return find_case(path)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> DicomCase:
    folder = tmp_path_factory.mktemp("series")
    write_series(next((ROOT / "bundles/hippocampus_mri_segmentation/sample_data").rglob("*.nii.gz")), folder)
    return find_case(*sorted(folder.iterdir()))


def paint(case: DicomCase) -> np.ndarray:
    """Label 1 as a rectangle of 20 by 10 pixels, in a volume in the third slice alone; label 2 is nowhere."""
    label = np.zeros((case.rows, case.columns), np.uint8)
    label[5:15, 8:28] = 1
    if case.affine is None:
        return label
    volume = np.zeros((case.columns, case.rows, case.frames), np.uint8)
    volume[..., 2] = label.T
    return volume


def write(
    case: DicomCase,
    folder: Path,
    spacing: object = None,
    assessments: tuple[Assessment, ...] = (),
    with_segmentation: bool = True,
    is_empty: bool = False,
) -> sr.ComprehensiveSR:
    label = paint(case) * (not is_empty)
    segmentation = folder / "case_seg.dcm"
    if with_segmentation:
        write_segmentation(case, label, LABELS, ALGORITHM, segmentation)
    measurements = measure_labels(label, NAMES, spacing)
    segment = segmentation if with_segmentation else None
    write_report(case, LABELS, measurements, assessments, ALGORITHM, folder / "case_sr.dcm", segmentation=segment)
    return sr.srread(folder / "case_sr.dcm")


def values_of(*groups: sr.MeasurementsAndQualitativeEvaluations) -> dict[str, tuple[float, str]]:
    found = [item for group in groups for item in group.get_measurements()]
    assert len({item.name.meaning for item in found}) == len(found)
    return {item.name.meaning: (float(item.value), item.unit.value) for item in found}


def axes_of(report: sr.ComprehensiveSR) -> sr.MeasurementsAndQualitativeEvaluations:
    """Returns the group of the first label's axes."""
    return next(group for group in report.content.get_image_measurement_groups() if group.get_measurements())


def texts_of(item: Dataset) -> list[str]:
    found = [str(item.TextValue)] if "TextValue" in item else []
    return found + [text for child in item.get("ContentSequence", []) for text in texts_of(child)]


def test_a_calibrated_still_has_lengths_in_mm_and_its_segment(still: DicomCase, tmp_path: Path) -> None:
    report = write(
        still, tmp_path, PIXEL, (Assessment(0.9123, ["low confidence", "many pieces"]), Assessment(None, []))
    )

    (group,) = report.content.get_planar_roi_measurement_groups()
    assert (group.tracking_identifier, group.finding_type.meaning) == ("lesion", "Lesion")
    assert group.finding_sites[0].value.meaning == "Breast"
    longest = np.hypot(19 * 0.25, 9 * 0.5)
    axes = axes_of(report)
    assert (axes.tracking_uid, axes.tracking_identifier) == (group.tracking_uid, "lesion")
    assert set(values_of(axes)) == {"Long axis", "Short axis"}
    assert values_of(group, axes) == {
        "Area": (25.0, "mm2"),
        "Long axis": (pytest.approx(longest, abs=0.01), "mm"),
        "Short axis": (pytest.approx(longest, abs=0.5), "mm"),
        "Perimeter": (pytest.approx(20, rel=0.12), "mm"),
        EXPECTED_DICE.meaning: (0.9123, "1"),
    }
    segmentation = dcmread(tmp_path / "case_seg.dcm")
    assert (
        group.referenced_segmentation_frame[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == segmentation.SOPInstanceUID
    )
    assert "flags: low confidence, many pieces" in texts_of(report)
    assert NOTICE in texts_of(report)
    assert f"weights_sha256={ALGORITHM.weights_sha256}" in texts_of(report)


@pytest.mark.parametrize("with_segmentation", [True, False])
def test_axes_have_lines_in_the_image(still: DicomCase, tmp_path: Path, with_segmentation: bool) -> None:
    report = write(still, tmp_path, PIXEL, with_segmentation=with_segmentation)
    group, other = report.content.get_image_measurement_groups()
    if other.get_measurements():
        group, other = other, group
    assert (len(group.get_measurements()), len(other.get_measurements())) == (2 if with_segmentation else 4, 0)
    (long,) = group.get_measurements(name=codes.SCT.LongAxis)
    (line,) = [item for item in long[0].ContentSequence if item.ValueType == "SCOORD"]
    ends = np.reshape(line.GraphicData, (2, 2))
    assert {tuple(end) for end in ends.tolist()} in ({(8.5, 5.5), (27.5, 14.5)}, {(27.5, 5.5), (8.5, 14.5)})
    (source,) = line.ContentSequence
    assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == still.sop_uids[0]


def test_without_calibration_everything_is_in_pixels(still: DicomCase, tmp_path: Path) -> None:
    report = write(still, tmp_path)
    (group,) = report.content.get_planar_roi_measurement_groups()
    found = values_of(group, axes_of(report))
    assert {unit for _, unit in found.values()} == {"{pixels}"}
    assert found["Area"][0] == 200


def test_a_volume_has_its_volume_and_both_diameters_of_a_slice(series: DicomCase, tmp_path: Path) -> None:
    assert series.affine is not None
    to_mm = series.affine[:3, :3]
    report = write(series, tmp_path, to_mm)
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    found = values_of(group, axes_of(report))
    assert found["Volume"] == (pytest.approx(200 * abs(np.linalg.det(to_mm)) / 1000, abs=1e-4), "ml")
    assert found["Long axis"] == found["Maximum 3D Diameter of a Mesh"]
    assert 0 < found["Short axis"][0] <= found["Long axis"][0]


@pytest.mark.parametrize("kind", ["still", "series"])
def test_a_label_that_is_nowhere_has_a_group_that_says_so(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case = request.getfixturevalue(kind)
    report = write(case, tmp_path, is_empty=True, assessments=(Assessment(None, ["nothing found"]),) * 2)
    groups = report.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["lesion", "shadow"]
    for group in groups:
        assert not group.get_measurements()
        (evaluation,) = [item for item in group.get_qualitative_evaluations() if item.name.meaning == "Presence"]
        assert evaluation.value == codes.SCT.Absent
    assert texts_of(report).count("flags: nothing found") == 2


@pytest.mark.parametrize("with_segmentation", [True, False])
def test_an_axis_of_a_volume_is_in_its_slice(series: DicomCase, tmp_path: Path, with_segmentation: bool) -> None:
    assert series.affine is not None
    report = write(series, tmp_path, series.affine[:3, :3], with_segmentation=with_segmentation)
    (long,) = axes_of(report).get_measurements(name=codes.SCT.LongAxis)
    (line,) = [item for item in long[0].ContentSequence if item.ValueType == "SCOORD"]
    assert line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == series.sop_uids[2]


def test_two_runs_write_the_same_bytes_but_dates(still: DicomCase, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(still, tmp_path / name, PIXEL)
        dataset = dcmread(tmp_path / name / "case_sr.dcm")
        for keywords in CREATION_DATES:
            for keyword in keywords:
                delattr(dataset, keyword)
        for equipment in dataset.ContributingEquipmentSequence:
            del equipment.ContributionDateTime
        written.append(dataset)
    assert written[0] == written[1]


def test_a_report_that_lost_a_measurement_is_noticed(
    still: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = sr.MeasurementReport

    def lose(**arguments: object) -> sr.MeasurementReport:
        content = build(**arguments)
        groups = next(item for item in content[0].ContentSequence if item.name.meaning == "Imaging Measurements")
        del groups.ContentSequence[-1]
        return content

    monkeypatch.setattr(sr, "MeasurementReport", lose)
    with pytest.raises(OutputCheckError, match="other measurements"):
        write(still, tmp_path, PIXEL)
    assert not (tmp_path / "case_sr.dcm").exists()


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize("kind", ["still", "series"])
@pytest.mark.parametrize("program", ["dciodvfy", "dsrdump"])
def test_validators_find_no_error(
    program: str, kind: str, is_empty: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} (Debian's dicom3tools, dcmtk)")
    assessments = (Assessment(0.9, ["low confidence"]), Assessment(None, ["nothing found"]))
    write(
        request.getfixturevalue(kind),
        tmp_path,
        (1.0, 1.0, 1.0)[: 2 if kind == "still" else 3],
        assessments,
        is_empty=is_empty,
    )
    done = subprocess.run(
        [program, str(tmp_path / "case_sr.dcm")], capture_output=True, text=True, errors="replace", check=False
    )
    problems = [line for line in done.stderr.splitlines() if line.startswith(("Error", "E:", "F:"))]
    assert not problems
    if program == "dsrdump":
        assert done.returncode == 0
        assert "Imaging Measurement Report" in done.stdout
