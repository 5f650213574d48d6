"""MobileUtr and MONAI's networks: same data, same recipe, same number of steps, in one run.

The scores come from ``scripts/gpu/train.py peers``, which trains all networks side by side on one GPU at 128 x 128 and
scores the selection lists, image by image. This script adds parameters, multiplications and the time of one image on a
CPU, and writes means with 95 % bootstrap intervals, differences to base MobileUtr paired by image.

    python scripts/gpu/pack.py DATA --output PACKS
    python scripts/gpu/train.py peers --packs PACKS --output OUT --seconds 168 --banded     # on a GPU
    python benchmarks/bench_peers.py OUT/peers_scores.json --output benchmarks/results/peers.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import describe_machine, summarise, take_turns, write_json
from scipy.stats import bootstrap
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts" / "gpu"))
from plans import PEERS

BASE = "MobileUtr base"
SETS = {"breast": ("busi", "busbra"), "colon": ("kvasir_seg", "cvc_clinicdb")}
SIZE, FULL_SIZE = 128, 256


def describe_values(values: Sequence[float]) -> dict[str, Any]:
    """Returns the mean and its 95 % percentile bootstrap interval over images."""
    found = bootstrap((np.array(values),), np.mean, method="percentile", random_state=0).confidence_interval
    return {"mean": round(float(np.mean(values)), 4), "interval": [round(float(b), 4) for b in found], "n": len(values)}


def compare_lists(scores: dict[str, Any], name: str, target: str, section: str) -> dict[str, Any]:
    """Returns Dice and IoU of a network on the sets of a selection list, and its paired difference to the base."""
    own, base = (
        [value for of in SETS[target] for value in scores[f"{network} {target}"][section][of]]
        for network in (name, BASE)
    )
    sets = {of: describe_values(scores[f"{name} {target}"][section][of]) for of in SETS[target]}
    result = {"dice": describe_values(own), "iou": describe_values([d / (2 - d) for d in own]), "sets": sets}
    if name != BASE:
        result["dice_minus_base"] = describe_values([a - b for a, b in zip(own, base, strict=True)])
    return result


def count_macs(network: torch.nn.Module, size: int) -> float:
    """Returns multiplications with additions of one image, in billions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops() / 2e9)


def main() -> None:
    """Measures, compares and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="peers_scores.json of scripts/gpu/train.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scores = json.loads(arguments.scores.read_text(encoding="utf-8"))
    machine = describe_machine()
    networks = {name: make().eval() for name, make in PEERS.items()}
    image = torch.rand(1, 3, FULL_SIZE, FULL_SIZE)
    with torch.inference_mode():
        samples = take_turns(
            {name: lambda network=network: network(image) for name, network in networks.items()}, arguments.rounds, 3
        )
    times = summarise(samples, BASE)
    result: dict[str, Any] = {"size": SIZE, "networks": {}, "machine": machine}
    for name, network in networks.items():
        run = scores[f"{name} breast"]
        result["networks"][name] = {
            "parameters": run["parameters"],
            "gmac": round(count_macs(network, FULL_SIZE), 2),
            "one_image": times[name],
            "steps": run["steps"],
            "batch_size": run["batch_size"],
            **{target: compare_lists(scores, name, target, "validation") for target in SETS},
            "letterboxed": {target: compare_lists(scores, name, target, "validation_letterboxed") for target in SETS},
        }
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
