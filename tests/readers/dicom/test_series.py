"""Which cases DICOM files hold, and what they measure."""

from __future__ import annotations

import random
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom import series
from mobileutr_monai.readers.dicom.calibration import PixelSize, find_tissue, read_pixel_size, read_ultrasound_regions
from mobileutr_monai.readers.dicom.series import DicomCase, DicomProblem, find_dicom_cases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SLICE = np.zeros((4, 6), np.int16)
AXIAL = [1, 0, 0, 0, 1, 0]


def attributes_of_slice(position: tuple[float, ...], **changes: Any) -> dict[str, Any]:
    return {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "Modality": "CT",
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.8],
        **changes,
    }


@pytest.fixture
def write_series(write_dicom):
    """Writes a slice a position, with numbers that say nothing about the order."""

    def write(positions: list[tuple[float, ...]], **changes: Any) -> list[Path]:
        return [
            write_dicom(f"slice{index}", SLICE + index, **attributes_of_slice(position, **changes))
            for index, position in enumerate(positions)
        ]

    return write


def only_case(paths: list[Path]) -> DicomCase:
    cases, problems = find_dicom_cases(paths)
    assert not problems
    assert len(cases) == 1
    return cases[0]


def only_problem(paths: list[Path]) -> DicomProblem:
    cases, problems = find_dicom_cases(paths)
    assert not cases
    assert len(problems) == 1
    return problems[0]


def test_slices_are_ordered_along_their_normal(write_series) -> None:
    paths = write_series([(1, 2, z) for z in (30, 10, 20, 0)])
    case = only_case(paths)
    assert (case.kind, case.frames, case.rows, case.columns) == (CaseKind.SERIES, 4, 4, 6)
    assert case.paths == tuple(paths[index] for index in (3, 1, 2, 0))
    assert case.sop_uids == tuple(str(dcmread(path).SOPInstanceUID) for path in case.paths)
    assert (case.modality, case.study_uid, case.series_uid) == ("CT", "1.2.3", "1.2.3.4")
    # Left and back are positive in DICOM, right and front in MONAI.
    expected = [[-0.8, 0, 0, -1], [0, -0.5, 0, -2], [0, 0, 10, 0], [0, 0, 0, 1]]
    assert np.allclose(case.affine, expected)


def test_the_affine_maps_pixels_as_the_standard_says(write_series) -> None:
    along_row, along_column = np.array([0.6, 0.8, 0]), np.array([0, 0, -1])
    normal = np.cross(along_row, along_column)
    orientation = [*along_row, *along_column]
    positions = [tuple(np.array([5, -7, 11]) + 2.5 * index * normal) for index in (2, 0, 1)]
    case = only_case(write_series(positions, ImageOrientationPatient=orientation))
    column, row, index = 3, 2, 1
    point = np.array([5, -7, 11]) + along_row * 0.8 * column + along_column * 0.5 * row + 2.5 * index * normal
    assert np.allclose((case.affine @ [column, row, index, 1])[:3], point * [-1, -1, 1])


def test_a_tilted_gantry_gives_a_sheared_affine(write_series) -> None:
    case = only_case(write_series([(0, 0.5 * z, z) for z in (0, 2, 4)]))
    assert case.affine[:3, 2].tolist() == [0, -1, 2]


@pytest.mark.parametrize(
    ("positions", "reason", "named"),
    [
        ([(0, 0, 0), (0, 0, 1), (0, 0, 3)], Reason.SLICE_GAP, "(0, 0, 1) mm and (0, 0, 3) mm"),
        (
            [(0, 0, 0), (0, 0, 1), (0, 0, 1)],
            Reason.DUPLICATE_POSITIONS,
            "slice1 and slice2 are both at (0, 0, 1)",
        ),
        ([(0, 0, 0), (0, 0, 1), (0, 0, 3), (0, 0, 4)], Reason.SLICE_GAP, "(0, 0, 1) mm and (0, 0, 3) mm"),
        ([(0, 0, 0), (0, 3, 1), (0, 0, 2)], Reason.SLICE_GAP, "(0, 3, 1)"),
        ([(0, 0, 0), (9, 0, 0)], Reason.DUPLICATE_POSITIONS, "slice0 and slice1 are both at (0, 0, 0)"),
    ],
)
def test_an_uneven_stack_is_an_error_of_its_series(
    write_series, write_dicom, positions: list[tuple[float, ...]], reason: Reason, named: str
) -> None:
    paths = write_series(positions)
    other = write_dicom("other", np.zeros((4, 6), np.uint8), SeriesInstanceUID="9")
    cases, problems = find_dicom_cases([*paths, other])
    assert [case.paths for case in cases] == [(other,)]
    assert [(problem.reason, problem.paths, problem.series_uid) for problem in problems] == [
        (reason, tuple(paths), "1.2.3.4")
    ]
    assert named in problems[0].detail


