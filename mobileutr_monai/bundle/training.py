"""Training and evaluating a bundle, with the same objects of its config as ``python -m monai.bundle run``."""

from __future__ import annotations

import csv
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobileutr_monai.bundle.running import find_cause, find_weights, open_workflow
from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.model_settings import settings_path
from mobileutr_monai.core.text import pluralize

__all__ = ["evaluate_bundle", "format_scores", "read_case_scores", "summarise", "train_bundle"]

RESAMPLES = 2000
FALSE_POSITIVE = "val_false_positive"
_ERROR_FILE = "error.txt"


def train_bundle(
    bundle: Path, data: Path, output: Path, overrides: Mapping[str, Any], overlays: Sequence[str] = ()
) -> Path:
    """Trains a bundle into a folder of the run; returns the weights of the best epoch.

    Prints first what it trains on. Configs are code: only train bundles that you trust.

    Args:
        overrides: config id -> value; paths as ``Path``.
        overlays: names of configs of the bundle, or paths, that are merged over ``train.json``.

    Raises:
        FileExistsError: the folder has another run, and ``resume`` is not set.
        ValueError: something given cannot be used, or the training failed; one line that says why.
    """
    if (output / "run.json").is_file() and not overrides.get("resume"):
        raise FileExistsError(f"{str(output)!r} has a run already; choose another --output, or give --resume")
    values = {"dataset_dir": data, "output_dir": output, **overrides}
    with _one_line_errors(output):
        workflow = open_workflow(bundle, ("train", *overlays), values)
        workflow.initialize()
        _print_plan(workflow.parser, output)
        with _shown_log():
            workflow.run()
        workflow.finalize()
    weights = output / "model.pt"
    if settings_path(weights).is_file():
        facts = json.loads(settings_path(weights).read_text(encoding="utf-8"))
        print(f"{weights}: {facts['metric']} {facts['score']:.4f}, best of {pluralize(facts['epochs'], 'epoch')}")
    return weights


def evaluate_bundle(bundle: Path, data: Path, output: Path, overrides: Mapping[str, Any]) -> dict[str, float]:
    """Scores weights on a section of a datalist, with the settings kept next to them; returns metric -> mean.

    Raises:
        ValueError: something given cannot be used, or the evaluation failed; one line that says why.
    """
    weights = find_weights(bundle, overrides)
    if not weights.is_file():
        raise FileNotFoundError(f"no weights at {weights}; train the bundle, or give --weights")
    values = {"dataset_dir": data, "output_dir": output, **overrides}
    with _one_line_errors(output):
        workflow = open_workflow(bundle, ("train", "evaluate"), values, settings_of=weights)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    lines = (output / "metrics.csv").read_text(encoding="utf-8").splitlines()
    return {name: float(value) for name, value in (line.split(",")[:2] for line in lines)}


def read_case_scores(path: Path) -> list[float]:
    """Returns the scores of cases, the last column of a table; cases without one are left out."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [float(row[-1]) for row in rows if row[-1] and not np.isnan(float(row[-1]))]


def format_scores(output: Path, metrics: Iterable[str], labels: Sequence[str]) -> str:
    """Returns a table of an evaluation, one row per metric and label, and a line per label on images that lack it.

    Args:
        output: folder of the evaluation, with ``NAME_raw.csv`` of each metric: one row per image, one column per label.
        labels: names of the labels 1, 2 ...
    """
    tables = {name: _read_scores(output / f"{name}_raw.csv") for name in metrics}
    width = max(map(len, ("metric", *tables))) + 2
    wide = max(map(len, ("label", *labels))) + 2
    lines = [f"{'metric':<{width}}{'label':<{wide}}{'mean':>8}  {'95 % interval':<19}{'images':>6}"]
    for name, table in tables.items():
        for label, scores in zip(labels, table.T, strict=False):
            known = scores[~np.isnan(scores)]
            if len(known):
                mean, low, high = summarise(known.tolist())
                lines.append(
                    f"{name:<{width}}{label:<{wide}}{mean:>8.4f}  {f'{low:.4f} - {high:.4f}':<19}{len(known):>6}"
                )
    predicted = tables.get(FALSE_POSITIVE)
    if predicted is not None:
        for label, found in zip(labels, predicted.T, strict=False):
            lacking = found[~np.isnan(found)]
            if len(lacking):
                lines.append(
                    f"{label}: {len(lacking)} of {pluralize(len(found), 'image')} lack it and count only in "
                    f"{FALSE_POSITIVE} and val_precision; it is predicted in {int(lacking.sum())} of them"
                )
    return "\n".join(lines)


def _read_scores(path: Path) -> np.ndarray:
    """Returns the scores of a metric, one row per image and one column per label; NaN where there is none."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = [index for index, name in enumerate(header) if name.startswith("class")]
    values = [[float(row[index] or "nan") for index in columns] for row in rows]
    return np.asarray(values, float).reshape(len(rows), len(columns))


def summarise(scores: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean over cases and its 95 % bootstrap interval."""
    if not scores:
        return (float("nan"),) * 3
    values = np.asarray(scores)
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def _print_plan(parser: Any, output: Path) -> None:
    """Prints what a training will use, before images are read."""
    cases, validated = (len(parser.get_parsed_content(f"{name}#dataset#data")) for name in ("train", "validate"))
    batch = int(parser.get_parsed_content("batch_size"))
    settings = parser.get_parsed_content("model_settings")
    drop_last = parser.get("train#dataloader").get("drop_last", False) is not False
    steps = max(1, cases // batch) if drop_last else -(-cases // batch)
    epochs = parser.get_parsed_content("train#trainer#max_epochs")
    print(f"device {parser.get_parsed_content('device')}, precision {parser.get_parsed_content('precision')}")
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    print(f"{pluralize(cases, 'case')} to train on, {validated} to validate on")
    print(f"{pluralize(epochs, 'epoch')} of {pluralize(steps, 'step')}, batches of {batch}")
    start = parser.get_parsed_content("pretrained")
    print(f"weights: {f'those of {start}' if start else 'random'} to start with")
    print(f"output: {output}", flush=True)


class _Lines(logging.Handler):
    """Prints lines above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)


@contextmanager
def _shown_log() -> Iterator[None]:
    """Prints what this package logs."""
    logger, handler = logging.getLogger("mobileutr_monai"), _Lines()
    level, passed_on = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = passed_on


@contextmanager
def _one_line_errors(output: Path) -> Iterator[None]:
    """Makes one line of what MONAI and ignite raise and log, and keeps the traceback in the run's folder."""
    quiet = [logging.getLogger(name) for name in ("ignite", "monai")]
    before = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        first = find_cause(error)
        line = " ".join(str(first).split()) or type(first).__name__
        if isinstance(first, (ValueError, FileNotFoundError, FileExistsError)):
            raise type(first)(line) from error
        where = ""
        if output.is_dir():
            write_text(output / _ERROR_FILE, traceback.format_exc())
            where = f"; see {output / _ERROR_FILE}"
        raise ValueError(f"{type(first).__name__}: {line}{where}") from error
    finally:
        for logger, level in zip(quiet, before, strict=True):
            logger.setLevel(level)
