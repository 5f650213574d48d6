"""Measures what each group of a bundle's augmentations gains: short trainings with all of them and without one group.

Every arm trains on the same few images from the same weights, with the same seeds, for the same number of epochs; the
last epoch is scored, so that no list chooses anything. Few images, because there the augmentations' work shows within
minutes. Scores are of ``validation``, the selection list, at the size that was trained on; the gain of a group is the
mean Dice with all minus that without it, paired by case, averaged over the seeds, with its 95 % bootstrap interval over
cases.

Adds its arms to ``ablation_augmentation.json`` in the bundle's ``results``; arms that are there with the same settings
are not trained again, so that the same command resumes after a stop.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from score_bundle import summarise

from mobileutr_monai.core.atomic import hash_file

GROUPS = {
    "mirrors, rotation, zoom": ("RandFlipd", "RandAffined"),
    "elastic": ("Rand3DElasticd",),
    "intensity and colour": ("RandScaleIntensityd", "RandShiftIntensityd", "RandAdjustContrastd"),
    "specular highlights": ("RandCoarseDropoutd",),
    "noise and blur": ("RandGaussianNoised", "RandGaussianSmoothd"),
}
"""Group -> the transforms that it is made of; others (padding, cropping to the window) are in every arm."""
ALL, NONE = "all", "none of them"


def choose_arms(augmentation: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns arm -> its augmentation: all, without each group that is there, and none."""
    names = [transform["_target_"] for transform in augmentation]
    groups = {group: members for group, members in GROUPS.items() if set(members) & set(names)}
    left_out: dict[str, tuple[str, ...]] = {ALL: ()}
    left_out |= {f"without {group}": members for group, members in groups.items()}
    left_out[NONE] = tuple(member for members in groups.values() for member in members)
    return {arm: [t for t in augmentation if t["_target_"] not in out] for arm, out in left_out.items()}


def draw_training(items: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Returns some cases, drawn by the hash of their names, so that every run draws the same ones."""
    return sorted(items, key=lambda item: hashlib.sha256(item["image"].encode()).hexdigest())[:number]


def train_arm(
    bundle: Path, dataset_dir: Path, datalist: dict[str, Any], overrides: dict[str, Any], command: list[str]
) -> dict[str, float]:
    """Trains with overridden ids and returns the Dice of every case of ``validation``, meaned over labels."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "datalist.json").write_text(json.dumps(datalist), encoding="utf-8")
        (work / "arm.json").write_text(json.dumps(overrides), encoding="utf-8")
        shared = ["--dataset_dir", str(dataset_dir), "--datalist", str(work / "datalist.json"), *command]
        shared += ["--bundle_root", str(bundle), "--output_dir", str(work)]
        train, evaluate = (str(bundle / "configs" / f"{name}.json") for name in ("train", "evaluate"))
        _run_bundle([train, str(work / "arm.json")], [*shared, "--ckpt_dir", str(work)])
        _run_bundle([train, evaluate], [*shared, "--weights", str(work / "model.pt")])
        with (work / "val_mean_dice_raw.csv").open(newline="", encoding="utf-8") as file:
            return {Path(row["filename"]).name: float(row["mean"]) for row in csv.DictReader(file)}


def describe_arms(arms: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Returns arm -> mean Dice over cases and seeds, and what ``all`` gains over it.

    Args:
        arms: arm -> seed -> case -> Dice.
    """
    averaged = {arm: _average_seeds(seeds) for arm, seeds in arms.items()}
    whole = averaged[ALL]
    described: dict[str, dict[str, Any]] = {}
    for arm, values in averaged.items():
        described[arm] = {"dice": summarise(list(values.values()))}
        if arm != ALL:
            described[arm]["gain_of_all"] = summarise([whole[case] - values[case] for case in whole])
    return described


def _average_seeds(seeds: dict[str, dict[str, float]]) -> dict[str, float]:
    cases = next(iter(seeds.values()))
    return {case: float(np.mean([scores[case] for scores in seeds.values()])) for case in cases}


def _run_bundle(configs: list[str], options: list[str]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", str(configs), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - a list, no shell


def main() -> None:
    """Trains the arms that are missing and writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, help="weights that every arm starts from (default: random ones)")
    parser.add_argument("--cases", type=int, default=200, help="of the training list, drawn by hash")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="default: the bundle's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()

    bundle = arguments.bundle.resolve()
    output = bundle / "results" / "ablation_augmentation.json"
    config = ConfigParser.load_config_file(bundle / "configs" / "train.json")
    full = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    datalist = {**full, "training": draw_training(full["training"], arguments.cases)}
    settings = {
        "datalist": arguments.datalist.name,
        "pretrained": hash_file(arguments.pretrained) if arguments.pretrained else "",
        "cases": len(datalist["training"]),
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "image_size": arguments.image_size,
        "augmentation": hashlib.sha256(json.dumps(config["augmentation"]).encode()).hexdigest(),
    }
    earlier = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    cases: dict[str, dict[str, dict[str, float]]] = earlier["cases"] if earlier.get("settings") == settings else {}
    command = ["--image_size", str(arguments.image_size)] if arguments.image_size else []
    for seed in arguments.seeds:
        for arm, augmentation in choose_arms(config["augmentation"]).items():
            if str(seed) in cases.get(arm, {}):
                continue
            overrides = {
                "augmentation": augmentation,
                "seed": seed,
                "max_epochs": arguments.epochs,
                "val_interval": arguments.epochs,
                "learning_rate": arguments.learning_rate,
                "pretrained": str(arguments.pretrained.resolve()) if arguments.pretrained else "",
            }
            scores = train_arm(bundle, arguments.dataset_dir.resolve(), datalist, overrides, command)
            cases.setdefault(arm, {})[str(seed)] = {case: round(value, 4) for case, value in scores.items()}
            print(f"{arm}, seed {seed}: {np.mean(list(scores.values())):.4f}", flush=True)
            arms = {arm: {**seeds} for arm, seeds in cases.items()}
            results = {"settings": settings, "arms": describe_arms(arms), "cases": cases}
            output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
