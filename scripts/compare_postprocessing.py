"""Measures what cleaning the label map would gain on the selection list: largest piece, filled holes, a least size.

None of it is in a bundle unless it helps there. Label maps are the bundle's own at the image's size; gains are the mean
Dice with the step minus that without it, paired by case, with its 95 % bootstrap interval. Writes
``postprocessing.json`` in the bundle's ``results``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from score_bundle import Scorer, resolve, score_masks, summarise
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file

LEAST_PERCENT = (0.1, 0.5, 1.0)
"""Sizes that a piece must have, in percent of the image, to be kept."""
Step = Callable[[np.ndarray], np.ndarray]


def keep_larger(percent: float) -> Step:
    """Returns a step that removes pieces of less than a share of the image.

    Shape:
        - in and out: a binary mask, (rows, columns) or (x, y, z).
    """

    def keep(mask: np.ndarray) -> np.ndarray:
        pieces, sizes = _find_pieces(mask)
        return np.asarray((sizes >= percent / 100 * mask.size)[pieces] & mask)

    return keep


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """Keeps the largest piece."""
    pieces, sizes = _find_pieces(mask)
    return np.asarray(pieces == 1 + np.argmax(sizes[1:]))


def _find_pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of every pixel's piece, 0 for background, and the pieces' sizes in pixels."""
    pieces, _ = ndimage.label(mask)
    return pieces, np.bincount(pieces.ravel())


STEPS: dict[str, Step] = {
    "largest piece": keep_largest,
    "filled holes": ndimage.binary_fill_holes,
    **{f"pieces from {percent} %": keep_larger(percent) for percent in LEAST_PERCENT},
}


def main() -> None:
    """Measures every step on every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--section", nargs="+", default=["validation"], help="selection lists (default: validation)")
    arguments = parser.parse_args()

    scorer = Scorer(arguments.bundle, {})
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    items = [item for section in arguments.section for item in datalist[section]]
    dice: dict[str, list[float]] = {"none": [], **{step: [] for step in STEPS}}
    for item in tqdm(items, unit="case"):
        pred, label = scorer.compare(resolve(item, arguments.dataset_dir))["original"]
        of_label: dict[str, list[float]] = {step: [] for step in dice}
        for index in scorer.labels:
            mask, truth = np.asarray(pred == index), torch.as_tensor(np.asarray(label == index))
            if not truth.any():
                continue
            for step in dice:
                cleaned = STEPS[step](mask) if step in STEPS and mask.any() else mask
                of_label[step].append(score_masks(torch.from_numpy(cleaned), truth)["dice"])
        for step, values in of_label.items():
            dice[step] += [float(np.mean(values))] if values else []
    results = {
        "weights_sha256": hash_file(scorer.weights),
        "datalist": arguments.datalist.name,
        "section": " + ".join(arguments.section),
        "dice": {step: summarise(values) for step, values in dice.items()},
        "gain": {
            step: summarise([with_it - without for with_it, without in zip(dice[step], dice["none"], strict=True)])
            for step in STEPS
        },
    }
    output = arguments.bundle / "results" / "postprocessing.json"
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["gain"], indent=1))


if __name__ == "__main__":
    main()
