"""Regions as polygons along the edges of pixels: filled, they are the regions; OGC calls them valid."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from mobileutr_monai.inference.outputs.polygons import Ring, trace_outlines, trace_polygons


def fill(rings: list[Ring], shape: tuple[int, ...]) -> np.ndarray:
    """Returns which centres of pixels are within an odd number of rings."""
    crossings = np.zeros(shape, int)
    for ring in rings:
        for (x, y), (other_x, other_y) in zip(ring, [*ring[1:], ring[0]], strict=True):
            assert (x == other_x) != (y == other_y), "a side that is neither upright nor level, or has no length"
            if x == other_x:
                crossings[min(y, other_y) : max(y, other_y), x:] += 1
    return crossings % 2 == 1


def make_regions() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0)
    regions = {f"noise {share}": noise.random((40, 50)) < share for share in (0.1, 0.5, 0.9)}
    smooth = ndimage.gaussian_filter(noise.normal(size=(64, 48)), 2)
    regions |= {"smooth": smooth > np.quantile(smooth, 0.6), "nothing": np.zeros((4, 4), bool)}
    regions |= {"everything": np.ones((3, 5), bool), "pixel": np.eye(1, dtype=bool), "corners": np.eye(3, dtype=bool)}
    # A bay and two holes that are joined at corners only.
    drawn = ["#####", "#.#.#", "#.##.", "##.##", "#.###", "#####"]
    regions["touching"] = np.array([[pixel == "#" for pixel in line] for line in drawn])
    return regions


REGIONS = make_regions()


@pytest.mark.parametrize("name", REGIONS)
def test_filling_polygons_and_outlines_gives_the_region(name: str) -> None:
    region = REGIONS[name]
    polygons, outlines = trace_polygons(region), trace_outlines(region)
    assert len(polygons) == ndimage.label(region)[1]
    assert np.array_equal(fill([ring for rings in polygons for ring in rings], region.shape), region)
    assert np.array_equal(fill(outlines, region.shape), region)
    assert all(len(trace_polygons(fill([ring], region.shape))[0]) == 1 for ring in outlines), "a piece with a hole"


def test_every_region_of_four_by_four_pixels_is_exact() -> None:
    for bits in product((False, True), repeat=12):
        region = np.pad(np.reshape(bits, (3, 4)), 1)
        assert np.array_equal(fill([ring for rings in trace_polygons(region) for ring in rings], region.shape), region)
        assert np.array_equal(fill(trace_outlines(region), region.shape), region)


@pytest.mark.parametrize("name", REGIONS)
def test_polygons_are_valid_and_as_large_as_their_component(name: str) -> None:
    shapely = pytest.importorskip("shapely")
    region = REGIONS[name]
    pieces, _ = ndimage.label(region)
    for number, (outer, *holes) in enumerate(trace_polygons(region), start=1):
        polygon = shapely.Polygon(outer, holes)
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.exterior.is_ccw
        assert polygon.area == (pieces == number).sum()
    for outline in trace_outlines(region):
        assert shapely.Polygon(outline).is_valid
