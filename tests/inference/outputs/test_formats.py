"""The formats besides label maps, read by the tools that they are for: the same pixels at the same places."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.bundle.running import run_bundle
from mobileutr_monai.core.choices import FURTHER_FORMATS, MASK_FORMATS, parse_formats
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.outputs.result import CaseResult, OutputOptions
from mobileutr_monai.inference.outputs.writers import CaseWriter
from mobileutr_monai.readers.cases import InputCase, find_cases
from tests.dicom_samples import LPS_TO_RAS, write_cine, write_series, write_still
from tests.inference.outputs.test_polygons import fill

LABELS = [SegmentLabel(1, "lesion"), SegmentLabel(2, "Läsion^2"), SegmentLabel(3, "nowhere")]
SHAPE = (20, 16, 6)
OBLIQUE = nib.affines.from_matvec(
    np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag((0.7, 0.9, -2.5)), (-40, 12.5, 7)
)
SHEARED = np.array([[1.0, 0, 0.5, 3], [0, 1, 0, -4], [0, 0, 2, 5], [0, 0, 0, 1]])


def make_label(shape: tuple[int, ...]) -> np.ndarray:
    """Two labels, the first with a hole and at the border."""
    label = np.zeros(shape, np.uint8)
    label[1:9, 0:7], label[3:5, 2:4], label[10:13, 8:9] = 1, 0, 2
    return label


def make_case(folder: Path, kind: str) -> InputCase:
    """Returns a case of a folder of its own."""
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)
    if kind == "image":
        Image.fromarray(values[..., 0]).save(folder / "a.png")
    elif kind == "still":
        Image.fromarray(values[..., 0]).save(folder.parent / "still.png")
        write_still(folder.parent / "still.png", "L", folder / "a.dcm")
    elif kind == "nifti 2D":
        nib.save(nib.Nifti1Image(values[..., 0], np.diag((0.5, 0.25, 1, 1))), folder / "a.nii.gz")
    else:
        affine = SHEARED if kind == "sheared" else OBLIQUE
        image = nib.Nifti1Image(values, affine)
        if kind == "microns":
            image = nib.Nifti1Image(values, np.diag((1000, 1000, 1000, 1)) @ affine)
            image.header.set_xyzt_units("micron")
        nib.save(image, folder / "a.nii.gz" if kind != "series" else folder.parent / "volume.nii.gz")
        if kind == "series":
            write_series(folder.parent / "volume.nii.gz", folder)
    (case,) = find_cases(folder).cases
    return case


def write(case: InputCase, folder: Path, *formats: str) -> tuple[np.ndarray, dict[str, Path]]:
    """Writes a case as plain mask and in other formats; returns the label map, and the files by their endings."""
    shape = SHAPE if case.spatial_dims == 3 else SHAPE[:2] if case.kind.value != "NIfTI" else SHAPE[1::-1]
    if case.dicom is not None and case.spatial_dims == 3:
        shape = (case.dicom.columns, case.dicom.rows, case.dicom.frames)
    label = make_label(shape)
    options = OutputOptions(LABELS, Algorithm("lesions", "1.0", "0" * 64), "plain", False, False, formats=formats)
    writer = CaseWriter(folder, options)
    result = CaseResult(case, label, [], options)
    writer.write(result)
    for _, write_extra in writer.list_extras(result):
        write_extra()
    base = folder / case.output
    return label, {path.name.removeprefix(base.name): path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["oblique", "sheared", "microns", "series", "nifti 2D", "image", "still"])
def test_a_slicer_segmentation_has_the_voxels_and_places_of_the_mask(tmp_path: Path, kind: str) -> None:
    nrrd = pytest.importorskip("nrrd")
    _, files = write(make_case(tmp_path / "in", kind), tmp_path / "out", "nrrd")
    values, header = nrrd.read(str(files["_mask.seg.nrrd"]))
    if "_mask.nii.gz" in files:
        mask = nib.load(files["_mask.nii.gz"])
        expected = np.asarray(mask.dataobj).reshape(values.shape)
        to_mm = np.diag((1e-3, 1e-3, 1e-3, 1)) if kind == "microns" else np.eye(4)
        affine = to_mm @ mask.affine
    else:
        expected, affine = np.asarray(Image.open(files["_mask.png"])).T[..., np.newaxis], np.diag((-1, -1, 1, 1))
    assert np.array_equal(values, expected)
    assert set(np.unique(values)) == {0, 1, 2}
    assert header["space"] == "left-posterior-superior"
    found = nib.affines.from_matvec(np.array(header["space directions"]).T, header["space origin"])
    assert np.allclose(LPS_TO_RAS @ found, affine, atol=1e-4)


@pytest.mark.parametrize("kind", ["oblique", "series", "image"])
def test_simpleitk_reads_a_slicer_segmentation_as_it_reads_the_mask(tmp_path: Path, kind: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    pytest.importorskip("nrrd")
    pytest.importorskip("pyarrow")
    _, files = write(make_case(tmp_path / "in", kind), tmp_path / "out", "nrrd")
    found = sitk.ReadImage(str(files["_mask.seg.nrrd"]))
    mask = sitk.ReadImage(str(files["_mask.png" if kind == "image" else "_mask.nii.gz"]))
    assert np.array_equal(sitk.GetArrayFromImage(found).squeeze(), sitk.GetArrayFromImage(mask))
    dimensions = mask.GetDimension()
    for index in ((0, 0, 0), (7, 3, 0), (7, 3, 2)[: 3 if dimensions == 3 else 0] or (1, 1, 0)):
        place = mask.TransformIndexToPhysicalPoint(index[:dimensions])
        assert found.TransformIndexToPhysicalPoint(index)[:dimensions] == pytest.approx(place, abs=1e-4)


def test_a_slicer_segmentation_names_every_label_in_the_words_of_slicer(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    case = make_case(tmp_path / "in", "oblique")
    _, files = write(case, tmp_path / "out", "nrrd")
    header = nrrd.read_header(str(files["_mask.seg.nrrd"]))
    named = [[header[f"Segment{n}_{key}"] for key in ("Name", "LabelValue", "Extent")] for n in range(3)]
    assert named == [
        ["lesion", "1", "1 8 0 6 0 5"],
        ["L?sion 2", "2", "10 12 8 8 0 5"],
        ["nowhere", "3", "0 -1 0 -1 0 -1"],
    ]
    assert header["Segment0_Color"] == "0.313725 1 0.313725"
    assert "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~" in header["Segment1_Tags"]
    assert len({header[f"Segment{number}_ID"] for number in range(3)}) == 3
    first = files["_mask.seg.nrrd"].read_bytes()
    _, again = write(case, tmp_path / "again", "nrrd")
    assert again["_mask.seg.nrrd"].read_bytes() == first


@pytest.mark.parametrize("kind", ["image", "still", "nifti 2D"])
def test_annotations_of_qupath_fill_to_the_label_map(tmp_path: Path, kind: str) -> None:
    label, files = write(make_case(tmp_path / "in", kind), tmp_path / "out", "geojson")
    content = json.loads(files[".geojson"].read_text())
    assert content["type"] == "FeatureCollection"
    found = np.zeros_like(label)
    for feature in content["features"]:
        assert feature["properties"]["objectType"] == "annotation"
        classification = feature["properties"]["classification"]
        (index,) = (item.index for item in LABELS if item.name == classification["name"])
        assert len(classification["color"]) == 3
        geometry = feature["geometry"]
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        rings = [ring for rings in polygons for ring in rings]
        assert all(ring[0] == ring[-1] for ring in rings)
        found[fill([[(x, y) for x, y in ring[:-1]] for ring in rings], label.shape)] = index
    assert np.array_equal(found, label)
    assert len(content["features"]) == 2


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("auto", ("auto", ())),
        ("plain", ("plain", ())),
        ("geojson, nrrd", ("auto", ("nrrd", "geojson"))),
        ("nrrd,", ("auto", ("nrrd",))),
        (["plain", "nrrd"], ("plain", ("nrrd",))),
    ],
)
def test_formats_are_a_list_in_which_the_mask_need_not_be_named(given: Any, parsed: tuple[str, Any]) -> None:
    assert parse_formats(given) == parsed


@pytest.fixture(scope="module")
def run(breast: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, str]]]:
    """A run with all formats of images, whose masks are not empty."""
    pytest.importorskip("nrrd")
    pytest.importorskip("pyarrow")
    pytest.importorskip("pycocotools")
    source, output = (tmp_path_factory.mktemp(name) for name in ("in", "out"))
    Image.linear_gradient("L").resize((80, 60)).save(source / "picture.png")
    write_still(source / "picture.png", "L", source / "still.dcm")
    write_cine(source / "still.dcm", source / "cine.dcm")
    formats = [name for name, needs in FURTHER_FORMATS.items() if 2 in needs.dimensions]
    overrides = {"image_size": [32, 32], "threshold": 1e-6, "min_peak": 0, "workers": 0, "overlays": False}
    overrides |= {"structured_report": True}
    assert run_bundle(breast, source, output, {**overrides, "output_format": ",".join(formats)}) == 0
    with (output / "report.csv").open(newline="") as file:
        return output, {row["case"]: row for row in csv.DictReader(file)}


def test_a_run_writes_every_format_and_says_what_a_cine_does_not_get(run: tuple[Path, dict[str, Any]]) -> None:
    output, rows = run
    for case, mask in (("picture.png", "picture_mask.png"), ("still.dcm", "still_seg.dcm")):
        assert rows[case]["output"] == mask
        assert ".geojson:" in rows[case]["files"]
        assert "_mask.seg.nrrd:" in rows[case]["files"]
        assert (output / f"{case.split('.')[0]}.geojson").is_file()
    assert "no nrrd, coco, geojson: the label maps of a cine are only in its NIfTI" in rows["cine.dcm"]["detail"]
    assert "no structured report: they are for stills and series, and this is a cine" in rows["cine.dcm"]["detail"]
    assert "_sr.dcm:" in rows["still.dcm"]["files"]
    assert json.loads((output / "run.json").read_text())["options"]["output_format"] == "auto,nrrd,geojson"


def test_a_format_that_fails_costs_itself_alone(breast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr("mobileutr_monai.inference.outputs.table.write_geojson", fail)
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").resize((80, 60)).save(tmp_path / "in" / "a.png")
    overrides = {"image_size": [32, 32], "workers": 0, "overlays": False, "output_format": "geojson"}
    assert run_bundle(breast, tmp_path / "in", tmp_path / "out", overrides) == 0
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["output"]) == ("ok", "a_mask.png")
    assert "no geojson: no ink" in row["detail"]


@pytest.mark.parametrize(
    ("formats", "said"),
    [
        ("tiff", f"format 'tiff' is unknown; choose from {', '.join((*MASK_FORMATS, *FURTHER_FORMATS))}"),
        ("auto,plain", "formats auto and plain exclude each other"),
    ],
)
def test_formats_that_cannot_be_used_are_one_line_before_the_run(
    breast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], formats: str, said: str
) -> None:
    Image.linear_gradient("L").save(tmp_path / "a.png")
    assert run_bundle(breast, tmp_path, tmp_path.with_suffix(".out"), {"output_format": formats}) == 2
    assert said in capsys.readouterr().err
    assert not tmp_path.with_suffix(".out").exists()
