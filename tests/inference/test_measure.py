"""What is measured of a label, compared with the plainest way to measure it."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import pdist

from mobileutr_monai.inference.measure import measure_components, measure_labels
from scripts.compare_measurements import compare_image, compare_set, compare_volume

ROOT = Path(__file__).parents[2]


def label_map(shape, seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return (noise > np.quantile(noise, 0.9)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 30), (1, 25), (12, 14, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_a_label_is_measured_as_all_its_pixels_say(shape, seed):
    label, spacing = label_map(shape, seed), (0.3, 1.7, 0.9)[: len(shape)]
    (found,) = measure_labels(label, {1: "lesion"}, spacing)

    points = np.argwhere(label) * np.asarray(spacing)
    assert found.pixels == len(points)
    assert found.diameter_mm == pytest.approx(pdist(points).max(), abs=0.0051)
    pieces, count = ndimage.label(label)
    assert found.components == count
    assert list(found.component_pixels) == sorted(np.bincount(pieces.ravel())[1:], reverse=True)
    assert (found.diameter_px is None) == (len(shape) == 3)


def disc(axis):
    label = np.zeros((24, 24, 24), np.uint8)
    rows, columns = np.ogrid[:24, :24]
    label[(slice(None),) * axis + (7,)] = (rows - 11) ** 2 + 2 * (columns - 12) ** 2 + rows * columns / 4 < 150
    return label


def oblique():
    label = np.zeros((24, 24, 24), np.uint8)
    x, y = np.indices((24, 24))
    inside = ((x - 11) ** 2 + (y - 10) ** 2 < 90) & (x + y < 24)
    label[x[inside], y[inside], (x + y)[inside]] = 1
    return label


def points_at(*places):
    label = np.zeros((9, 9, 9), np.uint8)
    label[tuple(np.array(places).T)] = 1
    return label


FLAT = {
    **{f"disc across axis {axis}": disc(axis) for axis in range(3)},
    "oblique plane": oblique(),
    "line": points_at((1, 4, 4), (2, 4, 4), (6, 4, 4)),
    "oblique line": points_at((1, 1, 1), (3, 3, 3), (8, 8, 8)),
    "two voxels": points_at((0, 8, 3), (8, 0, 2)),
    "one voxel": points_at((4, 4, 4)),
}


@pytest.mark.parametrize("label", FLAT.values(), ids=FLAT)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.7, 5.0)], ids=str)
def test_the_diameter_of_what_is_flat_is_that_of_all_its_voxels(label, spacing):
    (found,) = measure_labels(label, {1: "lesion"}, spacing)
    points = np.argwhere(label) * spacing
    assert found.diameter_mm == pytest.approx(max(pdist(points), default=0), abs=0.0051)


@pytest.mark.parametrize("before, behind", [((0, 0), (7, 3)), ((5, 9), (0, 0)), ((2, 30), (11, 4))])
def test_where_a_label_lies_changes_nothing_but_its_share(before, behind):
    label = label_map((40, 30), 0)
    wider = np.pad(label, list(zip(before, behind, strict=True)))
    (found,), (moved,) = (measure_labels(array, {1: "lesion"}, (1.0, 1.0)) for array in (label, wider))
    assert (moved.centroid_y_px, moved.centroid_x_px) == pytest.approx(
        (found.centroid_y_px + before[0], found.centroid_x_px + before[1]), abs=0.011
    )
    assert [tuple(np.subtract(end, before)) for end in moved.ends] == list(found.ends)
    place = {"percent": 0, "centroid_x_px": 0, "centroid_y_px": 0, "ends": ()}
    assert replace(moved, **place) == replace(found, **place)


def test_what_is_outside_of_stated_tissue_has_pixels_but_no_millimetres():
    label, outside = np.zeros((10, 10), np.uint8), np.zeros((10, 10), bool)
    label[2:4, 1:9], outside[:, 5:] = 1, True
    (found,) = measure_labels(label, {1: "lesion"}, (0.5, 0.5), outside)
    (inside,) = measure_labels(label * ~outside, {1: "lesion"}, (0.5, 0.5))
    assert (found.pixels, found.outside_percent) == (16, 50.0)
    assert (found.area_mm2, found.diameter_mm) == (inside.area_mm2, inside.diameter_mm) == (2.0, 1.58)
    (found,) = measure_labels(label, {1: "lesion"}, (0.5, 0.5), np.ones((10, 10), bool))
    assert (found.pixels, found.area_mm2, found.diameter_mm) == (16, 0.0, 0.0)


def test_a_label_that_is_nowhere_has_no_size():
    (found,) = measure_labels(np.zeros((5, 5), np.uint8), {1: "lesion"}, (1.0, 1.0))
    assert (found.pixels, found.diameter_px, found.diameter_mm, found.components) == (0, 0.0, 0.0, 0)


def ellipse(angle, pixel):
    """An ellipse of 60 by 30 mm on pixels of any shape."""
    rows, columns = np.indices((round(80 / pixel[0]), round(80 / pixel[1])))
    y, x = rows * pixel[0] - 40, columns * pixel[1] - 40
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return ((along / 30) ** 2 + (across / 15) ** 2 <= 1).astype(np.uint8)


@pytest.mark.parametrize("pixel", [(0.5, 0.5), (0.3, 0.8)], ids=str)
@pytest.mark.parametrize("angle", [0, 0.4, 1.1, np.pi / 2])
def test_an_ellipse_has_the_lengths_of_its_formula(angle, pixel):
    (found,) = measure_labels(ellipse(angle, pixel), {1: "lesion"}, pixel)
    assert found.diameter_mm == pytest.approx(60, abs=2 * max(pixel))
    assert found.short_diameter_mm == pytest.approx(30, abs=2 * max(pixel))
    # Ramanujan's formula; four directions of lines are within 3 % for square pixels, and less so for long ones.
    assert found.circumference_mm == pytest.approx(145.33, rel=0.03 if pixel[0] == pixel[1] else 0.06)
    high = 2 * np.hypot(30 * np.sin(angle), 15 * np.cos(angle))
    wide = 2 * np.hypot(30 * np.cos(angle), 15 * np.sin(angle))
    assert found.height_width_ratio == pytest.approx(high / wide, rel=0.06)


@pytest.mark.parametrize("axis", range(3))
def test_a_volume_of_one_slice_has_the_diameters_of_the_slice(axis):
    (found,) = measure_labels(disc(axis), {1: "lesion"}, (0.4, 0.7, 5.0))
    if axis == 2:
        (image,) = measure_labels(disc(2)[..., 7], {1: "lesion"}, (0.4, 0.7))
        assert found.slice_diameter_mm == found.diameter_mm == image.diameter_mm
        assert found.slice_short_diameter_mm == image.short_diameter_mm
        assert found.ends == tuple((*end, 7) for end in image.ends)
    else:  # a line in every slice
        assert 0 < found.slice_diameter_mm < found.diameter_mm
        assert found.slice_short_diameter_mm == 0


@pytest.mark.parametrize("rows, columns, ratio", [((4, 5), (4, 5), 1), ((4, 5), (2, 9), 1 / 7), ((2, 9), (4, 5), 7)])
def test_a_line_and_a_pixel_have_no_short_diameter(rows, columns, ratio):
    label = np.zeros((12, 12), np.uint8)
    label[slice(*rows), slice(*columns)] = 1
    (found,) = measure_labels(label, {1: "lesion"}, (0.5, 0.5))
    assert found.diameter_mm == 0.5 * (label.sum() - 1)
    assert (found.short_diameter_px, found.short_diameter_mm) == (0, 0)
    assert found.height_width_ratio == pytest.approx(ratio, abs=0.001)


def test_a_centroid_is_in_the_patient_coordinates_of_dicom():
    affine = np.array([[0.0, -2, 0, 10], [3, 0, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]])
    (found,) = measure_labels(points_at((1, 2, 3), (3, 2, 3)), {1: "lesion"}, affine[:3, :3], affine=affine)
    assert (found.centroid_x_px, found.centroid_y_px, found.centroid_z_px) == (2, 2, 3)
    # RAS is (6, -14, 45).
    assert (found.centroid_left_mm, found.centroid_posterior_mm, found.centroid_superior_mm) == (-6, 14, 45)


def test_components_are_measured_one_by_one_the_largest_first():
    label = np.zeros((20, 20), np.uint8)
    label[1:3, 1:4], label[5:10, 5:10], label[15, 15] = 1, 1, 1
    ((first, second, third),) = measure_components(label, {1: "lesion"}, (0.5, 0.5))
    assert [piece.pixels for piece in (first, second, third)] == [25, 6, 1]
    assert [piece.component for piece in (first, second, third)] == [1, 2, 3]
    assert (second.centroid_x_px, second.centroid_y_px, second.area_mm2) == (2, 1.5, 1.5)
    assert measure_components(label, {2: "none"}) == [[]]


def test_measurements_of_real_masks_are_those_of_scikit_image_and_of_a_search():
    pytest.importorskip("skimage")
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data is not there")
    for name in ("busi", "msd_hippocampus"):
        for mask, measurement, ours, other in compare_set(folder / name, 3):
            assert ours == pytest.approx(other, abs=0.0051), (mask, measurement)


def test_measurements_of_the_shipped_masks_are_those_of_scikit_image_and_of_a_search():
    pytest.importorskip("skimage")
    compared = 0
    for path in sorted(ROOT.glob("bundles/*/sample_data/masks/0/*.png")):
        label = (np.asarray(Image.open(path).convert("L")) > 127).astype(np.uint8)
        for measurement, ours, other in compare_image(label) if label.any() else ():
            assert ours == pytest.approx(other, abs=0.0051), (path, measurement)
        compared += bool(label.any())
    for path in sorted(ROOT.glob("bundles/*/sample_data/labels/*.nii.gz")):
        image = nib.load(path)
        for index in (1, 2):
            label = (np.asarray(image.dataobj) == index).astype(np.uint8)
            for measurement, ours, other in compare_volume(label, image.affine):
                assert ours == pytest.approx(other, abs=0.0051), (path, index, measurement)
            compared += 1
    assert compared >= 20


def test_the_committed_comparison_is_of_two_hundred_masks_that_agree():
    content = json.loads((ROOT / "benchmarks/results/measurements.json").read_text())
    assert content["masks"] == 200
    assert max(item["largest_difference"] for item in content["measurements"].values()) <= 0.0051
