"""Scores a bundle's weights on sections of a datalist, image by image, with 95 % bootstrap intervals.

Two scales: ``network`` compares at the size the network sees (the papers' protocol, 256 x 256), ``original`` at the
image's own size. Volumes are compared at the original one. HD95 is in pixels of the scale, in mm for volumes. Several
labels are averaged case by case, then over cases, and reported one by one. Preprocessing, network, inferer and
postprocessing are the objects of the bundle's configs. An image whose label is empty has no overlap scores: it is
counted by ``false_positive`` (any pixel predicted) and ``predicted_percent``. An image whose prediction alone is empty
has Dice, IoU and recall 0 and no precision and HD95.

Writes ``<section>_cases.csv`` and ``scores.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.metrics import compute_hausdorff_distance
from monai.transforms import Compose, Orientationd, Resized, Spacingd
from scipy.stats import bootstrap
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file

METRICS = ("dice", "iou", "precision", "recall", "hd95")
EMPTY_LABEL_METRICS = ("false_positive", "predicted_percent")
REGRIDDING = (Resized, Orientationd, Spacingd)
RESAMPLES = 9999
Row = dict[str, Any]


def score_masks(pred: torch.Tensor, label: torch.Tensor, spacing: Sequence[float] | None = None) -> dict[str, float]:
    """Compares two binary masks of one size; see the module's text for empty ones.

    Args:
        spacing: mm along the axes, for HD95; without it HD95 is in pixels.

    Shape:
        - pred, label: (rows, columns), in either order of the axes, or (x, y, z).
    """
    hits, predicted, true = (int(mask.sum()) for mask in (pred & label, pred, label))
    if not true:
        return {"false_positive": float(predicted > 0), "predicted_percent": 100 * predicted / pred.numel()}
    scores = {"dice": 2 * hits / (predicted + true), "iou": hits / (predicted + true - hits), "recall": hits / true}
    if predicted:
        scores["precision"] = hits / predicted
        distance = compute_hausdorff_distance(
            pred[None, None], label[None, None], include_background=True, percentile=95, spacing=spacing
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
        self.labels: dict[int, str] = runner.labels
        self.settings: dict[str, Any] = runner.settings
        self.segmenter = runner.segmenter
        self.to_label_map = Compose(train.get_parsed_content("to_label_map"))
        label_transforms = train.get_parsed_content("label_transforms")
        self.network_label = Compose(label_transforms)
        self.original_label = Compose([t for t in label_transforms if not isinstance(t, REGRIDDING)])

    @staticmethod
    def _parser(bundle: Path, name: str, overrides: dict[str, Any]) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / f"{name}.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        parser.update({"bundle_root": bundle, **overrides})
        return parser

    def compare(self, item: dict[str, Any]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Returns scale -> predicted and true label map of one case. Volumes have the scale ``original`` alone."""
        (result,) = self.segmenter.infer([self.segmenter.reader.read([Path(item["image"])])])
        pairs = {}
        if self.segmenter.spatial_dims == 2:
            at_network = self.to_label_map({"pred": result["pred"]})["pred"][0]
            case = {"image": result["image"], "label": item["label"]}  # the label is cropped as the image was
            pairs["network"] = (at_network, self.network_label(case)["label"][0])
        original = self.original_label({"label": item["label"]})["label"][0]
        return pairs | {"original": (torch.as_tensor(self.segmenter.make_label_map(result)), original)}

    def score(self, item: dict[str, Any]) -> list[Row]:
        """Returns a row a scale and label of one case."""
        pairs = self.compare(item)
        truth = pairs["original"][1]
        volume = self.segmenter.spatial_dims == 3
        spacing = [float(side) for side in truth.pixdim] if volume else None  # type: ignore[attr-defined]
        return [
            {"scale": scale, "label": name, **score_masks(pred == index, label == index, spacing)}
            for scale, (pred, label) in pairs.items()
            for index, name in self.labels.items()
        ]


def resolve(item: dict[str, Any], root: Path) -> dict[str, Any]:
    """Returns a datalist's item with whole paths."""
    return {"image": str(root / item["image"]), "label": [str(root / mask) for mask in item["label"]]}


