"""Fits a bundle's confidence and the thresholds of its flags, and reports what they are worth on another list.

Every number is chosen on ``--section`` (the selection list) and ``--training`` (labels only); ``--report`` is only
measured. Two rules were settled with reported numbers in view: which pieces are specks, and which statistics tell
foreign images. The unit is a label of a case, at its own size. An empty label has Dice 1 if nothing was predicted and 0
otherwise. A label of which nothing was predicted has the flag "nothing found" and no confidence: the calibration is
over the others, the flags are over all. ``calibration_statistics.py`` says how both are chosen.

Writes ``calibration.json`` and ``calibration_cases.csv`` in the bundle's ``results``, ``docs/reliability.png``, and the
id ``calibration`` in ``configs/inference.json``, where ``scripts/render_bundles.py`` puts it too.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration_statistics import (
    BINS,
    CHOSEN,
    FAILURE,
    Case,
    describe_domain,
    describe_fit,
    describe_report,
    draw_reliability,
    fit_domain,
    fit_label,
)
from monai.bundle import ConfigParser
from score_bundle import Scorer, resolve
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.inference.domain import TrainingDomain, describe_image, name_statistics
from mobileutr_monai.inference.measure import Measurement, measure_labels
from mobileutr_monai.inference.quality import QualityCheck

Items = list[dict[str, Any]]
MOST_FOREIGN = 200
"""Images of a foreign folder that are measured, evenly spread over their names."""


class Bundle:
    """A bundle's objects on cases of a datalist."""

    def __init__(self, folder: Path) -> None:
        self.scorer = Scorer(folder, {})
        self.sha256 = hash_file(self.scorer.weights)
        parser = ConfigParser()
        parser.read_config(str(folder / "configs" / "inference.json"))
        parser["bundle_root"] = folder
        self.settings: dict[str, Any] = parser.get_parsed_content("settings")
        self.size_unit = "percent" if self.scorer.segmenter.spatial_dims == 2 else "ml"

    def measure_label(self, item: dict[str, Any]) -> list[Measurement]:
        """Returns the measurements of the true label map of a case."""
        truth = self.scorer.original_label({"label": item["label"]})["label"][0]
        return measure_labels(np.asarray(truth), self.scorer.labels, self._spacing(truth))

    def run(self, item: dict[str, Any]) -> list[Case]:
        """Returns one row per label: its Dice, the measurement of the prediction and the network's own estimates."""
        segmenter = self.scorer.segmenter
        (result,) = segmenter.infer([segmenter.reader.read([Path(item["image"])])])
        pred = segmenter.make_label_map(result)
        truth = self.scorer.original_label({"label": item["label"]})["label"][0]
        measurements = measure_labels(pred, self.scorer.labels, self._spacing(truth))
        chosen, others = segmenter.measure_confidence(result), self._estimate(result)
        statistics = describe_image(result["image"])
        # Nothing is asked of a label that min_peak left out.
        return [
            {
                "label": index,
                "statistics": statistics,
                "distance": None,
                "dice": measure_dice(pred == index, np.asarray(truth) == index),
                "measurement": measurement,
                "estimates": {CHOSEN: chosen[index], **others[index]} if index in others and measurement.pixels else {},
            }
            for index, measurement in zip(self.scorer.labels, measurements, strict=True)
        ]

    def describe(self, path: Path) -> np.ndarray:
        """Returns the statistics of an image as the network sees it."""
        return describe_image(self.scorer.segmenter.reader.read([path])["image"])

    def _spacing(self, truth: torch.Tensor) -> list[float] | None:
        return [float(side) for side in truth.pixdim] if self.size_unit == "ml" else None  # type: ignore[attr-defined]

    def _estimate(self, result: dict[str, Any]) -> dict[int, dict[str, float]]:
        """Returns label index -> the estimates that were not chosen."""
        segmenter = self.scorer.segmenter
        probabilities = np.asarray(segmenter.to_probabilities({"pred": result["pred"]})["pred"], dtype=np.float64)
        regions = np.asarray(self.scorer.to_label_map({"pred": result["pred"]})["pred"][0])
        channels = {1: probabilities[0]} if len(probabilities) == 1 else dict(enumerate(probabilities))
        return {
            index: estimate_otherwise(channels[index], regions == index)
            for index in self.scorer.labels
            if (regions == index).any()
        }


