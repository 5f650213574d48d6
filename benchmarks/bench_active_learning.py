"""Does it pay to annotate the images first that the model is least sure of? From few annotated images to more.

Each seed draws images to begin with, and images of other patients that measure. Then both strategies of the server take
turns: train from the bundle's weights on what is annotated, measure, annotate the next images (their true masks stand
for the annotator's). ``random`` takes any, ``uncertainty`` the lowest confidence, one of a patient and one of images
that are nearly the same (``mobileutr_monai.monai_label.choosing``). A fifth of the annotated images chooses the epoch.
``cases.csv``, where there is one, says which images are of one patient (columns ``image`` and ``group``).

Example::

    python benchmarks/bench_active_learning.py bundles/breast_ultrasound_segmentation DATA/busbra \
        --output benchmarks/results/active_learning.json
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import torch
from measuring import describe_machine, write_json
from monai.bundle import ConfigParser
from PIL import Image

from mobileutr_monai.datasets.datalist import pair_cases
from mobileutr_monai.datasets.duplicates import group_pairs, make_thumbnail, pair_thumbnails
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.monai_label.choosing import choose_image, score_image
from mobileutr_monai.networks import load_weights

STRATEGIES = ("random", "uncertainty")
VAL_SPLIT, LEARNING_RATE, BATCH_SIZE = 0.2, 0.0005, 4  # the server's defaults


def read_patients(dataset_dir: Path, names: Sequence[str]) -> dict[str, str]:
    """Returns name -> patient; every image has one of its own where no table says otherwise."""
    patients = {name: name for name in names}
    if (table := dataset_dir / "cases.csv").is_file():
        with table.open(newline="") as file:
            patients |= {Path(row["image"]).stem: row["group"] for row in csv.DictReader(file)}
    return patients


def find_groups(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns name -> first name of its near-duplicates."""
    thumbnails = {}
    for name, case in cases.items():
        with Image.open(case["image"]) as image:
            thumbnails[name] = make_thumbnail(image)
    groups = group_pairs(thumbnails, pair_thumbnails(thumbnails))
    return {name: group[0] for group in groups for name in group}


def make_segmenter(bundle: Path, weights: Path) -> Segmenter:
    """Returns a bundle's segmenter with these weights."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    segmenter: Segmenter = parser.get_parsed_content("segmenter")
    load_weights(segmenter.network, weights)
    segmenter.network.eval()
    return segmenter


def train(bundle: Path, cases: Sequence[Mapping[str, Any]], folder: Path, epochs: int, seed: int) -> Path:
    """Fine-tunes from the bundle's weights on annotated cases; returns the weights of the best epoch."""
    count = max(1, round(len(cases) * VAL_SPLIT))
    held_out = {int((index + 0.5) * len(cases) / count) for index in range(count)}
    monai.bundle.run(
        config_file=str(bundle / "configs" / "train.json"),
        bundle_root=str(bundle),
        dataset_dir=str(folder),
        ckpt_dir=str(folder),
        output_dir=str(folder),
        pretrained=str(bundle / "models" / "model.pt"),
        seed=seed,
        learning_rate=LEARNING_RATE,
        batch_size=min(BATCH_SIZE, len(cases) - count),
        **{
            "train#trainer#max_epochs": epochs,
            "train#dataset#data": [case for index, case in enumerate(cases) if index not in held_out],
            "validate#dataset#data": [cases[index] for index in sorted(held_out)],
        },
    )
    return folder / "model.pt"


def measure(segmenter: Segmenter, cases: Sequence[Mapping[str, Any]]) -> float:
    """Returns the mean Dice of the masks of cases, at their own size; any label counts as foreground."""
    scores = []
    for case in cases:
        found = segmenter.make_label_map(segmenter.infer([segmenter.reader.read([Path(case["image"])])])[0]) > 0
        truth = np.zeros(found.shape, bool)
        for path in case["label"] if isinstance(case["label"], list) else [case["label"]]:
            with Image.open(path) as mask:
                truth |= np.asarray(mask.convert("L")) > 127
        scores.append(2 * np.sum(found & truth) / max(1, np.sum(found) + np.sum(truth)))
    return float(np.mean(scores))


