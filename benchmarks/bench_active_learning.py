"""Measures what annotating the least certain images first gains over random images.

Each seed draws the images to begin with, and images of other patients to measure on. Then both strategies of the server
take turns: train from the start weights on the annotated images, measure, annotate the next images (their true masks
stand for the annotator's). ``random`` takes any image, ``uncertainty`` those with the lowest confidence, one per
patient and one of images that are nearly the same (``mobileutr_monai.monai_label.choosing``). A fifth of the annotated
images chooses the epoch. ``cases.csv``, where there is one, says which images are of one patient (columns ``image`` and
``group``). The start weights must not have seen the data set.

The output is written after every training, so a run that is stopped keeps what it has.

Example::

    python benchmarks/bench_active_learning.py bundles/breast_ultrasound_segmentation DATA/busbra \
        --weights BUSI_ALONE.pt --output benchmarks/results/active_learning.json
"""

from __future__ import annotations

import argparse
import csv
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import torch
from measuring import describe_machine, write_json
from monai.bundle import ConfigParser
from PIL import Image

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.datasets.datalist import pair_cases
from mobileutr_monai.datasets.duplicates import group_pairs, make_thumbnail, pair_thumbnails
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.monai_label.choosing import choose_image, score_image
from mobileutr_monai.networks import load_weights

STRATEGIES = ("random", "uncertainty")
RESAMPLES = 9999
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


