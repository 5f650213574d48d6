"""Effect of averaging a cine's probabilities over neighbouring frames: on flicker, and on Dice where truth is known.

Real cines have no labels. Synthetic ones do: an image with its label moves smoothly (shift, turn and scale as sines of
time), and every frame gets its own speckle and its own gain, which changes with depth. All frames go through the
bundle's own reading, network and postprocessing; masks have the size of the image. Of each cine and each width:

- ``flicker``: 1 - mean Dice of the masks of successive frames; two empty ones agree;
- ``area_change``: mean of the difference of two successive areas over their mean;
- ``switches``: how many times the label appears or disappears;
- ``dice``: mean over frames, of synthetic cines; ``empty``: frames without a pixel.

``truth`` are flicker and change of area of the label itself: motion that no method should remove. Intervals are
percentile bootstraps over cines, at 95 %; those of differences are paired.

Example::

    python benchmarks/bench_cine_stability.py bundles/breast_ultrasound_segmentation DATA \
        --datalist bundles/breast_ultrasound_segmentation/datalists/busi_split1.json --section validation \
        --cines CINE.dcm CINE.dcm --output benchmarks/results/cine_stability.json
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from bench_batch_inference import make_runner
from bench_training_step import describe_machine
from PIL import Image
from scipy import ndimage
from scipy.stats import bootstrap
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.datasets.datalist import load_datalist
from mobileutr_monai.inference.temporal import smooth_frames

RESAMPLES = 9999
# A cine's Dice that changes by no more is counted as unchanged.
DICE_CHANGE = 0.01
# Motions of synthetic cines: frames of a period; largest shift (share of the sides), turn (radians), change of size.
MOTIONS = {"slow": 160.0, "fast": 40.0}
SHIFT, TURN, SCALE = 0.03, 0.08, 0.05
Cine = Sequence[dict[str, Any]]


def make_cine(
    image: np.ndarray, label: np.ndarray, frames: int, period: float, speckle: float, gain: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields frames of a synthetic cine with their labels.

    Args:
        image: (rows, columns), grey.
        label: mask of the same size.
        period: of the motion, in frames; shift, turn and scale have their own, within a fifth of it.
        speckle: standard deviation of the factor of a pixel, correlated over its neighbours.
        gain: standard deviation of the factor of a frame, and of its change from the middle to the top and bottom.
    """
    rng = np.random.default_rng(seed)
    phases, speeds = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.8, 1.2, 4) * 2 * np.pi / period
    depth = np.linspace(-1, 1, len(image))[:, None]
    sides, middle = np.array(image.shape), (np.array(image.shape) - 1) / 2
    for frame in range(frames):
        down, right, turn, scale = np.sin(phases + speeds * frame) * (SHIFT, SHIFT, TURN, SCALE)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * (1 + scale)
        offset = middle - matrix @ middle + sides * (down, right)
        moved, moved_label = (
            ndimage.affine_transform(values.astype(np.float32), matrix, offset, order=1, mode="reflect")
            for values in (image, label)
        )
        grain = ndimage.gaussian_filter(rng.standard_normal(image.shape), 1)
        gains = 1 + gain * (rng.standard_normal() + depth * rng.standard_normal())
        noisy = moved * (1 + speckle * grain / grain.std()) * gains
        yield np.clip(np.round(noisy), 0, 255).astype(np.uint8), moved_label > 0.5


def measure_dice(mask: np.ndarray, other: np.ndarray) -> float:
    """Returns the Dice of two masks; 1 if both are empty."""
    total = int(mask.sum()) + int(other.sum())
    return 2 * int((mask & other).sum()) / total if total else 1.0