def test_positions_rounded_to_a_tenth_are_even(write_series) -> None:
    assert only_case(write_series([(0, 0, round(0.625 * index, 1)) for index in range(20)])).frames == 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, Reason.MIXED_ORIENTATIONS),
        ({"PixelSpacing": [0.5, 0.7]}, Reason.MIXED_SIZES),
        ({"Rows": 6, "Columns": 4}, Reason.MIXED_SIZES),
    ],
)
def test_unequal_slices_are_an_error(write_series, write_dicom, changes: dict[str, Any], reason: Reason) -> None:
    paths = write_series([(0, 0, 0), (0, 0, 1)])
    odd = write_dicom("odd", SLICE, **attributes_of_slice((0, 0, 2), **changes))
    assert only_problem([*paths, odd]).reason is reason


def test_slices_in_one_place_or_without_one_are_stills(write_series, write_dicom) -> None:
    paths = write_series([(0, 0, 5), (0, 0, 5)])
    paths += [write_dicom(f"{index}", SLICE, Modality="CT") for index in range(2)]
    paths.append(write_dicom("lone", SLICE, **attributes_of_slice((0, 0, 0), SeriesInstanceUID="9")))
    cases, problems = find_dicom_cases(paths)
    assert not problems
    assert [case.kind for case in cases] == [CaseKind.STILL] * 5


@pytest.mark.parametrize("modality", ["US", "XC", "DX"])
def test_other_images_of_a_series_are_stills(write_series, modality: str) -> None:
    cases, _ = find_dicom_cases(write_series([(0, 0, 0), (0, 0, 1)], Modality=modality))
    assert [case.kind for case in cases] == [CaseKind.STILL] * 2


def test_without_a_series_uid_the_folder_is_the_series(write_dicom) -> None:
    paths = [
        write_dicom(f"{folder}/{z}", SLICE, **attributes_of_slice((0, 0, z), SeriesInstanceUID=None))
        for folder in ("a", "b")
        for z in range(3)
    ]
    cases, problems = find_dicom_cases(paths)
    assert not problems
    assert [case.paths for case in cases] == [tuple(paths[:3]), tuple(paths[3:])]


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(positions: list[tuple[float, ...]]) -> dict[str, Any]:
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.8])],
        PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-1, RescaleType="HU")],
    )
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=list(position))]) for position in positions]
    return {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1",
        "Modality": "MR",
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": frames,
    }


def test_an_enhanced_image_is_a_volume(write_dicom) -> None:
    path = write_dicom("a", np.stack([SLICE] * 3), **enhanced([(0, 0, 4), (0, 0, 0), (0, 0, 2)]))
    case = only_case([path])
    assert (case.kind, case.frames, case.frame_order, case.paths) == (CaseKind.SERIES, 3, (1, 2, 0), (path,))
    assert np.allclose(case.affine, [[-0.8, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])


def test_an_enhanced_image_over_time_is_refused_and_one_in_place_is_a_cine(write_dicom) -> None:
    over_time = write_dicom("a", np.stack([SLICE] * 3), **enhanced([(0, 0, 0), (0, 0, 0), (0, 0, 2)]))
    problem = only_problem([over_time])
    assert problem.reason is Reason.DUPLICATE_POSITIONS
    assert problem.detail == "frame 1 and frame 2 are both at (0, 0, 0) mm"
    in_place = write_dicom("b", np.stack([SLICE] * 3), **enhanced([(0, 0, 0)] * 3))
    assert only_case([in_place]).kind is CaseKind.CINE


def test_a_volume_is_held_against_the_limit(write_series, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_series([(0, 0, 0), (0, 0, 1)])
    monkeypatch.setattr(series, "MAX_VOLUME_VOXELS", 47)
    assert only_problem(paths).reason is Reason.TOO_LARGE


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "Rows", "PixelSpacing", "ImagePositionPatient"])
def test_a_header_that_cannot_be_understood_is_a_problem_or_a_still(write_series, keyword: str) -> None:
    (path,) = write_series([(0, 0, 0)])
    content = bytearray(path.read_bytes())
    element = struct.pack("<HH", Tag(keyword).group, Tag(keyword).element)
    at = content.index(element, 132) + 4
    content[at : at + 2] = b"XY"
    path.write_bytes(content)
    cases, problems = find_dicom_cases([path])
    assert len(cases) + len(problems) == 1