def make_segmenter(options: argparse.Namespace, weights: Path) -> Segmenter:
    """Returns the bundle's segmenter with these weights."""
    parser = ConfigParser()
    parser.read_config(str(options.bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(options.bundle)
    if options.image_size:
        parser["image_size"] = options.image_size
    segmenter: Segmenter = parser.get_parsed_content("segmenter")
    load_weights(segmenter.network, weights)
    segmenter.network.eval()
    return segmenter


def train(options: argparse.Namespace, cases: Sequence[Mapping[str, Any]], folder: Path, seed: int) -> Path:
    """Fine-tunes from the start weights on annotated cases; returns the weights of the best epoch."""
    count = max(1, round(len(cases) * VAL_SPLIT))
    held_out = {int((index + 0.5) * len(cases) / count) for index in range(count)}
    batch_size = min(BATCH_SIZE, len(cases) - count)
    monai.bundle.run(
        config_file=str(options.bundle / "configs" / "train.json"),
        bundle_root=str(options.bundle),
        dataset_dir=str(folder),
        ckpt_dir=str(folder),
        output_dir=str(folder),
        pretrained=str(options.weights),
        seed=seed,
        learning_rate=LEARNING_RATE,
        batch_size=batch_size,
        **({"image_size": options.image_size} if options.image_size else {}),
        **{
            "train#trainer#max_epochs": math.ceil(options.steps / ((len(cases) - count) // batch_size)),
            "train#dataset#data": [case for index, case in enumerate(cases) if index not in held_out],
            "validate#dataset#data": [cases[index] for index in sorted(held_out)],
        },
    )
    return folder / "model.pt"


def measure(segmenter: Segmenter, cases: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the Dice of the masks of cases, at their own size; any label counts as foreground."""
    scores = []
    for case in cases:
        found = segmenter.make_label_map(segmenter.infer([segmenter.reader.read([Path(case["image"])])])[0]) > 0
        truth = np.zeros(found.shape, bool)
        for path in case["label"] if isinstance(case["label"], list) else [case["label"]]:
            with Image.open(path) as mask:
                truth |= np.asarray(mask.convert("L")) > 127
        scores.append(float(2 * np.sum(found & truth) / max(1, np.sum(found) + np.sum(truth))))
    return scores


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


def run_seed(
    options: argparse.Namespace, cases: Mapping[str, Any], known: Mapping[str, Any], seed: int
) -> Iterator[tuple[str, int, list[float]]]:
    """Yields strategy, number of annotated images and Dice of the measured images after each training."""
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
    annotated = {strategy: pool[: options.start] for strategy in STRATEGIES}
    generators = {strategy: np.random.default_rng(seed) for strategy in STRATEGIES}
    segmenters: dict[str, Segmenter] = {}
    while True:
        for strategy, names in annotated.items():
            if not segmenters or len(names) > options.start:  # the first training is the same for both
                with tempfile.TemporaryDirectory() as folder:
                    weights = train(options, [cases[name] for name in sorted(names)], Path(folder), seed)
                    segmenters[strategy] = make_segmenter(options, weights)
                scores = measure(segmenters[strategy], [cases[name] for name in measured])
            else:
                segmenters[strategy] = segmenters[STRATEGIES[0]]
            yield strategy, len(names), scores
        count = min(options.step, options.end - len(annotated[STRATEGIES[0]]))
        if count <= 0:
            return
        for strategy, names in annotated.items():
            rest = [name for name in pool if name not in names]
            more = annotate(strategy, count, rest, names, segmenters[strategy], known, cases, generators[strategy])
            annotated[strategy] = [*names, *more]


def interval(differences: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Returns the mean over seeds of the mean over images, with its 95 % interval.

    Args:
        differences: of each seed, the differences of its images. A bootstrap draws seeds, and images of each.
    """
    generator = np.random.default_rng(0)
    draws = np.stack(
        [np.mean(generator.choice(values, (RESAMPLES, len(values))), axis=1) for values in map(np.asarray, differences)]
    )
    seeds = generator.integers(len(draws), size=(len(draws), RESAMPLES))
    low, high = np.quantile(np.mean(np.take_along_axis(draws, seeds, axis=0), axis=0), (0.025, 0.975))
    by_seed = [float(np.mean(values)) for values in differences]
    return {
        "mean": round(float(np.mean(by_seed)), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "by_seed": [round(value, 4) for value in by_seed],
    }


def summarise(seeds: Sequence[Mapping[int, Mapping[str, Sequence[float]]]]) -> dict[str, Any]:
    """Returns the mean Dice of both strategies and their paired difference, by the number of annotated images.

    Args:
        seeds: of each seed, annotated images -> strategy -> Dice of each measured image. A seed that has
            not reached the last number counts in the mean over numbers with those that it has.
    """
    pairs = [{number: found for number, found in seed.items() if len(found) == len(STRATEGIES)} for seed in seeds]
    later: list[list[np.ndarray]] = [[] for _ in pairs]  # budgets at which the two have annotated other images
    rows = {}
    for number in sorted({number for seed in pairs for number in seed}):
        done = [(index, seed[number]) for index, seed in enumerate(pairs) if number in seed]
        gains = [np.subtract(found["uncertainty"], found["random"]) for _, found in done]
        rows[str(number)] = {
            "seeds": len(done),
            **{name: round(float(np.mean([np.mean(found[name]) for _, found in done])), 4) for name in STRATEGIES},
            "gain": interval(gains),
        }
        if number > min(pairs[0]):
            for (index, _), gain in zip(done, gains, strict=True):
                later[index].append(gain)
    whole = [np.mean(gains, axis=0) for gains in later if gains]
    return {"annotated": rows, **({"gain_after_the_start": interval(whole)} if whole else {})}


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
    parser.add_argument("--steps", type=int, default=60, help="of each training, at least (default %(default)s)")
    parser.add_argument("--image-size", type=int, nargs="+", help="the bundle's if not given")
    parser.add_argument("--weights", type=Path, help="to begin each training with; the bundle's if not given")
    parser.add_argument("--weights-note", default="", help="what the weights were trained on, for the output")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.bundle = options.bundle.resolve()
    options.weights = (options.weights or options.bundle / "models" / "model.pt").resolve()
    cases = pair_cases(options.dataset_dir.resolve())
    patients, groups = read_patients(options.dataset_dir, list(cases)), find_groups(cases)
    known = {name: {"patient": patients[name], "group": groups[name]} for name in cases}
    begin, machine = time.perf_counter(), describe_machine()
    seeds: list[dict[int, dict[str, list[float]]]] = []
    for seed in range(options.seeds):
        seeds.append({})
        for strategy, number, scores in run_seed(options, cases, known, seed):
            seeds[-1].setdefault(number, {})[strategy] = scores
            print(f"seed {seed}, {strategy}, {number} images: {np.mean(scores):.4f}", flush=True)
            write_json(
                options.output,
                {
                    "command": shlex.join(
                        ["python", "benchmarks/bench_active_learning.py", *(arguments or sys.argv[1:])]
                    ),
                    "machine": machine,
                    "device": "cuda" if torch.cuda.is_available() else "cpu",
                    "start_weights": {"note": options.weights_note, "sha256": hash_file(options.weights)},
                    "minutes": round((time.perf_counter() - begin) / 60, 1),
                    "seeds_asked_for": options.seeds,
                    **summarise(seeds),
                },
            )


if __name__ == "__main__":
    main()
