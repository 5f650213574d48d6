"""Labels of volumes, as training reads them: nothing is taken on trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose

HIPPOCAMPUS = Path(__file__).resolve().parents[2] / "bundles" / "hippocampus_mri_segmentation"
IMAGE = sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0]
LABEL = HIPPOCAMPUS / "sample_data" / "labels" / IMAGE.name

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def load() -> Compose:
    """What training does with an image and its label, without augmentation."""
    parser = ConfigParser()
    parser.read_config(str(HIPPOCAMPUS / "configs" / "train.json"))
    parser["bundle_root"] = HIPPOCAMPUS
    return Compose(parser.get_parsed_content("image_transforms") + parser.get_parsed_content("label_transforms"))


def save(path: Path, change: Change, dtype: Any = np.float32, slope: float | None = None) -> Path:
    source = nib.load(LABEL)
    values, affine = change(np.asarray(source.dataobj).astype(np.float64), np.array(source.affine))
    image = nib.nifti1.Nifti1Image(values.astype(dtype), affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


def with_value(value: float) -> Change:
    def change(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values[0, 0, 0] = value
        return values, affine

    return change


def with_flipped_axis(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    affine[:3, 3] += affine[:3, 0] * (values.shape[0] - 1)
    affine[:3, 0] *= -1
    return values[::-1], affine


# How a label is written, and it is the same label all the same.
SAME: dict[str, tuple[Change, Any, float | None]] = {
    "as it is": (lambda v, a: (v, a), np.uint8, None),
    "floats": (lambda v, a: (v, a), np.float32, None),
    "a slope": (lambda v, a: (v, a), np.int16, 0.9999999),
    "a little under": (lambda v, a: (v * 0.9999999, a), np.float64, None),
    "an axis flipped": (with_flipped_axis, np.uint8, None),
    "axes swapped": (lambda v, a: (v.transpose(1, 0, 2), a[:, [1, 0, 2, 3]]), np.uint8, None),
    "a rounded affine": (lambda v, a: (v, a + 1e-4), np.uint8, None),
}


@pytest.mark.parametrize(("change", "dtype", "slope"), SAME.values(), ids=SAME)
def test_a_label_is_the_same_however_it_is_written(
    change: Change, dtype: Any, slope: float | None, load: Compose, tmp_path: Path
) -> None:
    expected = load({"image": str(IMAGE), "label": str(LABEL)})["label"]
    label = load({"image": str(IMAGE), "label": str(save(tmp_path / "l.nii.gz", change, dtype, slope))})["label"]
    assert np.array_equal(np.asarray(label), np.asarray(expected))


# What is wrong with a label, and the words for it.
WRONG: dict[str, tuple[Change, str]] = {
    "geometry lost": (lambda v, a: (v, np.eye(4) * [[-1], [-1], [1], [1]]), "lies elsewhere than the image, by up to"),
    "identity affine and moved image": (lambda v, a: (v, np.eye(4)), "lies elsewhere than the image, by up to"),
    "mirrored": (lambda v, a: (v, a * [[-1], [1], [1], [1]]), "lies elsewhere than the image, by up to"),
    "other spacing": (lambda v, a: (v, a * [[1], [1], [2], [1]]), "lies elsewhere than the image, by up to"),
    "cropped": (lambda v, a: (v[:-1], a), "the image is"),
    "other size": (lambda v, a: (np.zeros((9, 9, 9)), a), "is 9 x 9 x 9, the image is"),
    "too many labels": (with_value(3), "has the value 3, but the network has the labels 0 to 2; give it more output"),
    "CT values": (with_value(-1000), "has the value -1000; labels are 0 for background"),
    "between": (with_value(0.5), "has the value 0.5, which is no whole number; save it as a label map"),
    "NaN": (with_value(float("nan")), "has the value nan, which is no whole number"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_label_is_said_with_its_file(
    change: Change, words: str, load: Compose, tmp_path: Path
) -> None:
    label = save(tmp_path / "wrong.nii.gz", change)
    with pytest.raises(RuntimeError) as caught:
        load({"image": str(IMAGE), "label": str(label)})
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert str(error).startswith(f"{label}: ") and words in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"not a label", b"\x1f\x8b"])
def test_a_file_that_is_no_label_is_named(content: bytes, load: Compose, tmp_path: Path) -> None:
    (tmp_path / "wrong.nii.gz").write_bytes(content)
    with pytest.raises(RuntimeError) as caught:
        load({"image": str(IMAGE), "label": str(tmp_path / "wrong.nii.gz")})
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert str(error).startswith(str(tmp_path / "wrong.nii.gz"))
