"""Ultrasound that states its regions of tissue: how much of a mask is outside of them, and what is said of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from mobileutr_monai.bundle.running import run_bundle
from mobileutr_monai.readers.dicom.calibration import mask_outside_tissue
from tests.dicom_samples import make_dataset

ROWS, COLUMNS = 60, 80
WHOLE, LEFT, RIGHT, BEYOND = (0, 0, 59, 79), (0, 0, 59, 39), (0, 40, 59, 79), (31, 84, 414, 595)
TISSUE, DOPPLER = 1, 3
FLAG = "outside of the stated regions"


def make_region(place: tuple[int, int, int, int], kind: int = TISSUE) -> Dataset:
    region = Dataset()
    region.RegionSpatialFormat = kind
    region.RegionLocationMinY0, region.RegionLocationMinX0, region.RegionLocationMaxY1, region.RegionLocationMaxX1 = (
        place
    )
    return region


def write(path: Path, regions: list[Dataset], frames: int = 1) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (ROWS, COLUMNS), np.uint8)
    dataset = make_dataset(UltrasoundImageStorage if frames == 1 else UltrasoundMultiFrameImageStorage, "US", pixels)
    if frames > 1:
        dataset.NumberOfFrames, dataset.PixelData = frames, pixels.tobytes() * frames
    if regions:
        dataset.SequenceOfUltrasoundRegions = regions
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def rows(breast, tmp_path_factory) -> dict[str, dict[str, str]]:
    """A run whose masks are all of each image."""
    source, output = (tmp_path_factory.mktemp(name) for name in ("in", "out"))
    for kind, frames in (("still", 1), ("cine", 3)):
        write(source / f"{kind}_whole.dcm", [make_region(WHOLE)], frames)
        write(source / f"{kind}_left.dcm", [make_region(LEFT)], frames)
        write(source / f"{kind}_panels.dcm", [make_region(LEFT), make_region(RIGHT)], frames)
        write(source / f"{kind}_beyond.dcm", [make_region(BEYOND)], frames)
        write(source / f"{kind}_doppler.dcm", [make_region(LEFT, DOPPLER)], frames)
        write(source / f"{kind}_none.dcm", [], frames)
    Image.linear_gradient("L").resize((COLUMNS, ROWS)).save(source / "picture.png")
    overrides = {"image_size": [32, 32], "threshold": 1e-6, "min_peak": 0, "workers": 0, "output_format": "plain"}
    assert run_bundle(breast, source, output, overrides) == 0
    with (output / "report.csv").open(newline="") as file:
        return {row["case"].removesuffix(".dcm"): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", ["still", "cine"])
class TestOfStillsAndCines:
    @pytest.mark.parametrize(("name", "percent"), [("whole", 0.0), ("left", 50.0), ("panels", 0.0)])
    def test_the_share_outside_is_told_and_flagged(self, rows, kind, name, percent):
        row = rows[f"{kind}_{name}"]
        assert int(row["pixels"]) == ROWS * COLUMNS * (3 if kind == "cine" else 1), "nothing is cut off"
        assert float(row["outside_percent"]) == percent
        assert (FLAG in row["flag"]) is (percent > 0)
        assert row["detail"] == ""

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("beyond", "the region of tissue that the file defines does not lie within the image"),
            ("doppler", "none of the regions that the file defines is of tissue"),
            ("none", "the file defines no tissue regions"),
        ],
    )
    def test_without_tissue_nothing_is_outside_and_the_reason_is_true(self, rows, kind, name, why):
        row = rows[f"{kind}_{name}"]
        assert row["outside_percent"] == ""
        assert FLAG not in row["flag"]
        assert row["detail"].startswith(f"no overlay: {why}, so a burned-in name cannot be ruled out")


def test_a_picture_states_nothing(rows, tmp_path):
    assert rows["picture.png"]["outside_percent"] == ""
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert mask_outside_tissue(tmp_path / "a.png") is None


def test_what_is_outside_is_what_no_region_of_tissue_has(tmp_path):
    write(
        tmp_path / "a.dcm", [make_region((10, 5, 19, 14)), make_region((30, 40, 39, 59)), make_region(WHOLE, DOPPLER)]
    )
    inside = np.zeros((ROWS, COLUMNS), bool)
    inside[10:20, 5:15] = inside[30:40, 40:60] = True
    assert np.array_equal(mask_outside_tissue(tmp_path / "a.dcm"), ~inside)
