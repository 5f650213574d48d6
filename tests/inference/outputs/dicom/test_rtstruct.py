"""RT Structure Sets of series: contours that fill to the label map, and no error of ``dciodvfy``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from test_seg import make_enhanced

from mobileutr_monai.bundle.running import run_bundle
from mobileutr_monai.inference.outputs.dicom import rtstruct
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm, OutputCheckError
from mobileutr_monai.inference.outputs.dicom.rtstruct import write_structure_set
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.series import DicomCase, find_one_case
from tests.dicom_samples import LPS_TO_RAS, write_series, write_still

ALGORITHM = Algorithm("hippocampus", "1.0", "0" * 64)
LABELS = [SegmentLabel(1, "anterior"), SegmentLabel(2, "posterior"), SegmentLabel(3, "nowhere")]
OBLIQUE = nib.affines.from_matvec(
    np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag((0.7, 0.9, 2.5)), (-40, 12.5, 7)
)


@pytest.fixture
def case(tmp_path: Path) -> DicomCase:
    values = np.random.default_rng(0).integers(0, 255, (20, 16, 5), np.uint8)
    nib.save(nib.Nifti1Image(values, OBLIQUE), tmp_path / "volume.nii.gz")
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "volume.nii.gz", tmp_path / "series")
    return find_one_case(sorted((tmp_path / "series").iterdir()))


def make_label(case: DicomCase) -> np.ndarray:
    """A label with two holes and islands, another at the border, and one that is nowhere."""
    label = np.zeros((case.columns, case.rows, case.frames), np.uint8)
    label[2:12, 3:13], label[4, 5], label[6:9, 8:10], label[7, 9] = 1, 0, 0, 1
    label[15:, :4, 1:4] = 2
    label[..., 0] = 0
    return label


def read_label_map(path: Path, case: DicomCase) -> np.ndarray:
    """Fills the contours of a structure set: voxels whose centre is within an odd number of those of their slice."""
    assert case.affine is not None
    to_index = np.linalg.inv(LPS_TO_RAS @ case.affine)
    label = np.zeros((case.columns, case.rows, case.frames), np.uint8)
    x, y = (places.ravel() for places in np.meshgrid(np.arange(case.columns), np.arange(case.rows), indexing="ij"))
    for outlined in dcmread(path).ROIContourSequence:
        inside = np.zeros(label.shape, bool)
        for contour in outlined.get("ContourSequence", ()):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = nib.affines.apply_affine(to_index, np.reshape(contour.ContourData, (-1, 3)).astype(float))
            place = round(points[0, 2])
            assert np.allclose(points[:, 2], place, atol=1e-3), "a contour lies in its slice"
            image = contour.ContourImageSequence[0]
            if case.frame_order:
                assert case.frame_order[place] == image.ReferencedFrameNumber - 1
            else:
                assert case.sop_uids[place] == image.ReferencedSOPInstanceUID
            odd = np.zeros(len(x), bool)
            for (x0, y0), (x1, y1) in zip(points[:, :2], np.roll(points[:, :2], -1, axis=0), strict=True):
                crosses = (y0 > y) != (y1 > y)
                with np.errstate(divide="ignore", invalid="ignore"):
                    odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
            inside[..., place] ^= odd.reshape(inside.shape[:2])
        label[inside] = outlined.ReferencedROINumber
    return label


def test_contours_fill_to_the_label_map_in_patient_coordinates(case: DicomCase, tmp_path: Path) -> None:
    label = make_label(case)
    write_structure_set(case, label, LABELS, ALGORITHM, tmp_path / "a.dcm")
    assert np.array_equal(read_label_map(tmp_path / "a.dcm", case), label)
    dataset = dcmread(tmp_path / "a.dcm")
    assert [item.ROIName for item in dataset.StructureSetROISequence] == ["anterior", "posterior", "nowhere"]
    assert "ContourSequence" not in dataset.ROIContourSequence[2]
    source = dcmread(case.paths[0])
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert dataset[keyword].value == source[keyword].value
    write_structure_set(case, label, LABELS, ALGORITHM, tmp_path / "b.dcm")
    again = dcmread(tmp_path / "b.dcm")
    assert again.SOPInstanceUID == dataset.SOPInstanceUID
    assert again.ROIContourSequence == dataset.ROIContourSequence


def test_contours_refer_to_the_frames_of_an_enhanced_image(tmp_path: Path) -> None:
    case = make_enhanced(tmp_path / "enhanced", [3, 0, 4, 1, 2])
    label = np.random.default_rng(0).integers(0, 3, (case.columns, case.rows, case.frames), np.uint8)
    write_structure_set(case, label, LABELS, ALGORITHM, tmp_path / "a.dcm")
    assert np.array_equal(read_label_map(tmp_path / "a.dcm", case), label)


def test_a_contour_of_many_points_is_whole(case: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = [corner for x in range(0, 4000, 2) for corner in ((x, 0), (x, 1), (x + 1, 1), (x + 1, 0))]
    monkeypatch.setattr(rtstruct, "trace_outlines", lambda region: [ring] if region.any() else [])
    monkeypatch.setattr(rtstruct, "_check_written", lambda *_: None)
    write_structure_set(case, make_label(case), LABELS, ALGORITHM, tmp_path / "a.dcm")
    contour = dcmread(tmp_path / "a.dcm").ROIContourSequence[0].ContourSequence[0]
    assert len(contour.ContourData) == 3 * len(ring)


def test_contours_that_do_not_fill_the_label_map_are_not_left(
    case: DicomCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = rtstruct.trace_outlines
    monkeypatch.setattr(rtstruct, "trace_outlines", lambda region: trace(region)[1:])
    with pytest.raises(OutputCheckError, match=r"a\.dcm: the contours do not fill the label map"):
        write_structure_set(case, make_label(case), LABELS, ALGORITHM, tmp_path / "a.dcm")
    assert not list(tmp_path.glob("a.dcm*"))


def test_a_still_is_refused(breast: Path, tmp_path: Path) -> None:
    write_still(next((breast / "sample_data" / "images").iterdir()), "L", tmp_path / "a.dcm")
    case = find_one_case([tmp_path / "a.dcm"])
    with pytest.raises(DicomError, match="structure sets are of series"):
        write_structure_set(case, np.zeros((case.rows, case.columns)), LABELS, ALGORITHM, tmp_path / "b.dcm")


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")
def test_dciodvfy_finds_no_error(case: DicomCase, tmp_path: Path) -> None:
    write_structure_set(case, make_label(case), LABELS, ALGORITHM, tmp_path / "a.dcm")
    done = subprocess.run(["dciodvfy", str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    assert "RTStructureSet" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("Error")]


def test_a_run_writes_one_per_series_and_says_what_a_nifti_does_not_get(
    repository: Path, case: DicomCase, tmp_path: Path
) -> None:
    bundle = repository / "bundles" / "hippocampus_mri_segmentation"
    shutil.copyfile(tmp_path / "volume.nii.gz", tmp_path / "series" / "volume.nii.gz")
    overrides = {"roi_size": [16, 16, 16], "spacing": [2.0, 2.0, 2.0], "workers": 0, "overlays": False}
    assert run_bundle(bundle, tmp_path / "series", tmp_path / "out", {**overrides, "output_format": "rtstruct"}) == 0
    (segmentation,) = (tmp_path / "out").glob("*_seg.dcm")
    (structures,) = (tmp_path / "out").glob("*_rtstruct.dcm")
    label = np.zeros((case.columns, case.rows, case.frames), bool)
    for frame, group in zip(
        dcmread(segmentation).pixel_array, dcmread(segmentation).PerFrameFunctionalGroupsSequence, strict=True
    ):
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        label[..., case.sop_uids.index(uid)] |= frame.T > 0
    assert np.array_equal(read_label_map(structures, case) > 0, label)
    report = (tmp_path / "out" / "report.csv").read_text()
    assert "no rtstruct: it refers to the slices of a DICOM series with UIDs" in report