def score_section(scorer: Scorer, items: list[dict[str, Any]], root: Path) -> list[Row]:
    """Returns one row per case, scale and label."""
    rows = []
    for item in tqdm(items, unit="case"):
        for scores in scorer.score(resolve(item, root)):
            rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in scores.items()}
            rows.append({"image": item["image"], **rounded})
    return rows


def summarise_rows(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Returns scale -> metric -> summary, for the metrics that any row has.

    With several labels, a case counts with the mean over those that have the metric, and ``labels`` has each alone.
    """
    names = sorted({row["label"] for row in rows})
    summary: dict[str, dict[str, Any]] = {}
    for scale in sorted({row["scale"] for row in rows}):
        at_scale = [row for row in rows if row["scale"] == scale]
        summary[scale] = _summarise_metrics(at_scale)
        if len(names) > 1:
            of_label = {name: [row for row in at_scale if row["label"] == name] for name in names}
            summary[scale]["labels"] = {name: _summarise_metrics(of_label[name]) for name in names}
    return summary


def _summarise_metrics(rows: list[Row]) -> dict[str, Any]:
    summaries = {}
    for metric in (*METRICS, *EMPTY_LABEL_METRICS):
        cases: dict[str, list[float]] = {}
        for row in rows:
            if metric in row:
                cases.setdefault(row["image"], []).append(row[metric])
        if cases:
            summaries[metric] = summarise([float(np.mean(values)) for values in cases.values()])
    return summaries


def read_rows(path: Path) -> list[Row]:
    """Reads rows that this script wrote."""
    numbers = (*METRICS, *EMPTY_LABEL_METRICS)
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) if name in numbers else value for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def compare_rows(rows: list[Row], earlier: list[Row]) -> dict[str, dict[str, Any]]:
    """Returns scale -> metric -> summary of each case's gain over the earlier rows of the same cases.

    Raises:
        ValueError: the earlier rows are of other cases.
    """
    before = {(row["image"], row["scale"], row["label"]): row for row in earlier}
    if before.keys() != {(row["image"], row["scale"], row["label"]) for row in rows}:
        raise ValueError("the earlier scores are of other cases; score the same datalist and section")
    gains = []
    for row in rows:
        old = before[row["image"], row["scale"], row["label"]]
        names = [name for name in ("dice", "iou", *EMPTY_LABEL_METRICS) if name in row]
        gains.append({**row, **{name: row[name] - old[name] for name in names}})
    return {
        scale: {name: values for name, values in summary.items() if name in ("dice", "iou", *EMPTY_LABEL_METRICS)}
        for scale, summary in summarise_rows(gains).items()
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
    parser.add_argument("--min-peak", type=float, help="default: the bundle's")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="default: the bundle's")
    parser.add_argument("--tta", action="store_true", help="also average over mirrored images")
    parser.add_argument("--against", type=Path, help="folder of earlier scores: adds the gain over them")
    parser.add_argument("--output", type=Path, required=True, help="folder for scores.json and *_cases.csv")
    arguments = parser.parse_args()

    given = {
        "weights": arguments.weights,
        "threshold": arguments.threshold,
        "min_peak": arguments.min_peak,
        "image_size": arguments.image_size,
        "tta": arguments.tta or None,
    }
    scorer = Scorer(arguments.bundle, {name: value for name, value in given.items() if value is not None})
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    duplicates = {item["image"] for item in datalist.get("duplicates", [])}
    arguments.output.mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = {
        "weights_sha256": hash_file(scorer.weights),
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
        if arguments.against is not None:
            earlier = read_rows(arguments.against / f"{section}_cases.csv")
            scores.setdefault("gain", {})[section] = compare_rows(rows, earlier)
        columns = [
            "image",
            "scale",
            "label",
            *(m for m in (*METRICS, *EMPTY_LABEL_METRICS) if any(m in row for row in rows)),
        ]
        with (arguments.output / f"{section}_cases.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(rows)
        print(section, json.dumps(scores["sections"][section], indent=1))
    (arguments.output / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