def test_a_value_of_a_wrong_length_is_an_unreadable_header(write_series) -> None:
    (path,) = write_series([(0, 0, 0)])
    content = bytearray(path.read_bytes())
    at = content.index(b"\x28\x00\x10\x00US\x02\x00", 132)
    content[at + 6] = 3
    path.write_bytes(content)
    assert only_problem([path]).reason is Reason.BAD_HEADER


def test_nothing_that_identifies_a_patient_is_kept(write_series, caplog: pytest.LogCaptureFixture) -> None:
    found = find_dicom_cases(write_series([(0, 0, 0), (0, 0, 1), (0, 0, 5)]))
    assert "SECRET" not in repr(found) + caplog.text


def test_the_real_files_give_these_cases(dicom_folder: Path) -> None:
    paths = [path for path in dicom_folder.rglob("*") if path.is_file() and path.suffix != ".csv"]
    random.Random(0).shuffle(paths)
    cases, problems = find_dicom_cases(paths)
    assert Counter(case.kind.value for case in cases) == {"DICOM still": 39, "DICOM cine": 7, "DICOM series": 3}
    counted = [path for found in (*cases, *problems) for path in found.paths]
    assert sorted(counted) == sorted(paths)
    assert Counter(problem.reason for problem in problems) == {
        Reason.DICOMDIR: 1,
        Reason.NO_PIXELS: 1,
        Reason.INCOMPLETE: 3,
        Reason.NOT_DICOM: 1,
        Reason.NOT_AN_IMAGE_OBJECT: 2,
    }