def annotate(
    strategy: str,
    count: int,
    pool: Sequence[str],
    annotated: Sequence[str],
    segmenter: Segmenter,
    known: Mapping[str, Mapping[str, Any]],
    cases: Mapping[str, Mapping[str, Any]],
    generator: np.random.Generator,
) -> list[str]:
    """Returns the names that a strategy has annotated next.

    Args:
        known: name -> ``patient`` and ``group``.
    """
    if strategy == "random":
        return [str(name) for name in generator.permutation(sorted(pool))[:count]]
    scores = {name: {**known[name]} for name in (*pool, *annotated)}
    for name in pool:
        scores[name]["confidence"] = score_image(segmenter, {}, Path(cases[name]["image"]))
    chosen: list[str] = []
    while len(chosen) < count:
        rest = [name for name in pool if name not in chosen]
        name = choose_image(rest, scores, [*annotated, *chosen])
        if name is None:
            break
        chosen.append(name)
    return chosen


def run_seed(options: argparse.Namespace, cases: Mapping[str, Any], known: Mapping[str, Any], seed: int) -> Any:
    """Returns strategy -> [annotated images, mean Dice] after each training."""
    draw = np.random.default_rng(seed)
    patients = [str(name) for name in draw.permutation(sorted({item["patient"] for item in known.values()}))]
    of_patient: dict[str, list[str]] = {}
    for name in sorted(cases):
        of_patient.setdefault(known[name]["patient"], []).append(name)
    measured: list[str] = []
    while len(measured) < options.measured:
        measured += of_patient.pop(patients.pop())
    pool = [str(name) for name in draw.permutation(sorted(name for names in of_patient.values() for name in names))]
    pool = pool[: options.pool]
    start, results = pool[: options.start], {}
    for strategy in STRATEGIES:
        annotated, curve, generator = list(start), [], np.random.default_rng(seed)
        while True:
            with tempfile.TemporaryDirectory() as folder:
                lessons = [cases[name] for name in sorted(annotated)]
                weights = train(options.bundle, lessons, Path(folder), options.epochs, seed)
                segmenter = make_segmenter(options.bundle, weights)
            curve.append([len(annotated), round(measure(segmenter, [cases[name] for name in measured]), 4)])
            print(f"seed {seed}, {strategy}: {curve[-1]}", flush=True)
            if len(annotated) >= options.end:
                break
            rest = [name for name in pool if name not in annotated]
            count = min(options.step, options.end - len(annotated))
            annotated += annotate(strategy, count, rest, annotated, segmenter, known, cases, generator)
        results[strategy] = curve
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the experiment and writes its numbers."""
    parser = argparse.ArgumentParser(description="What a strategy of active learning gains over random images.")
    parser.add_argument("bundle", type=Path, help="of 2D images")
    parser.add_argument("dataset_dir", type=Path, help="images with masks")
    parser.add_argument("--start", type=int, default=20, help="annotated images to begin with (default %(default)s)")
    parser.add_argument("--step", type=int, default=20, help="images that are annotated at a time")
    parser.add_argument("--end", type=int, default=100, help="annotated images to end with (default %(default)s)")
    parser.add_argument("--pool", type=int, default=600, help="images that may be annotated (default %(default)s)")
    parser.add_argument("--measured", type=int, default=200, help="images that measure (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of each training (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.bundle = options.bundle.resolve()
    cases = pair_cases(options.dataset_dir.resolve())
    patients, groups = read_patients(options.dataset_dir, list(cases)), find_groups(cases)
    known = {name: {"patient": patients[name], "group": groups[name]} for name in cases}
    begin = time.perf_counter()
    seeds = [run_seed(options, cases, known, seed) for seed in range(options.seeds)]
    steps = [number for number, _ in seeds[0][STRATEGIES[0]]]
    gains = [
        [round(float(dict(curves["uncertainty"])[step] - dict(curves["random"])[step]), 4) for curves in seeds]
        for step in steps
    ]
    for step, gain in zip(steps, gains, strict=True):
        print(f"{step} images: uncertainty - random = {np.mean(gain):+.4f} {gain}")
    write_json(
        options.output,
        {
            "command": shlex.join(["python", "benchmarks/bench_active_learning.py", *(arguments or sys.argv[1:])]),
            "machine": describe_machine(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "minutes": round((time.perf_counter() - begin) / 60, 1),
            "annotated": steps,
            "gain_by_seed": gains,
            "seeds": seeds,
        },
    )


if __name__ == "__main__":
    main()
