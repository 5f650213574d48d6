"""Compares the measurements of labels with scikit-image and with brute-force searches, on real masks.

``python scripts/compare_measurements.py DATA --output benchmarks/results/measurements.json``

DATA has folders with ``masks/0/*.png`` or ``labelsTr/*.nii.gz``. scikit-image's ``regionprops`` measures area,
centroid, height, width and circumference. Both diameters are searched among all pairs of pixels, for large labels among
those of the border.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.inference.measure import measure_labels

SETS = {"busi": 60, "busbra": 40, "kvasir_seg": 30, "isic2018_task1": 30, "msd_hippocampus": 40}
"""Folder of the data -> how many of its masks, evenly spread over their names."""

MOST_SEARCHED, BLOCK = 5000, 500
"""Pixels of a label beyond which those of its border are searched, and how many are compared with all at a time."""

PIXEL_MM = (0.31, 0.47)
"""Height and width of a pixel: not square, so that no mistake in either goes unseen."""


def search_diameters(points: np.ndarray, pixel: Sequence[float]) -> tuple[float, float]:
    """Returns the longest and the short diameter of places in a plane, from all pairs of them."""
    longest, first, second = 0.0, 0, 0
    for start in range(0, len(points), BLOCK):
        distances = cdist(points[start : start + BLOCK], points)
        place, other = np.unravel_index(distances.argmax(), distances.shape)
        if distances.max() > longest + 1e-9:
            longest, first, second = float(distances.max()), start + int(place), int(other)
    if not longest:
        return 0.0, 0.0
    direction = (points[second] - points[first]) / longest
    reach = np.abs(direction * pixel).sum() / 2 + 1e-9
    along, across = points @ direction, points @ (-direction[1], direction[0])
    short = 0.0
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        crossed = np.abs(along[block, None] - along) <= reach
        short = max(short, float(np.abs(across[block, None] - across)[crossed].max()))
    return longest, short


def find_searched(label: np.ndarray) -> np.ndarray:
    """Returns the pixels to search: all, of a large label those of its border."""
    if label.sum() > MOST_SEARCHED:
        label = label.astype(bool) & ~ndimage.binary_erosion(label, np.ones((3, 3)))
    return np.argwhere(label)


def search_longest(points: np.ndarray) -> float:
    """Returns the largest distance of two places, from all pairs of them."""
    return max(float(cdist(points[start : start + BLOCK], points).max()) for start in range(0, len(points), BLOCK))


def compare_image(label: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """Yields name, our value and the other's of each measurement of an image's label."""
    from skimage.measure import regionprops

    (found,) = measure_labels(label, {1: "label"}, PIXEL_MM)
    (pixels,), (mm,) = regionprops(label), regionprops(label, spacing=PIXEL_MM)
    yield "pixels", found.pixels, pixels.area
    yield "area_mm2", found.area_mm2 or 0.0, mm.area
    yield "centroid_y_px", found.centroid_y_px or 0.0, pixels.centroid[0]
    yield "centroid_x_px", found.centroid_x_px or 0.0, pixels.centroid[1]
    yield "circumference_px", found.circumference_px or 0.0, pixels.perimeter_crofton
    top, left, bottom, right = pixels.bbox
    ratio = (bottom - top) * PIXEL_MM[0] / ((right - left) * PIXEL_MM[1])
    yield "height_width_ratio", found.height_width_ratio or 0.0, ratio
    points = find_searched(label)
    for unit, pixel in (("px", (1.0, 1.0)), ("mm", PIXEL_MM)):
        longest, short = search_diameters(points * pixel, pixel)
        yield f"diameter_{unit}", getattr(found, f"diameter_{unit}"), longest
        yield f"short_diameter_{unit}", getattr(found, f"short_diameter_{unit}"), short


def compare_volume(label: np.ndarray, affine: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """Yields name, our value and the other's of each measurement of a volume's label, voxels of which are no cubes."""
    from skimage.measure import regionprops

    spacing = (0.7, 0.9, 2.5)
    (found,) = measure_labels(label, {1: "label"}, spacing, affine=affine)
    (region,) = regionprops(label, spacing=tuple(spacing))
    yield "volume_ml", found.volume_ml or 0.0, region.area / 1000
    for name, value in zip("xyz", regionprops(label)[0].centroid, strict=True):
        yield f"centroid_{name}_px", getattr(found, f"centroid_{name}_px"), value
    place = nib.affines.apply_affine(affine, regionprops(label)[0].centroid) * (-1, -1, 1)
    for name, value in zip(("left", "posterior", "superior"), place, strict=True):
        yield f"centroid_{name}_mm", getattr(found, f"centroid_{name}_mm"), value
    points = np.argwhere(label) * spacing
    yield "diameter_mm", found.diameter_mm or 0.0, search_longest(points)
    slices = [search_diameters(np.argwhere(plane) * spacing[:2], spacing[:2]) for plane in np.moveaxis(label, 2, 0)]
    longest = max(pair[0] for pair in slices)
    yield "slice_diameter_mm", found.slice_diameter_mm or 0.0, longest
    # Slices may be equally long, which is not a matter of measuring.
    shorts = [pair[1] for pair in slices if np.isclose(pair[0], longest)]
    ours = found.slice_short_diameter_mm or 0.0
    yield "slice_short_diameter_mm", ours, min(shorts, key=lambda value: abs(value - ours))


def compare_set(folder: Path, number: int) -> Iterator[tuple[str, str, float, float]]:
    """Yields mask, name, our value and the other's, for a number of masks of a data set."""
    volumes = sorted((folder / "labelsTr").glob("[!.]*.nii.gz"))
    images = sorted((folder / "masks" / "0").glob("*.png"))
    paths = volumes or images
    for index in np.unique(np.linspace(0, len(paths) - 1, number).astype(int)).tolist():
        path = paths[index]
        if volumes:
            image = nib.nifti1.Nifti1Image.from_filename(path)
            values = compare_volume((np.asarray(image.dataobj) == 1).astype(np.uint8), image.affine)
        else:
            label = (np.asarray(Image.open(path).convert("L")) > 127).astype(np.uint8)
            values = compare_image(label) if label.any() else iter(())
        for name, ours, other in values:
            yield f"{folder.name}/{path.name}", name, ours, other


def summarise(rows: Sequence[tuple[str, str, float, float]]) -> dict[str, dict[str, float]]:
    """Returns of each measurement how many were compared, and the largest and median difference."""
    result: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row[1] for row in rows):
        of_name = [row for row in rows if row[1] == name]
        result[name] = {
            "masks": len(of_name),
            "largest_difference": round(max(abs(ours - other) for *_, ours, other in of_name), 4),
            "median_difference": round(float(np.median([abs(ours - other) for *_, ours, other in of_name])), 4),
            "mean_value": round(float(np.mean([other for *_, other in of_name])), 3),
        }
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares, and writes the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON to write")
    options = parser.parse_args(arguments)
    rows = list(chain.from_iterable(compare_set(options.data / name, number) for name, number in SETS.items()))
    content = {
        "masks": len({row[0] for row in rows}),
        "sets": SETS,
        "pixel_mm": PIXEL_MM,
        "versions": {name: version(name) for name in ("scikit-image", "scipy", "numpy")},
        "measurements": summarise(rows),
    }
    write_text(options.output, json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
