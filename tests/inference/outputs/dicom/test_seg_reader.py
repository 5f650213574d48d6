"""Segmentations of other software: every mask on the frame that it names, or an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from test_seg import ALGORITHM, LABELS, label_any, make_enhanced

from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel, write_segmentation
from mobileutr_monai.inference.outputs.dicom.seg_reader import read_segmentation
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.series import DicomCase

pytest.importorskip("highdicom")


@pytest.fixture
def case(tmp_path: Path) -> DicomCase:
    return make_enhanced(tmp_path / "enhanced", [3, 0, 4, 1, 2])


@pytest.fixture
def segmentation(case: DicomCase, tmp_path: Path) -> Path:
    write_segmentation(case, label_any(case), LABELS, ALGORITHM, tmp_path / "seg.dcm")
    return tmp_path / "seg.dcm"


def first_source(dataset: Dataset) -> Dataset:
    source: Dataset = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    return source


def name_another_image(dataset: Dataset) -> None:
    first_source(dataset).ReferencedSOPInstanceUID = "1.2.3"


def name_no_frame(dataset: Dataset) -> None:
    del first_source(dataset).ReferencedFrameNumber


def name_two_images(dataset: Dataset) -> None:
    sources = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    sources.append(sources[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (name_another_image, "another image"),
        (name_no_frame, "which frame"),
        (name_two_images, "2 source images"),
    ],
)
def test_frames_whose_place_is_not_certain_are_errors(
    case: DicomCase, segmentation: Path, change: Callable[[Dataset], None], message: str
) -> None:
    dataset = pydicom.dcmread(segmentation)
    change(dataset)
    dataset.save_as(segmentation)

    with pytest.raises(DicomError, match=message):
        read_segmentation(case, segmentation, LABELS)


def test_segments_that_are_no_label_erase_none(case: DicomCase, segmentation: Path) -> None:
    dataset = pydicom.dcmread(segmentation)
    last = dataset.PerFrameFunctionalGroupsSequence[-1]
    assert last.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2
    pixels = dataset.pixel_array.copy()
    pixels[-1] = 1  # covers "front" in its slice
    dataset.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    dataset.PixelData += bytes(len(dataset.PixelData) % 2)
    dataset.save_as(segmentation)

    found = read_segmentation(case, segmentation, [SegmentLabel(1, "front")])

    np.testing.assert_array_equal(found, label_any(case) == 1)