@pytest.mark.parametrize(
    ("folder", "slices", "step"),
    [
        ("ct_series_totalseg", 20, 2.0),
        ("mr_series_Study1_13_HCropVolume", 32, 1.0),
        ("mr_series_Study2_14_HCropVolume", 35, 1.0),
    ],
)
def test_real_series_whatever_the_order_and_the_names(
    dicom_folder: Path, tmp_path: Path, folder: str, slices: int, step: float
) -> None:
    files = sorted((dicom_folder / folder).iterdir())
    random.Random(0).shuffle(files)
    paths = [Path(shutil.copy(file, tmp_path / f"{index}")) for index, file in enumerate(files)]
    case = only_case(paths)
    heights = [float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]) for path in case.paths]
    assert case.frames == slices
    assert np.allclose(np.diff(heights), step)
    without = [path for path in paths if path != case.paths[slices // 2]]
    assert only_problem(without).reason is Reason.SLICE_GAP
    twice = shutil.copy(case.paths[3], tmp_path / "twice")
    assert only_problem([*paths, Path(twice)]).reason is Reason.DUPLICATE_POSITIONS
    changed = dcmread(case.paths[0])
    changed.Rows, changed.Columns = changed.Columns * 2, changed.Rows // 2
    changed.save_as(case.paths[0])
    assert only_problem(paths).reason is Reason.MIXED_SIZES


US = "1.2.840.10008.5.1.4.1.1.6.1"
IMAGE = np.zeros((60, 80), np.uint8)


def region(box: tuple[int, int, int, int] = (10, 20, 50, 70), **changes: Any) -> Dataset:
    top, left, bottom, right = box
    attributes = {
        "RegionSpatialFormat": 1,
        "RegionLocationMinX0": left,
        "RegionLocationMinY0": top,
        "RegionLocationMaxX1": right - 1,
        "RegionLocationMaxY1": bottom - 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": -0.03,
    }
    return item(**{**attributes, **changes})


CALIBRATED = PixelSize(0.3, 0.2)


@pytest.mark.parametrize(
    ("regions", "size", "tissue"),
    [
        ([region()], CALIBRATED, (10, 20, 50, 70)),
        ([region(PhysicalUnitsXDirection=0, PhysicalUnitsYDirection=0, PhysicalDeltaX=1.0)], None, (10, 20, 50, 70)),
        ([region(PhysicalUnitsXDirection=4)], None, (10, 20, 50, 70)),
        ([region(PhysicalDeltaY=0.0)], None, (10, 20, 50, 70)),
        # Doppler next to tissue does not matter.
        (
            [region(), region((50, 20, 60, 70), RegionSpatialFormat=3, PhysicalUnitsXDirection=4)],
            CALIBRATED,
            (10, 20, 50, 70),
        ),
        ([region(RegionSpatialFormat=2)], None, None),
        # Two images side by side, of one scale and of two.
        ([region((0, 0, 50, 40)), region((5, 40, 60, 80))], CALIBRATED, (0, 0, 60, 80)),
        ([region((0, 0, 50, 40)), region((5, 40, 60, 80), PhysicalDeltaX=0.04)], None, (0, 0, 60, 80)),
        # Its last pixel counted from 1, and an image that was made smaller after it was calibrated.
        ([region((0, 0, 61, 81))], CALIBRATED, (0, 0, 60, 80)),
        ([region((0, 0, 120, 160))], None, None),
        ([region((10, 20, 10, 20))], None, None),
        ([], None, None),
    ],
)
def test_ultrasound_regions(write_dicom, regions: list[Dataset], size: PixelSize | None, tissue: Any) -> None:
    path = write_dicom("a", IMAGE, Modality="US", SOPClassUID=US, SequenceOfUltrasoundRegions=regions)
    found = read_pixel_size(path)
    assert (found is None) == (size is None)
    if size is not None and found is not None:
        assert (found.row_mm, found.column_mm) == pytest.approx((size.row_mm, size.column_mm))
    assert find_tissue(read_ultrasound_regions(path)) == tissue


@pytest.mark.parametrize(
    ("attributes", "is_known"),
    [
        ({"Modality": "CT", "PixelSpacing": [0.5, 0.8]}, True),
        ({"Modality": "MR", "PixelSpacing": [0, 0.8]}, False),
        ({"Modality": "OT", "PixelSpacing": [0.5, 0.8]}, False),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.5, 0.8]}, False),
        ({"Modality": "DX", "PixelSpacing": [0.5, 0.8], "ImagerPixelSpacing": [0.5, 0.8]}, False),
        ({"Modality": "DX", "PixelSpacing": [0.5, 0.8], "ImagerPixelSpacing": [0.6, 0.9]}, True),
        ({"Modality": "MG", "PixelSpacing": [0.5, 0.8], "PixelSpacingCalibrationType": "GEOMETRY"}, True),
        ({"Modality": "CR", "PixelSpacing": [0.5, 0.8], "PixelSpacingCalibrationType": "FIDUCIAL"}, True),
    ],
)
def test_pixel_spacing_counts_where_it_is_calibrated(write_dicom, attributes: dict[str, Any], is_known: bool) -> None:
    size = read_pixel_size(write_dicom("a", IMAGE, **attributes))
    assert size == (PixelSize(0.5, 0.8) if is_known else None)


def test_pixel_spacing_of_an_enhanced_image(write_dicom) -> None:
    path = write_dicom("a", np.stack([SLICE] * 2), **enhanced([(0, 0, 0), (0, 0, 1)]))
    assert read_pixel_size(path) == PixelSize(0.5, 0.8)


@pytest.mark.parametrize(
    ("name", "millimetres", "tissue"),
    [
        ("philips_mono_jpegll", 0.25476696592378156, (38, 14, 759, 1011)),
        ("OBXXXX1A_rle", 0.2622878766196998, (60, 120, 519, 800)),
        # The first of its regions has unit 0, and is no tissue.
        ("fodicom_DIRW0007", 0.5247813350662958, (48, 27, 392, 549)),
        # Made smaller: its region reaches out of the image.
        ("examples_ybr_color", None, None),
        ("color-pl", None, None),
    ],
)
def test_scale_of_real_ultrasound(dicom_folder: Path, name: str, millimetres: float | None, tissue: Any) -> None:
    path = dicom_folder / "us" / f"{name}.dcm"
    size = read_pixel_size(path)
    assert (size and size.row_mm) == (millimetres and pytest.approx(millimetres))
    assert find_tissue(read_ultrasound_regions(path)) == tissue
