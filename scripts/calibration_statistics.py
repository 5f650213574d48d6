"""How ``calibrate_bundle.py`` chooses a confidence and flags, and what it says of them.

The confidence is the Dice to expect: a line through (0, 0) and through the mean Dice of groups of equal count by the
network's own estimate (``Segmenter.measure_confidence``), made to rise by isotonic regression. The flags:

- low confidence: under the threshold with the best F1 for "Dice under 0.6" on the selection list, with confidences
  fitted without the case; 0.6 where fewer than 5 results there are that bad;
- many pieces: more than 95 % of the selection list's results with a Dice of 0.6 or more have. Components under a share
  of the label are specks and do not count: of the shares in ``SPECKS`` the one with the best F1 for "Dice under 0.6" on
  the selection list, of equal ones the largest; 1 % where the flag finds none;
- unusual size: outside of the middle 99 % of the training labels;
- unlike the training images: a Mahalanobis distance, of statistics of the image that the network sees, that 1 % of the
  selection list's images exceed. Mean and covariance are those of the training images, the covariance shrunk by a tenth
  towards that of independent statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from scipy.optimize import isotonic_regression
from scipy.stats import binomtest, spearmanr
from score_bundle import summarise

from mobileutr_monai.inference.domain import TrainingDomain
from mobileutr_monai.inference.quality import Flag

FAILURE = 0.6
"""A result with a lower Dice is a failure."""

CASES_A_GROUP, MOST_GROUPS = 10, 5
FEWEST_FAILURES = 5
PIECES_SHARE = 0.95
SPECKS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Percent of the label under which a component may be a speck."""
DEFAULT_SPECK = 1.0
FALSE_ALARMS = 0.01
SHRINKAGE = 0.1
LEAST_SPREAD = 0.1
"""A statistic is taken to have at least this standard deviation, so that no image is unlike by a trifle."""
SIZE_QUANTILES = (0.005, 0.995)
BINS = 5
"""Of the calibration error and the diagram: equal counts, by the confidence."""

FOLDS = 10
DIGITS = 4
ANY_FLAG = "any flag"
CHOSEN = "Dice of the areas above 0.3 and 0.7"
"""What ``Segmenter.measure_confidence`` gives."""

Case = dict[str, Any]