def measure_dice(pred: np.ndarray, label: np.ndarray) -> float:
    """Returns the Dice of two masks, 1 where both are empty."""
    total = int(pred.sum()) + int(label.sum())
    return 2 * int((pred & label).sum()) / total if total else 1.0


def estimate_otherwise(probability: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """Returns the estimates that were tried besides the chosen one, of a label that has pixels.

    Shape:
        - probability, region: (...), the same.
    """
    uncertain = np.clip(probability, 1e-6, 1 - 1e-6)
    entropy = -(uncertain * np.log2(uncertain) + (1 - uncertain) * np.log2(1 - uncertain))
    inner, outer = ((probability >= level).sum() for level in (0.9, 0.1))
    return {
        "mean probability": float(probability[region].mean()),
        "soft Dice": float(2 * probability[region].sum() / (probability.sum() + region.sum())),
        "Dice of the areas above 0.1 and 0.9": float(2 * inner / (inner + outer)),
        "1 - entropy (bits) per pixel of the area": float(1 - entropy.sum() / region.sum()),
    }


def write_cases(cases: list[Case], labels: dict[int, str], output: Path) -> None:
    """Writes one row per label per case."""
    columns = ["section", "image", "label", "dice", "raw", "confidence", "flags", "components", "percent", "volume_ml"]
    columns.append("distance")
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for case in cases:
            found, numbers = case["measurement"], (case["dice"], case["estimates"].get(CHOSEN), case["confidence"])
            rounded = ["" if value is None else round(value, 5) for value in numbers]
            words = "; ".join(case["flags"])
            sizes = (found.components, found.percent, found.volume_ml, round(case["distance"], 2))
            writer.writerow([case["section"], case["image"], labels[case["label"]], *rounded, words, *sizes])


def main() -> None:
    """Fits, measures, and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--section", nargs="+", default=["validation"], help="selection list (default: validation)")
    parser.add_argument("--training", nargs="+", default=["training"], help="trained on (default: training)")
    parser.add_argument("--report", nargs="*", default=["testing"], help="measured on (default: testing)")
    parser.add_argument(
        "--foreign", nargs="*", default=[], metavar="NAME=DIR", help="images that the bundle is not for; only measured"
    )
    arguments = parser.parse_args()
    foreign = dict(parse_foreign(text) for text in arguments.foreign)

    bundle = Bundle(arguments.bundle)
    labels = bundle.scorer.labels
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    training = select(datalist, arguments.training)
    sizes = measure_sizes(bundle, training, arguments.dataset_dir)
    selection = run_all(bundle, datalist, arguments.section, arguments.dataset_dir)
    by_label = {i: [case for case in selection if case["label"] == i] for i in labels}
    for i, name in labels.items():
        if not sizes[i] or not any(case["estimates"] and case["dice"] >= FAILURE for case in by_label[i]):
            raise SystemExit(f"error: no {name} in the training labels, or none found well on the selection list")
    fitted = {i: fit_label(by_label[i], sizes[i], bundle.size_unit) for i in labels}
    first = next(iter(labels))
    known = [bundle.describe(arguments.dataset_dir / item["image"]) for item in tqdm(training, unit="image")]
    domain = fit_domain(
        np.array(known),
        np.array([case["statistics"] for case in selection if case["label"] == first]),
        name_statistics(bundle.scorer.segmenter.network.in_channels, bundle.scorer.segmenter.spatial_dims),
    )
    calibration = {
        "weights_sha256": bundle.sha256,
        "settings": bundle.settings,
        "labels": {str(i): values for i, values in fitted.items()},
        "domain": domain,
    }
    quality = QualityCheck(calibration, bundle.settings)
    reported = run_all(bundle, datalist, arguments.report, arguments.dataset_dir)
    cases = [*selection, *reported]
    for case in cases:
        raw = case["estimates"].get(CHOSEN)
        case["distance"] = measure_distance(domain, case["statistics"])
        case["confidence"], case["flags"] = quality.assess(
            case["label"], raw, case["measurement"], distance=case["distance"]
        )
    images = {
        name: [c for c in cases if c["section"] == name and c["label"] == first]
        for name in (*arguments.section, *arguments.report)
    }
    limit = domain["max_distance"]

    names = {"selection": " + ".join(arguments.section), "report": " + ".join(arguments.report)}
    duplicates = {item["image"] for item in datalist.get("duplicates", [])}
    lists = {names["report"]: reported}
    if len(arguments.report) > 1:
        lists |= {name: [case for case in reported if case["section"] == name] for name in arguments.report}
    clean = [case for case in reported if case["image"] not in duplicates]
    if 0 < len(clean) < len(reported):
        lists[f"{names['report']} without near-duplicates of training cases"] = clean
    results = {
        "calibration": calibration,
        "datalist": arguments.datalist.name,
        "sections": names | {"training": " + ".join(arguments.training)},
        "training_labels": {labels[i]: len(values) for i, values in sizes.items()},
        "failure": f"Dice under {FAILURE}",
        "bins": f"{BINS} of equal count, by the confidence",
        "intervals": "95 %: percentile bootstrap over cases, seed 0; of precision and recall Wilson's",
        "device": str(bundle.scorer.segmenter.device),
        "precision": "float32",
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "fit": {labels[i]: describe_fit(by_label[i]) for i in labels},
        "selection": describe_report(selection),
        "report": {name: describe_report(rows) for name, rows in lists.items() if rows},
        "sets": {name: count_sets(datalist[name]) for name in (*arguments.section, *arguments.report)},
        "unlike": {
            name: describe_domain([case["distance"] for case in rows], limit) for name, rows in images.items() if rows
        },
        "foreign": {
            name: describe_domain([measure_distance(domain, bundle.describe(path)) for path in paths], limit)
            for name, paths in foreign.items()
        },
    }
    folder = arguments.bundle / "results"
    folder.mkdir(exist_ok=True)
    (folder / "calibration.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_cases(cases, labels, folder / "calibration_cases.csv")
    drawn = {f"{names['selection']} (fitted on)": results["selection"]}
    drawn |= {name: report for name, report in results["report"].items() if name == names["report"]}
    draw_reliability(drawn, arguments.bundle / "docs" / "reliability.png")
    config = arguments.bundle / "configs" / "inference.json"
    content = json.loads(config.read_text(encoding="utf-8")) | {"calibration": calibration}
    config.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    print(json.dumps({name: results[name] for name in ("calibration", "fit", "report")}, indent=1))
    print(f"wrote {folder / 'calibration.json'}, the picture docs/reliability.png, and the id calibration in {config}")


def measure_distance(domain: dict[str, Any], statistics: np.ndarray) -> float:
    """Returns the distance of an image's statistics from those of the training images."""
    return TrainingDomain(**domain).distance_of(statistics)


def parse_foreign(text: str) -> tuple[str, list[Path]]:
    """Returns the name and the files of a foreign folder."""
    name, _, folder = text.partition("=")
    paths = sorted(path for path in Path(folder).iterdir() if path.is_file()) if Path(folder).is_dir() else []
    if not name or not paths:
        raise SystemExit(f"error: --foreign {text}: give NAME=DIR, a folder of images")
    return name, paths[:: -(-len(paths) // MOST_FOREIGN)]


def count_sets(items: Items) -> dict[str, int]:
    """Returns how many of the items are of which data set, where they say it."""
    return dict(Counter(str(item["set"]) for item in items if "set" in item))


def select(datalist: dict[str, Items], sections: Sequence[str]) -> Items:
    """Returns the items of sections, each with the name of its section."""
    missing = [name for name in sections if name not in datalist]
    if missing:
        raise SystemExit(f"the datalist has no section {missing[0]!r}; it has {', '.join(datalist)}")
    return [item | {"section": name} for name in sections for item in datalist[name]]


def measure_sizes(bundle: Bundle, items: Items, root: Path) -> dict[int, list[float]]:
    """Returns the sizes of each label over the cases that have it."""
    sizes: dict[int, list[float]] = {index: [] for index in bundle.scorer.labels}
    for item in tqdm(items, unit="label map"):
        measurements = bundle.measure_label(resolve(item, root))
        for index, found in zip(sizes, measurements, strict=True):
            size = found.percent if bundle.size_unit == "percent" else found.volume_ml
            if found.pixels and size is not None:
                sizes[index].append(size)
    return sizes


def run_all(bundle: Bundle, datalist: dict[str, Items], sections: Sequence[str], root: Path) -> list[Case]:
    """Returns the rows of all cases of sections."""
    facts = [(item, bundle.run(resolve(item, root))) for item in tqdm(select(datalist, sections), unit="case")]
    return [row | {"section": item["section"], "image": item["image"]} for item, rows in facts for row in rows]


if __name__ == "__main__":
    main()
