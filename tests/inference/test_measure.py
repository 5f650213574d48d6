"""What is measured of a label, compared with the plainest way to measure it."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from mobileutr_monai.inference.measure import measure_labels


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
    moved.percent = found.percent
    assert moved == found


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