def measure_flicker(masks: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns how much the masks of successive frames differ."""
    areas = [int(mask.sum()) for mask in masks]
    changes = [2 * abs(a - b) / (a + b) if a + b else 0.0 for a, b in pairwise(areas)]
    return {
        "flicker": 1 - float(np.mean([measure_dice(a, b) for a, b in pairwise(masks)])),
        "area_change": float(np.mean(changes)),
        "switches": sum((a == 0) != (b == 0) for a, b in pairwise(areas)),
        "empty": areas.count(0),
    }


def measure_cine(
    segmenter: Any, results: Cine, sigmas: Sequence[float], truth: Sequence[np.ndarray] = ()
) -> dict[str, Any]:
    """Returns the measures of a cine for each width, and the areas of its masks."""
    greys = [np.asarray(result["image"])[0] for result in results]
    measures: dict[str, Any] = {
        "frames": len(results),
        "grey_change": float(np.mean([np.abs(a - b).mean() for a, b in pairwise(greys)])),
    }
    for sigma in sigmas:
        masks = [segmenter.make_label_map(result) == 1 for result in smooth_frames(results, sigma)]
        measures[f"{sigma:g}"] = measure_flicker(masks) | {"areas": [int(mask.sum()) for mask in masks]}
        if truth:
            measures[f"{sigma:g}"]["dice"] = float(
                np.mean([measure_dice(*pair) for pair in zip(masks, truth, strict=True)])
            )
    if truth:
        measures["truth"] = measure_flicker(truth)
    return measures


def infer(segmenter: Any, frames: Sequence[dict[str, Any]], batch_size: int = 8) -> Cine:
    """Returns the results of all frames."""
    return [result for i in range(0, len(frames), batch_size) for result in segmenter.infer(frames[i : i + batch_size])]


def measure_synthetic(
    segmenter: Any, item: dict[str, Any], options: argparse.Namespace, period: float, seed: int
) -> Any:
    """Returns the measures of the synthetic cine of a labelled image."""
    with Image.open(item["image"]) as picture, Image.open(item["label"][0]) as mask:
        image, label = np.asarray(picture.convert("L")), np.asarray(mask.convert("L")) > 0
    data: list[dict[str, Any]] = []
    truth: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        for frame, moved in make_cine(image, label, options.frames, period, options.speckle, options.gain, seed):
            path = Path(folder, f"{len(truth)}.png")
            Image.fromarray(frame).save(path)
            data.append(segmenter.reader.read([path]))
            truth.append(moved)
    return measure_cine(segmenter, infer(segmenter, data), options.sigmas, truth)


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Returns the mean and its interval."""
    summary: dict[str, Any] = {"mean": round(float(np.mean(values)), 4)}
    if np.ptp(values) > 0:
        rng = np.random.default_rng(0)
        found = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
        summary["interval"] = [round(float(found.low), 4), round(float(found.high), 4)]
    return summary


def summarise(cines: Sequence[dict[str, Any]], sigmas: Sequence[float]) -> dict[str, Any]:
    """Returns means over cines with intervals, and those of the differences to no smoothing."""
    summary: dict[str, Any] = {"grey_change": interval([cine["grey_change"] for cine in cines])}
    for width in [*(f"{sigma:g}" for sigma in sigmas), "truth"]:
        if width not in cines[0]:
            continue
        names = [name for name in cines[0][width] if name != "areas"]
        summary[width] = {name: interval([cine[width][name] for cine in cines]) for name in names}
        if width not in ("0", "truth"):
            less_off = {name: [cine[width][name] - cine["0"][name] for cine in cines] for name in names}
            summary[width] |= {f"{name}_less_off": interval(values) for name, values in less_off.items()}
            summary[width]["cines_with_dice_down"] = sum(value < -DICE_CHANGE for value in less_off["dice"])
            summary[width]["cines_with_dice_up"] = sum(value > DICE_CHANGE for value in less_off["dice"])
    return summary


def format_value(summary: dict[str, Any]) -> str:
    """Returns a mean and its interval as text."""
    low_high = summary.get("interval")
    return f"{summary['mean']:.3f}" + (f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else "")


def print_tables(result: dict[str, Any]) -> None:
    """Prints the tables for the documentation."""
    print("| cines | sigma | Dice | change of Dice | flicker | area change | switches a cine |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for motion, summary in result["synthetic"].items():
        for width, values in summary.items():
            if width == "grey_change":
                continue
            dice, change = (format_value(values[name]) if name in values else "" for name in ("dice", "dice_less_off"))
            rest = " | ".join(format_value(values[name]) for name in ("flicker", "area_change", "switches"))
            print(f"| {motion} | {width} | {dice} | {change} | {rest} |")
    print("\n| cine | frames | sigma | flicker | area change | switches |\n| --- | ---: | --- | ---: | ---: | ---: |")
    for name, cine in result["real"].items():
        for sigma in result["sigmas"]:
            values = cine[f"{sigma:g}"]
            rest = f"{values['flicker']:.3f} | {values['area_change']:.3f} | {values['switches']}"
            print(f"| {name} | {cine['frames']} | {sigma:g} | {rest} |")


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--section", default="validation", help="of the datalist; not one that scores are reported on")
    parser.add_argument("--cines", type=Path, nargs="*", default=[], help="real cines, DICOM")
    parser.add_argument("--images", type=int, help="use about so many images, spread over the list")
    parser.add_argument("--frames", type=int, default=16, help="of a synthetic cine")
    parser.add_argument("--speckle", type=float, default=0.03)
    parser.add_argument("--gain", type=float, default=0.03)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0, 0.5, 1, 1.5, 2])
    parser.add_argument("--output", type=Path, help="JSON to write")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    runner = make_runner(options.bundle, options.data, options.data, 8, 0)
    runner.load_network()
    segmenter = runner.segmenter
    items = load_datalist(options.data, options.datalist)[options.section]
    items = items[:: max(1, len(items) // (options.images or len(items)))]
    real = {
        path.name: measure_cine(segmenter, infer(segmenter, [*segmenter.reader.read_frames(path)]), options.sigmas)
        for path in tqdm(options.cines, desc="real")
    }
    synthetic = {}
    for motion, period in MOTIONS.items():
        cines = [
            measure_synthetic(segmenter, item, options, period, seed)
            for seed, item in enumerate(tqdm(items, desc=motion))
        ]
        synthetic[motion] = summarise(cines, options.sigmas)
    result = {
        "machine": describe_machine(),
        "python": platform.python_version(),
        "bundle": options.bundle.name,
        "weights_sha256": hash_file(runner.weights),
        "section": options.section,
        "images": len(items),
        "sigmas": options.sigmas,
        "settings": {name: getattr(options, name) for name in ("frames", "speckle", "gain")}
        | {"periods": MOTIONS, "shift": SHIFT, "turn": TURN, "scale": SCALE},
        "real": real,
        "synthetic": synthetic,
    }
    print_tables(result)
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