def fit_line(raw: np.ndarray, dice: np.ndarray) -> tuple[list[float], list[float]]:
    """Returns the knots of a rising line from the estimate to the Dice to expect; see the module's text."""
    groups = np.array_split(np.argsort(raw, kind="stable"), min(MOST_GROUPS, max(1, len(raw) // CASES_A_GROUP)))
    means = isotonic_regression([dice[group].mean() for group in groups], weights=[len(group) for group in groups]).x
    knots = {0.0: 0.0}
    knots |= {round(float(raw[g].mean()), DIGITS): round(float(m), DIGITS) for g, m in zip(groups, means, strict=True)}
    return list(knots), list(knots.values())


def predict_apart(raw: np.ndarray, dice: np.ndarray) -> np.ndarray:
    """Returns the confidence of each case from a fit without it and the others of its fold."""
    confidence = np.empty(len(raw))
    order = np.random.default_rng(0).permutation(len(raw))
    for fold in np.array_split(order, min(FOLDS, len(raw))):
        rest = np.setdiff1d(order, fold)
        confidence[fold] = np.interp(raw[fold], *fit_line(raw[rest], dice[rest]))
    return confidence


def split_bins(confidence: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of the cases of each bin."""
    return np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(confidence)))


def measure_error(confidence: np.ndarray, dice: np.ndarray) -> float:
    """Returns the expected calibration error: the bins' distances of mean confidence and mean Dice, by their counts."""
    gaps = [len(b) * abs(float(confidence[b].mean() - dice[b].mean())) for b in split_bins(confidence)]
    return round(sum(gaps) / len(dice), DIGITS)


def choose_threshold(confidence: np.ndarray, dice: np.ndarray) -> float:
    """Returns the confidence under which a result is flagged; see the module's text."""
    failed = dice < FAILURE
    if failed.sum() < FEWEST_FAILURES:
        return FAILURE
    levels = np.unique(confidence)
    between = (levels[1:] + levels[:-1]) / 2
    scores = [2 * (failed & (confidence < t)).sum() / (failed.sum() + (confidence < t).sum()) for t in between]
    return round(float(between[int(np.argmax(scores))]), 3)


def arrays(cases: Iterable[Case], estimate: str = CHOSEN) -> tuple[np.ndarray, np.ndarray]:
    """Returns an estimate and the Dice of the cases with a prediction."""
    pairs = [(case["estimates"][estimate], case["dice"]) for case in cases if case["estimates"]]
    return np.array([raw for raw, _ in pairs]), np.array([dice for _, dice in pairs])


def fit_label(cases: list[Case], sizes: Sequence[float], unit: str) -> dict[str, Any]:
    """Returns what ``LabelQuality`` takes, from the selection list's cases and the training labels' sizes."""
    raw, dice = arrays(cases)
    knots_raw, knots_dice = fit_line(raw, dice)
    return {
        "raw": knots_raw,
        "dice": knots_dice,
        "min_confidence": choose_threshold(predict_apart(raw, dice), dice),
        "max_components": limit_components(cases),
        "size_range": [round(float(np.quantile(sizes, q)), 3) for q in SIZE_QUANTILES],
        "size_unit": unit,
        "min_component_percent": choose_speck(cases),
    }


def choose_speck(cases: list[Case]) -> float:
    """Returns the percent of the label under which a component is a speck; see the module's text."""
    most = limit_components(cases)
    failed = np.array([case["dice"] < FAILURE for case in cases])
    scores = []
    for speck in SPECKS:
        raised = np.array([count_components(case, speck) > most for case in cases])
        scores.append(2 * (failed & raised).sum() / max(1, failed.sum() + raised.sum()))
    best, speck = max(zip(scores, SPECKS, strict=True))
    return speck if best else DEFAULT_SPECK


def limit_components(cases: list[Case]) -> int:
    """Returns how many components most good results have at most, specks included."""
    good = [c["measurement"].components for c in cases if c["measurement"].pixels and c["dice"] >= FAILURE]
    return int(np.quantile(good, PIECES_SHARE, method="higher"))


def count_components(case: Case, speck: float) -> int:
    """Returns how many components a result has that are no specks."""
    measurement = case["measurement"]
    return sum(100 * pixels >= speck * measurement.pixels for pixels in measurement.component_pixels)


def fit_domain(training: np.ndarray, selection: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Returns what ``TrainingDomain`` takes.

    Shape:
        - training, selection: (images, statistics).
    """
    mean, spread = training.mean(axis=0), np.maximum(training.std(axis=0), LEAST_SPREAD)
    covariance = np.cov((training - mean) / spread, rowvar=False)
    precision = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(len(mean))) / np.outer(spread, spread)
    domain: dict[str, Any] = {
        "statistics": names,
        "mean": [round(float(value), DIGITS) for value in mean],
        "precision": [" ".join(f"{value:.6g}" for value in row) for row in precision],
    }
    measure = TrainingDomain(**domain, max_distance=1.0).distance_of
    limit = np.quantile([measure(statistics) for statistics in selection], 1 - FALSE_ALARMS, method="higher")
    # Rounded up, so that the image with this distance is not beyond it.
    return domain | {"max_distance": math.ceil(float(limit) * 1000) / 1000}


def describe_domain(distances: Sequence[float], limit: float) -> dict[str, Any]:
    """Returns how many images are unlike the training images, with the share's 95 % Wilson interval."""
    raised = sum(distance > limit for distance in distances)
    interval = binomtest(raised, len(distances)).proportion_ci(method="wilson")
    return {
        "raised": raised,
        "mean": round(raised / len(distances), DIGITS),
        "n": len(distances),
        "interval": [round(interval.low, DIGITS), round(interval.high, DIGITS)],
        "median_distance": round(float(np.median(distances)), 2),
    }


def describe_fit(cases: list[Case]) -> dict[str, Any]:
    """Returns how well each estimate orders and predicts one label's Dice on the selection list."""
    estimates = {}
    for name in next(case["estimates"] for case in cases if case["estimates"]):
        raw, dice = arrays(cases, name)
        apart = predict_apart(raw, dice)
        estimates[name] = {
            "spearman": round(float(spearmanr(raw, dice).statistic), 3),
            "root_mean_square_error_cross_validated": round(float(np.sqrt(np.mean((apart - dice) ** 2))), DIGITS),
            "calibration_error_before": measure_error(raw, dice),
            "calibration_error_cross_validated": measure_error(apart, dice),
        }
    raw, dice = arrays(cases)
    return {
        "n": len(cases),
        "with_a_prediction": len(dice),
        "dice_under_0.6": int(sum(case["dice"] < FAILURE for case in cases)),
        "calibration_error_of_the_fit": measure_error(np.interp(raw, *fit_line(raw, dice)), dice),
        "estimates": estimates,
    }


def describe_report(cases: list[Case]) -> dict[str, Any]:
    """Returns calibration error, and precision and recall of the flags, of assessed cases."""
    found = [case for case in cases if case["confidence"] is not None]
    confidence, dice = np.array([[case["confidence"], case["dice"]] for case in found]).T
    failed = [case["dice"] < FAILURE for case in cases]
    flags: dict[str, Callable[[Case], bool]] = {ANY_FLAG: lambda case: bool(case["flags"])}
    for flag in Flag:
        if flag not in (Flag.JUMPS, Flag.OUTSIDE):  # of cines and of DICOM only
            flags[flag.value] = lambda case, value=flag.value: value in case["flags"]  # type: ignore[misc]
    return {
        "n": len(cases),
        "with_a_prediction": len(found),
        "dice_under_0.6": sum(failed),
        "spearman": round(float(spearmanr(confidence, dice).statistic), 3),
        "calibration_error_mean_probability": measure_error(*arrays(found, "mean probability")),
        "calibration_error_before": measure_error(*arrays(found)),
        "calibration_error": measure_error(confidence, dice),
        "confidence_minus_dice": summarise(list(confidence - dice)),
        "bins": [
            {
                "n": len(b),
                "confidence": round(float(confidence[b].mean()), DIGITS),
                "dice": summarise(list(dice[b])),
            }
            for b in split_bins(confidence)
        ],
        "flags": {
            name: describe_flag([is_raised(case) for case in cases], failed) for name, is_raised in flags.items()
        },
    }


def describe_flag(raised: list[bool], failed: list[bool]) -> dict[str, Any]:
    """Returns precision and recall for failures, with counts and 95 % Wilson intervals; None where no case counts."""
    hits = sum(r and f for r, f in zip(raised, failed, strict=True))
    shares: dict[str, Any] = {"raised": sum(raised), "hits": hits}
    for name, total in (("precision", sum(raised)), ("recall", sum(failed))):
        shares[name] = None
        if total:
            interval = binomtest(hits, total).proportion_ci(method="wilson")
            bounds = [round(interval.low, DIGITS), round(interval.high, DIGITS)]
            shares[name] = {"mean": round(hits / total, DIGITS), "n": total, "interval": bounds}
    return shares


def draw_reliability(reports: dict[str, dict[str, Any]], output: Path) -> None:
    """Draws mean Dice over confidence, a point a bin with its count, of the selection list and of the reported one."""
    figure, panels = plt.subplots(1, len(reports), figsize=(4.2 * len(reports), 4), layout="constrained", squeeze=False)
    for axes, (name, report) in zip(panels[0], reports.items(), strict=True):
        bins = report["bins"]
        x, y = [b["confidence"] for b in bins], [b["dice"]["mean"] for b in bins]
        bounds = [b["dice"].get("interval", [b["dice"]["mean"]] * 2) for b in bins]
        bars = [[m - low for m, (low, _) in zip(y, bounds, strict=True)]]
        bars.append([high - m for m, (_, high) in zip(y, bounds, strict=True)])
        axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
        axes.errorbar(x, y, yerr=np.clip(bars, 0, None), fmt="o", capsize=3)
        for place, (b, *point) in enumerate(zip(bins, x, y, strict=True)):
            offset, side = ((-6, 4), "right") if place % 2 else ((6, -10), "left")
            axes.annotate(f"{b['n']}", point, xytext=offset, ha=side, textcoords="offset points", fontsize=8)
        axes.set(xlim=(0, 1.05), ylim=(0, 1.05), xlabel="confidence", ylabel="mean Dice", aspect="equal")
        axes.set_title(f"{name}\ncalibration error {report['calibration_error']:.3f}", fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(output, dpi=100)
    plt.close(figure)
