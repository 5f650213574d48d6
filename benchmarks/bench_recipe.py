"""What each part of the breast recipe is worth: trainings that differ by one part, paired by image.

The scores come from two plans of ``scripts/gpu/train.py``. In ``ablations`` networks learn from random weights at
128 x 128, each without one part of the augmentation, or with one more. In ``polishes`` the weights of the bundle are
trained on at 256 x 256, each in another way. Networks of a plan take turns, step by step, so all have the same number
of steps. Scores are those of the selection lists, which are not reported otherwise.

    python scripts/gpu/pack.py DATA --output PACKS
    python scripts/gpu/train.py ablations --packs PACKS --output OUT --seconds 3600
    python scripts/gpu/train.py polishes --packs PACKS --output OUT --seconds 4400    # with weights/breast1.pt
    python benchmarks/bench_recipe.py OUT --output benchmarks/results/recipe.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from bench_peers import describe_values
from measuring import write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts" / "gpu"))
from plans import PLANS

SETS = ("busi", "busbra")
LISTS = ("validation", "validation_letterboxed")


def join(scores: dict[str, Any], section: str) -> list[float]:
    """Returns the Dice of each image of both hospitals."""
    return [value for name in SETS for value in scores[section][name]]


def compare(scores: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Returns the means of a run, and of each list its gain over the base, paired by image."""
    result: dict[str, Any] = {"steps": scores["steps"], "batch_size": scores["batch_size"]}
    for section in LISTS:
        own = join(scores, section)
        result[section] = describe_values(own)
        if scores is not base:
            gains = np.subtract(own, join(base, section))
            result[section]["gain"] = describe_values(gains.tolist())
    result["sets"] = {name: round(float(np.mean(scores["validation"][name])), 4) for name in SETS}
    normal = scores["normal_validation"]["busi_normal"]
    result["normal_images_outlined"] = [sum(share > 0 for share in normal), len(normal)]
    return result


def main() -> None:
    """Compares the runs of both plans and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="folder that scripts/gpu/train.py wrote to")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for plan in ("ablations", "polishes"):
        scores = json.loads((arguments.scores / f"{plan}_scores.json").read_text(encoding="utf-8"))
        (stage,) = PLANS[plan]
        base = scores[stage.runs[0].name]
        result[plan] = {run.name: {"size": run.size, **compare(scores[run.name], base)} for run in stage.runs}
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
