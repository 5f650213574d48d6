"""Measures what cleaning the label map would gain on the selection list: largest piece, filled holes, a least size, a
least highest probability.

None of it is in a bundle unless it helps there. Label maps are the bundle's own at the image's size, without
``largest_piece`` and ``min_peak``; gains are the mean Dice with the step minus that without it, paired by case, with
its 95 % bootstrap interval. Of images without a label, the share in which a step leaves anything is counted. Writes
``postprocessing.json`` in the bundle's ``results``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from scipy import ndimage
from score_bundle import Scorer, resolve, score_masks, summarise
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.inference.pieces import keep_largest_pieces
from mobileutr_monai.transforms import ProbabilitiesToLabelMapd

LEAST_PERCENT = (0.1, 0.5, 1.0)
"""Sizes that a piece must have, in percent of the image, to be kept."""
LEAST_PEAKS = (0.8, 0.9, 0.95, 0.97)
"""Highest probabilities that a label must have in an image to count in it."""
Step = Callable[[np.ndarray, float], np.ndarray]


def keep_larger(percent: float) -> Step:
    """Returns a step that removes pieces of less than a share of the image.

    Shape:
        - in and out: a binary mask, (rows, columns) or (x, y, z).
    """

    def keep(mask: np.ndarray, _: float) -> np.ndarray:
        pieces, _ = ndimage.label(mask)
        return np.asarray((np.bincount(pieces.ravel()) >= percent / 100 * mask.size)[pieces] & mask)

    return keep


def ask_for(least: float) -> Step:
    """Returns a step that keeps a mask if the highest probability in it is not lower."""
    return lambda mask, peak: mask & (peak >= least)


STEPS: dict[str, Step] = {
    "largest piece": lambda mask, _: keep_largest_pieces(mask),
    "filled holes": lambda mask, _: ndimage.binary_fill_holes(mask),
    **{f"pieces from {percent} %": keep_larger(percent) for percent in LEAST_PERCENT},
    **{f"highest probability from {peak}": ask_for(peak) for peak in LEAST_PEAKS},
}


def main() -> None:
    """Measures every step on every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--section", nargs="+", default=["validation"], help="selection lists (default: validation)")
    arguments = parser.parse_args()

    scorer = Scorer(arguments.bundle, {"largest_piece": False, "min_peak": 0.0})
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    items = [item for section in arguments.section for item in datalist[section]]
    dice: dict[str, list[float]] = {"none": [], **{step: [] for step in STEPS}}
    outlined: dict[str, list[float]] = {step: [] for step in dice}
    for item in tqdm(items, unit="case"):
        pred, label, peaks = predict_case(scorer, resolve(item, arguments.dataset_dir))
        of_label: dict[str, list[float]] = {step: [] for step in dice}
        for index, peak in zip(scorer.labels, peaks, strict=True):
            mask, truth = pred == index, torch.as_tensor(label == index)
            for step in dice:
                cleaned = STEPS[step](mask, peak) if step in STEPS and mask.any() else mask
                if truth.any():
                    of_label[step].append(score_masks(torch.from_numpy(cleaned), truth)["dice"])
                elif not label.any():
                    outlined[step].append(float(cleaned.any()))
        for step, values in of_label.items():
            dice[step] += [float(np.mean(values))] if values else []
    results: dict[str, Any] = {
        "weights_sha256": hash_file(scorer.weights),
        "datalist": arguments.datalist.name,
        "section": " + ".join(arguments.section),
        "dice": {step: summarise(values) for step, values in dice.items()},
        "gain": {
            step: summarise([with_it - without for with_it, without in zip(dice[step], dice["none"], strict=True)])
            for step in STEPS
        },
        "lost": {
            step: sum(with_it == 0 < without for with_it, without in zip(dice[step], dice["none"], strict=True))
            for step in STEPS
        },
    }
    if outlined["none"]:
        results["outlined"] = {step: summarise(values) for step, values in outlined.items()}
    output = arguments.bundle / "results" / "postprocessing.json"
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["gain"], indent=1))


def predict_case(scorer: Scorer, item: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Returns predicted and true label map at the image's size, and the highest probability of each label."""
    segmenter = scorer.segmenter
    (result,) = segmenter.infer([segmenter.reader.read([Path(item["image"])])])
    steps = segmenter.postprocessing.transforms
    last = next(i for i, step in enumerate(steps) if isinstance(step, ProbabilitiesToLabelMapd))
    probabilities = np.asarray(Compose(steps[:last])(result)["pred"])
    peaks = [float(values.max()) for values in probabilities[-len(scorer.labels) :]]
    label = scorer.original_label({"label": item["label"]})["label"][0]
    return segmenter.make_label_map(result), np.asarray(label), peaks


if __name__ == "__main__":
    main()
