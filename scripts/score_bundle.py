"""Scores a bundle's weights on sections of a datalist, image by image, with 95 % bootstrap intervals.

Two scales: ``network`` compares at the size the network sees (the papers' protocol, 256 x 256), ``original`` at the
image's own size. HD95 is in pixels of the scale. Preprocessing, network, inferer and postprocessing are the objects of
the bundle's configs. An image whose label is empty has no overlap scores: it is counted by ``false_positive``
(any pixel predicted) and ``predicted_percent``. An image whose prediction alone is empty has Dice, IoU and recall 0 and
no precision and HD95.

Writes ``<section>_cases.csv`` and ``scores.json``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.metrics import compute_hausdorff_distance
from monai.transforms import Compose, Resized
from scipy.stats import bootstrap
from tqdm import tqdm

METRICS = ("dice", "iou", "precision", "recall", "hd95")
EMPTY_LABEL_METRICS = ("false_positive", "predicted_percent")
RESAMPLES = 9999


def score_masks(pred: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    """Compares two binary masks of one size; see the module's text for empty ones.

    Shape:
        - pred, label: (rows, columns), in either order of the axes.
    """
    pred, label = pred > 0, label > 0
    hits, predicted, true = (int(mask.sum()) for mask in (pred & label, pred, label))
    if not true:
        return {"false_positive": float(predicted > 0), "predicted_percent": 100 * predicted / pred.numel()}
    scores = {"dice": 2 * hits / (predicted + true), "iou": hits / (predicted + true - hits), "recall": hits / true}
    if predicted:
        scores["precision"] = hits / predicted
        distance = compute_hausdorff_distance(
            pred[None, None], label[None, None], include_background=True, percentile=95
        )
        scores["hd95"] = float(distance)
    return scores


def summarise(values: list[float], seed: int = 0) -> dict[str, float | int | list[float]]:
    """Returns mean, median, n, and the 95 % percentile bootstrap interval of the mean."""
    data = np.asarray(values)
    summary: dict[str, float | int | list[float]] = {
        "mean": round(float(data.mean()), 4),
        "median": round(float(np.median(data)), 4),
        "n": len(data),
    }
    if len(data) > 1 and np.ptp(data) > 0:
        result = bootstrap(
            (data,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
        )
        interval = result.confidence_interval
        summary["interval"] = [round(float(interval.low), 4), round(float(interval.high), 4)]
    return summary


class Scorer:
    """Runs a bundle's objects on cases and compares with their labels."""

    def __init__(self, bundle: Path, overrides: dict[str, Any]) -> None:
        inference, train = (self._parser(bundle, name, overrides) for name in ("inference", "train"))
        runner = inference.get_parsed_content("runner")
        runner.load_network()
        self.weights: Path = runner.weights
        self.segmenter = runner.segmenter
        self.to_label_map = train.get_parsed_content("train#postprocessing")
        label_transforms = train.get_parsed_content("label_transforms")
        self.network_label = Compose(label_transforms)
        self.original_label = Compose([t for t in label_transforms if not isinstance(t, Resized)])

    @staticmethod
    def _parser(bundle: Path, name: str, overrides: dict[str, Any]) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / f"{name}.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(bundle), **overrides})
        return parser

    def score(self, item: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Returns the scores of one case at both scales."""
        (result,) = self.segmenter.infer([self.segmenter.read(item["image"])])
        at_network = self.to_label_map({"pred": result["pred"]})["pred"][0]
        at_original = torch.as_tensor(self.segmenter.make_label_map(result))
        label = {"label": item["label"]}
        return {
            "network": score_masks(at_network, self.network_label(dict(label))["label"][0]),
            "original": score_masks(at_original, self.original_label(dict(label))["label"][0]),
        }


def score_section(scorer: Scorer, items: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Returns one row a case and scale."""
    rows = []
    for item in tqdm(items, unit="case"):
        resolved = {"image": str(root / item["image"]), "label": [str(root / mask) for mask in item["label"]]}
        for scale, scores in scorer.score(resolved).items():
            rows.append({"image": item["image"], "scale": scale, **{k: round(v, 5) for k, v in scores.items()}})
    return rows


def summarise_rows(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns scale -> metric -> summary, for the metrics that any row has."""
    return {
        scale: {
            metric: summarise([row[metric] for row in rows if row["scale"] == scale and metric in row])
            for metric in (*METRICS, *EMPTY_LABEL_METRICS)
            if any(row["scale"] == scale and metric in row for row in rows)
        }
        for scale in ("network", "original")
    }


def main() -> None:
    """Scores the sections and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", required=True)
    parser.add_argument("--weights", type=Path, help="default: the bundle's models/model.pt")
    parser.add_argument("--threshold", type=float, help="default: the bundle's")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="default: the bundle's")
    parser.add_argument("--output", type=Path, required=True, help="folder for scores.json and *_cases.csv")
    arguments = parser.parse_args()

    given = {
        "weights": arguments.weights and str(arguments.weights),
        "threshold": arguments.threshold,
        "image_size": arguments.image_size,
    }
    scorer = Scorer(arguments.bundle, {name: value for name, value in given.items() if value is not None})
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    duplicates = {item["image"] for item in datalist.get("duplicates", [])}
    arguments.output.mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = {
        "weights_sha256": hashlib.sha256(scorer.weights.read_bytes()).hexdigest(),
        "datalist": arguments.datalist.name,
        **{name: value for name, value in given.items() if value is not None and name != "weights"},
        "device": str(scorer.segmenter.device),
        "precision": "float32",
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "intervals": f"95 % percentile bootstrap over images, {RESAMPLES} resamples, seed 0",
        "sections": {},
    }
    for section in arguments.sections:
        rows = score_section(scorer, datalist[section], arguments.dataset_dir)
        scores["sections"][section] = summarise_rows(rows)
        clean = [row for row in rows if row["image"] not in duplicates]
        if len(clean) < len(rows):
            scores["sections"][f"{section} without near-duplicates of training cases"] = summarise_rows(clean)
        columns = ["image", "scale", *(m for m in (*METRICS, *EMPTY_LABEL_METRICS) if any(m in row for row in rows))]
        with (arguments.output / f"{section}_cases.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(rows)
        print(section, json.dumps(scores["sections"][section], indent=1))
    (arguments.output / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
