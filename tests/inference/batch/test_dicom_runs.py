"""The batch runner over real DICOM: everything that can be decoded is segmented, everything else says why not."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from highdicom import sr
from highdicom.seg import segread
from monai.bundle import ConfigParser
from PIL import Image
from pydicom import dcmread

from mobileutr_monai.inference.outputs import table
from mobileutr_monai.inference.report.thumbnails import read_thumbnail, thumbnail_path
from mobileutr_monai.readers.dicom.calibration import read_tissue
from mobileutr_monai.readers.dicom.series import find_dicom_cases

ROOT = Path(__file__).resolve().parents[3]
DICOM = ROOT.parent / "shared" / "data" / "dicom"
IMAGES, VOLUMES = "breast_ultrasound_segmentation", "hippocampus_mri_segmentation"
SMALL = {IMAGES: {"image_size": [32, 32]}, VOLUMES: {"roi_size": [16, 16, 16], "spacing": [8.0, 8.0, 8.0]}}

pytestmark = pytest.mark.skipif(not DICOM.is_dir(), reason="the real DICOM files are not next to the project")

HALF = 0.501 / 255
"""Probabilities are written as 255 steps."""

Rows = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def run() -> Callable[..., Rows]:
    """Runs a bundle, at a small size since these tests are about files; returns the last row of each case."""

    def run(name: str, folder: Path, output: Path, **overrides: object) -> Rows:
        bundle = ROOT / "bundles" / name
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        folders = {"bundle_root": str(bundle), "dataset_dir": str(folder), "output_dir": str(output)}
        parser.update({**folders, **SMALL[name], **overrides})
        try:
            parser.get_parsed_content("runner").main()
        except SystemExit as stop:
            assert stop.code == 1
        with (output / "report.csv").open(newline="") as file:
            return {row["case"]: row for row in csv.DictReader(file)}

    return run


@pytest.fixture(scope="module")
def everything(run, tmp_path_factory) -> tuple[Rows, Path]:
    output = tmp_path_factory.mktemp("everything")
    options = {"any_modality": True, "overlays": False, "structured_report": True, "presentation_state": True}
    return run(IMAGES, DICOM, output, **options), output


def read_index() -> list[dict[str, str]]:
    with (DICOM / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_still_and_cine_that_the_index_decodes_is_segmented(everything):
    rows, output = everything
    for entry in read_index():
        if entry["file"].split("/")[0] in ("ct_series_totalseg",) or entry["file"].startswith("mr_series"):
            continue  # volumes
        row = rows[entry["file"]]
        if not entry["decoded"].startswith("FAIL") and row["reason"] != "not an image object":
            assert row["status"] == "ok", (entry["file"], row["reason"], row["detail"])
            assert (output / row["output"]).is_file()
        elif row["status"] != "ok":
            assert row["reason"]


def test_every_file_is_in_the_report_once(everything):
    rows, _ = everything
    series = [row for row in rows.values() if row["kind"] == "DICOM series"]
    assert {row["reason"] for row in series} == {"not for this bundle's dimensions"}
    in_series = sum(len(list((DICOM / Path(row["case"]).parent).iterdir())) for row in series)
    assert len(rows) - len(series) + in_series == sum(path.is_file() for path in DICOM.rglob("*"))


def test_other_modalities_are_skipped_unless_asked_for(run, tmp_path):
    rows = run(IMAGES, DICOM, tmp_path, overlays=False)
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {
        f"us/{path.name}" for path in (DICOM / "us").iterdir()
    }
    assert rows["odd/CT_small.dcm"]["reason"] == "not this bundle's modality"
    assert "CT, the bundle is for US" in rows["odd/CT_small.dcm"]["detail"]


def test_every_still_of_an_ultrasound_has_a_structured_report_of_its_row(run, tmp_path):
    rows = run(IMAGES, DICOM / "us", tmp_path, min_peak=0.0, threshold=0.01, overlays=False, structured_report=True)
    units = set()
    for row in rows.values():
        if not row["output"].endswith("_seg.dcm"):
            continue
        content = sr.srread(tmp_path / row["output"].replace("_seg.dcm", "_sr.dcm")).content
        groups = (*content.get_planar_roi_measurement_groups(), *content.get_image_measurement_groups())
        assert len({group.tracking_uid for group in groups}) == 1
        found = [item for group in groups for item in group.get_measurements()]
        values = {item.name.meaning: (float(item.value), item.unit.value) for item in found}
        if row["pixels"] == "0":
            assert not values
            continue
        unit = "mm" if row["area_mm2"] else "px"
        units.add(unit)
        area, length = (("area_mm2", "mm2"), "mm") if unit == "mm" else (("pixels", "{pixels}"), "{pixels}")
        assert values == {
            "Area": (float(row[area[0]]), area[1]),
            "Long axis": (float(row[f"diameter_{unit}"]), length),
            "Short axis": (float(row[f"short_diameter_{unit}"]), length),
            "Perimeter": (float(row[f"circumference_{unit}"]), length),
        }
    assert units == {"mm", "px"}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")
def test_structured_reports_have_no_error_that_their_source_does_not_have(everything):
    _, output = everything
    reports = sorted(output.rglob("*_sr.dcm"))
    assert reports
    for report in reports:
        segmentation = report.with_name(report.name.replace("_sr.dcm", "_seg.dcm"))
        new = find_errors(report) - find_errors(segmentation)
        assert not new, report


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")
def test_presentation_states_of_stills_and_cines_have_no_error_that_their_source_does_not_have(everything):
    rows, output = everything
    kinds = set()
    for name, row in rows.items():
        assert "no presentation state" not in row["detail"]
        state = output / re.sub(r"_(seg\.dcm|mask\.(png|nii\.gz))$", "_pr.dcm", row["output"])
        if row["status"] == "ok" and state.exists():
            kinds.add(row["kind"])
            # A UID that the standard forbids is wrong where it is referred to, too.
            own, known = ({error.split(" in (")[0] for error in find_errors(path)} for path in (state, DICOM / name))
            assert not own - known, name
    assert kinds == {"DICOM still", "DICOM cine"}


def find_errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in done.stderr.splitlines() if line.startswith("Error")}


def test_a_report_that_cannot_be_written_costs_itself_alone(run, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no room for codes")

    monkeypatch.setattr(table, "write_report", fail)
    (tmp_path / "in").mkdir()
    shutil.copyfile(DICOM / "us" / "US1_J2KR.dcm", tmp_path / "in" / "a.dcm")
    (row,) = run(IMAGES, tmp_path / "in", tmp_path / "out", structured_report=True, workers=0).values()
    assert (row["status"], row["output"]) == ("ok", "a_seg.dcm")
    assert "no structured report: no room for codes" in row["detail"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "a_overlay.png" in names or "no overlay" in row["detail"]
    assert "a_sr.dcm" not in names


def test_segmentation_holds_the_mask_that_the_plain_format_has(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("OBXXXX1A_rle.dcm", "US1_J2KR.dcm", "philips_mono_jpegll.dcm"):
        shutil.copyfile(DICOM / "us" / name, tmp_path / "in" / name)
    objects = run(IMAGES, tmp_path / "in", tmp_path / "seg")
    plain = run(IMAGES, tmp_path / "in", tmp_path / "plain", output_format="plain")
    assert objects.keys() == plain.keys()
    for name, row in objects.items():
        segmentation = dcmread(tmp_path / "seg" / row["output"])
        mask = np.array(Image.open(tmp_path / "plain" / plain[name]["output"]))
        assert segmentation.Modality == "SEG"
        assert np.array_equal(segmentation.pixel_array.reshape(-1, *mask.shape).max(axis=0), mask)
        assert row["pixels"] == plain[name]["pixels"] == str((mask == 1).sum())


@pytest.mark.parametrize("name", [IMAGES, VOLUMES])
def test_labelmaps_and_probabilities_agree_with_the_plain_mask(run, tmp_path, name):
    (tmp_path / "in").mkdir()
    source = DICOM / "us" / "US1_J2KR.dcm" if name == IMAGES else DICOM / "mr_series_Study1_13_HCropVolume"
    for path in [source] if source.is_file() else source.iterdir():
        shutil.copyfile(path, tmp_path / "in" / path.name)
    common = {"overlays": False, "report_page": False, "workers": 0, "min_peak": 0.0, "threshold": 0.01}
    if name == VOLUMES:  # at its own size, at which both labels are found
        common |= {"roi_size": [32, 48, 32], "spacing": [1.0, 1.0, 1.0]}
    options = {"seg_type": "labelmap", "keep_empty_frames": True, "probabilities": True, "structured_report": True}
    (row,) = run(name, tmp_path / "in", tmp_path / "seg", **common, **options).values()
    assert (row["status"], row["detail"]) == ("ok", "")
    (plain,) = run(name, tmp_path / "in", tmp_path / "plain", **common, output_format="plain").values()
    path = tmp_path / "plain" / plain["output"]
    mask = np.array(Image.open(path))[None] if name == IMAGES else np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)

    (case,), _ = find_dicom_cases((tmp_path / "in").iterdir())
    places = {"source_sop_instance_uids": case.sop_uids, "ignore_spatial_locations": True}
    found = segread(tmp_path / "seg" / row["output"])
    assert found.segmentation_type.value == "LABELMAP"
    assert np.array_equal(found.get_pixels_by_source_instance(**places, combine_segments=True), mask) and mask.any()
    path = tmp_path / "seg" / row["output"].replace("_seg.dcm", "_probabilities.dcm")
    values = segread(path).get_pixels_by_source_instance(**places)
    if name == IMAGES:
        assert (values[mask == 1] >= 0.01 - HALF).all() and (values[mask == 0] <= 0.01 + HALF).all()
    else:
        for number in (1, 2):
            own, highest = values[..., number - 1][mask == number], values.max(axis=-1)[mask == number]
            assert (own >= highest - 2 * HALF).all()
    content = sr.srread(tmp_path / "seg" / row["output"].replace("_seg.dcm", "_sr.dcm")).content
    assert not content.get_planar_roi_measurement_groups() + content.get_volumetric_roi_measurement_groups()


def test_areas_in_mm_only_where_the_ultrasound_is_calibrated(everything):
    rows, _ = everything
    calibrated, not_calibrated = rows["us/OBXXXX1A_rle.dcm"], rows["us/US1_J2KR.dcm"]
    if int(calibrated["pixels"]):
        inside = int(calibrated["pixels"]) * (1 - float(calibrated["outside_percent"]) / 100)
        assert float(calibrated["area_mm2"]) == pytest.approx(inside * 0.2622882866**2, rel=1e-3)
    assert not_calibrated["area_mm2"] == ""
    assert not_calibrated["diameter_mm"] == ""


def test_overlays_show_nothing_outside_of_the_tissue_of_an_ultrasound(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("OBXXXX1A_rle.dcm", "US1_J2KR.dcm"):  # with regions, and without
        shutil.copyfile(DICOM / "us" / name, tmp_path / "in" / name)
    rows = run(IMAGES, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "US1_J2KR_overlay.png").exists()
    assert "no overlay" in rows["US1_J2KR.dcm"]["detail"]
    assert rows["OBXXXX1A_rle.dcm"]["detail"] == ""
    picture = np.array(Image.open(tmp_path / "out" / "OBXXXX1A_rle_overlay.png"))
    assert picture.any()
    assert not picture[:20].any(), "the banner"
    run(IMAGES, tmp_path / "in", tmp_path / "whole", whole_overlays=True)
    assert np.array(Image.open(tmp_path / "whole" / "OBXXXX1A_rle_overlay.png"))[:20].any()
    assert (tmp_path / "whole" / "US1_J2KR_overlay.png").is_file()


@pytest.mark.parametrize("overlays", [True, False])
def test_thumbnails_show_nothing_outside_of_the_tissue_of_an_ultrasound(run, tmp_path, overlays):
    (tmp_path / "in").mkdir()
    for name in ("OBXXXX1A_rle.dcm", "OBXXXX1A_rle_2frame.dcm", "US1_J2KR.dcm", "examples_ybr_color.dcm"):
        shutil.copyfile(DICOM / "us" / name, tmp_path / "in" / name)
    rows = run(IMAGES, tmp_path / "in", tmp_path / "out", overlays=overlays)
    for name in ("OBXXXX1A_rle", "OBXXXX1A_rle_2frame"):
        top, left, bottom, right = read_tissue(tmp_path / "in" / f"{name}.dcm")
        (thumbnail,) = read_thumbnail(thumbnail_path(tmp_path / "out", name))
        assert thumbnail["width"] / thumbnail["height"] == pytest.approx((right - left) / (bottom - top), rel=0.01)
        assert (bottom, right) != (600, 800) or (top, left) != (0, 0), "there is something outside"
    sums = np.asarray(nib.load(tmp_path / "out" / f"{name}_mask.nii.gz").dataobj).sum(axis=(0, 1))
    assert thumbnail["name"] == f"frame {sums.argmax() + 1} of 2{', largest area' if sums.any() else ''}"
    # A still without regions, and a cine whose region lies outside of it.
    stated = {
        "US1_J2KR": "the file defines no tissue regions",
        "examples_ybr_color": "the region of tissue that the file defines does not lie",
    }
    for name, why in stated.items():
        assert not thumbnail_path(tmp_path / "out", name).exists()
        what = "overlay" if overlays else "picture"
        assert rows[f"{name}.dcm"]["detail"].startswith(f"no {what}: {why}")
    run(IMAGES, tmp_path / "in", tmp_path / "whole", overlays=overlays, whole_overlays=True)
    assert thumbnail_path(tmp_path / "whole", "US1_J2KR").is_file()
    (thumbnail,) = read_thumbnail(thumbnail_path(tmp_path / "whole", "OBXXXX1A_rle"))
    assert thumbnail["width"] / thumbnail["height"] == pytest.approx(800 / 600, rel=0.01)


def test_a_cine_becomes_a_stack_of_masks_and_a_capture(run, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copyfile(DICOM / "us" / "OBXXXX1A_rle_2frame.dcm", tmp_path / "in" / "cine")
    (row,) = run(IMAGES, tmp_path / "in", tmp_path / "out", batch_size=1).values()
    assert (row["kind"], row["status"], row["shape"]) == ("DICOM cine", "ok", "600 x 800 x 2")
    stack = np.asarray(nib.load(tmp_path / "out" / "cine_mask.nii.gz").dataobj)
    assert stack.shape == (800, 600, 2)
    assert int(row["pixels"]) == (stack == 1).sum()
    assert dcmread(tmp_path / "out" / "cine_overlay.dcm").NumberOfFrames == 2


def test_a_series_in_shuffled_files_becomes_a_segmentation_of_its_slices(run, tmp_path):
    source = DICOM / "mr_series_Study1_13_HCropVolume"
    (tmp_path / "in").mkdir()
    paths = sorted(source.iterdir())
    for index, path in enumerate(reversed(paths)):
        shutil.copyfile(path, tmp_path / "in" / f"IM{index:04}")
    (row,) = run(VOLUMES, tmp_path / "in", tmp_path / "out").values()
    assert (row["kind"], row["status"]) == ("DICOM series", "ok"), row["detail"]
    segmentation = dcmread(tmp_path / "out" / row["output"])
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["anterior", "posterior"]
    plain = run(VOLUMES, tmp_path / "in", tmp_path / "plain", output_format="plain")
    (mask,) = (np.asarray(nib.load(tmp_path / "plain" / r["output"]).dataobj) for r in plain.values())
    assert mask.shape[2] == len(paths)
    assert int(segmentation.pixel_array.sum()) == (mask > 0).sum()


def test_a_series_that_cannot_be_used_is_named_with_its_reason(run, tmp_path, caplog):
    source = DICOM / "mr_series_Study1_13_HCropVolume"
    shutil.copytree(source, tmp_path / "in")
    for path in sorted((tmp_path / "in").iterdir())[10:12]:
        path.unlink()
    ((name, row),) = run(VOLUMES, tmp_path / "in", tmp_path / "out").items()
    assert row["status"] == "failed"
    assert f"{name}: {row['reason']}: {row['detail']}" in caplog.messages


def test_a_volume_bundle_refuses_stills_and_cines_with_the_reason(run, tmp_path):
    (tmp_path / "in").mkdir()
    for path in (DICOM / "odd" / "MR_small_RLE.dcm", DICOM / "odd" / "emri_small.dcm"):
        shutil.copyfile(path, tmp_path / "in" / path.name)
    source = DICOM / "mr_series_Study1_13_HCropVolume"
    shutil.copytree(source, tmp_path / "in" / "series")
    rows = run(VOLUMES, tmp_path / "in", tmp_path / "out", overlays=False)
    refused = {name: row["reason"] for name, row in rows.items() if row["status"] == "skipped"}
    reason = "not for this bundle's dimensions"
    assert refused == {"MR_small_RLE.dcm": reason, "emri_small.dcm": reason}


def test_no_patient_name_is_printed_or_written_to_the_report(run, tmp_path, capsys, caplog):
    (tmp_path / "in").mkdir()
    source = dcmread(DICOM / "us" / "US1_J2KR.dcm")
    source.PatientName, source.PatientID = "SECRET^NAME", "SECRET-ID"
    source.save_as(tmp_path / "in" / "a.dcm")
    (tmp_path / "in" / "b.dcm").write_bytes((tmp_path / "in" / "a.dcm").read_bytes()[:-5000])
    run(IMAGES, tmp_path / "in", tmp_path / "out")
    said = capsys.readouterr()
    reports = "".join(
        (tmp_path / "out" / name).read_text() for name in ("report.csv", "report.json", "report.html", "run.json")
    )
    assert "SECRET" not in said.out + said.err + caplog.text + reports


def test_the_network_can_be_given_the_tissue_of_an_ultrasound_alone(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("OBXXXX1A_rle.dcm", "OBXXXX1A_rle_2frame.dcm", "US1_J2KR.dcm"):
        shutil.copyfile(DICOM / "us" / name, tmp_path / "in" / name)
    options = {
        "output_format": "plain",
        "overlays": False,
        "threshold": 1e-6,
        "min_peak": 0,
    }  # all that the network sees
    run(IMAGES, tmp_path / "in", tmp_path / "out", crop_to_tissue=True, **options)
    top, left, bottom, right = read_tissue(DICOM / "us" / "OBXXXX1A_rle.dcm")
    still = np.array(Image.open(tmp_path / "out" / "OBXXXX1A_rle_mask.png"))
    frames = np.asarray(nib.load(tmp_path / "out" / "OBXXXX1A_rle_2frame_mask.nii.gz").dataobj)
    for mask in (still, frames[..., 0].T):
        assert mask.shape == (600, 800)
        assert mask[top:bottom, left:right].mean() > 0.9
        assert not np.delete(mask, np.s_[top:bottom], axis=0).any()
        assert not np.delete(mask, np.s_[left:right], axis=1).any()
    assert np.array(Image.open(tmp_path / "out" / "US1_J2KR_mask.png")).mean() > 0.9, "no region: the whole image"
