"""What a training leaves in its folder, and when its weights become those of the bundle."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_dice
from torch import nn

from mobileutr_monai.core.atomic import hash_file, write_atomic, write_text
from mobileutr_monai.core.model_settings import compare_settings, settings_path, write_settings
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.handlers.contact_sheet import CaseResult, draw_contact_sheet, make_tile
from mobileutr_monai.handlers.curve import draw_curve
from mobileutr_monai.handlers.distributed import is_main_process
from mobileutr_monai.handlers.early_stop import read_scores

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)

FEW_CASES = 10
"""Validation cases under which a comparison of weights is called weak."""

INSTALL = ("never", "better", "always")
_PACKAGES = ("mobileutr-monai", "monai", "torch", "numpy", "pytorch-ignite")


class RunFolder:
    """Records what a training was and what it gave, and installs its weights where that is asked for.

    At the start ``run.json``: settings and environment. At the end, next to the ``model.pt`` of ``TrainingCheckpoint``:
    ``model.json``, the settings with the score; ``curve.png``; and, where the best weights are validated once more,
    ``cases.csv`` with the Dice of each case and ``worst_cases.png``. Attach it behind the checkpoint. With several
    processes nothing is validated again and nothing installed.

    Args:
        output_dir: folder of the run.
        ckpt_dir: folder of the run's ``model.pt``.
        settings: config id -> value that the weights need, kept next to them.
        model: what ``evaluator`` validates; holds the best weights afterwards.
        evaluator: engine that computes ``metric``; its output has one-hot ``pred`` and ``label``.
        metric: name of a metric, higher is better.
        install_dir: folder of the bundle's ``model.pt``.
        install: ``"never"``; ``"better"``: when there are no weights, or when theirs on the same list is not higher;
            ``"always"``.
        worst_cases: how many to draw; 0 for none.
        include_background: whether the first channel of ``pred`` and ``label`` is a label.
        labels: names of the labels 1, 2 ... for the legend of ``worst_cases.png``.
    """

    def __init__(
        self,
        output_dir: str | Path,
        ckpt_dir: str | Path,
        settings: Mapping[str, Any],
        model: nn.Module,
        evaluator: Any,
        metric: str,
        install_dir: str | Path,
        install: str = "never",
        worst_cases: int = 0,
        include_background: bool = True,
        labels: Sequence[str] = (),
    ) -> None:
        if install not in INSTALL:
            raise ValueError(f"install must be one of {', '.join(INSTALL)}, got {install!r}")
        self.output_dir, self.weights = Path(output_dir), Path(ckpt_dir) / "model.pt"
        self.settings, self.model, self.evaluator, self.metric = dict(settings), model, evaluator, metric
        self.installed, self.install = Path(install_dir) / "model.pt", install
        self.worst_cases, self.include_background, self.labels = worst_cases, include_background, list(labels)

    def attach(self, engine: Engine) -> None:
        if is_main_process():
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        content = {
            "settings": self.settings,
            "max_epochs": engine.state.max_epochs,
            "steps_per_epoch": engine.state.epoch_length,
            "device": str(getattr(engine.state, "device", "")),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "threads": torch.get_num_threads(),
            "versions": {name: _find_version(name) for name in _PACKAGES},
        }
        write_text(self.output_dir / "run.json", json.dumps(content, indent=1, default=str) + "\n")

    def _finish(self, engine: Engine) -> None:
        log = self.output_dir / "training_log.csv"
        scores = read_scores(log, self.metric)
        if log.is_file():
            draw_curve(log, self.metric, self.output_dir / "curve.png")
        if not scores or not self.weights.is_file():
            return  # the checkpoint has said so
        epoch = max(scores, key=lambda e: (scores[e], -e))
        facts = {"metric": self.metric, "score": scores[epoch], "epoch": epoch, "epochs": engine.state.epoch}
        write_settings(self.weights, self.settings, **facts)
        if not scores[epoch]:
            logger.warning(
                "%s is 0 in every epoch: the network finds nothing; train longer, check the masks and mask_coding with "
                "mobileutr check, and lower the learning rate if the loss rises",
                self.metric,
            )
        if torch.distributed.is_initialized() or (self.install == "never" and not self.worst_cases):
            return
        score, cases = self._validate(self.weights, engine.state.epoch)
        self._write_cases(cases)
        self._install(score, engine.state.epoch, sum(not math.isnan(case.dice) for case in cases))

    def _validate(self, weights: Path, epoch: int, draw: bool = True) -> tuple[float, list[CaseResult]]:
        """Returns the score of weights on the validation cases, and what came of each case."""
        self.model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        cases: list[CaseResult] = []
        names = _name_cases(self.evaluator)

        def collect(engine: Engine) -> None:
            items: Any = engine.state.output
            for item in items:
                dice = compute_dice(item["pred"][None], item["label"][None], include_background=self.include_background)
                name = names[len(cases)] if len(cases) < len(names) else str(len(cases))
                label, pred = (_label_map(item[key], self.include_background) for key in ("label", "pred"))
                values = dice[~dice.isnan()]
                tile = make_tile(_to_array(item["image"]), label, pred, several=len(dice[0]) > 1)
                cases.append(CaseResult(name, float(values.mean()) if len(values) else math.nan, tile))

        with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, collect) if draw else nullcontext():
            self.evaluator.run(epoch)
        return float(self.evaluator.state.metrics[self.metric]), cases

    def _write_cases(self, cases: list[CaseResult]) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["case", "dice"])
        writer.writerows([case.name, "" if math.isnan(case.dice) else f"{case.dice:.5f}"] for case in cases)
        write_text(self.output_dir / "cases.csv", text.getvalue())
        known = sorted((case for case in cases if not math.isnan(case.dice)), key=lambda case: case.dice)
        if self.worst_cases and known:
            draw_contact_sheet(known[: self.worst_cases], self.output_dir / "worst_cases.png", self.labels)

    def _install(self, score: float, epoch: int, count: int) -> None:
        """Makes the run's weights those of the bundle, where that is asked for; ``count`` cases have a score."""
        if self.install == "never":
            return
        target = self.installed
        if target.is_file() and self.install == "better":
            kept = f"{target} stays as it is; --install replaces it by {self.weights}"
            try:
                compare_settings(target, self.settings)
                before, _ = self._validate(target, epoch, draw=False)
            except (ValueError, RuntimeError) as error:
                logger.warning("the weights there cannot be compared (%s): %s", str(error).splitlines()[0], kept)
                return
            finally:
                self.model.load_state_dict(torch.load(self.weights, map_location="cpu", weights_only=True))
            same = "case" if count == 1 else f"{count} cases"
            said = f"{self.metric} on the same {same}: {score:.4f} of this run, {before:.4f} of {target}"
            if score == before:
                said += "; they tie, and the later ones are taken"
            if count < FEW_CASES:
                said += f"; {pluralize(count, 'case')} can hardly tell weights apart"
            if not score >= before:
                logger.warning("%s: %s", said, kept)
                return
            logger.info("%s", said)
        elif not score and self.install == "better":
            logger.warning("%s is 0: %s is not written; the weights are in %s", self.metric, target, self.weights)
            return
        replace_weights(self.weights, target)
        logger.info("the bundle's weights, %s, are now those of this run (%s %.4f)", target, self.metric, score)


def replace_weights(source: Path, target: Path) -> None:
    """Copies weights and their settings; what was there before goes to ``previous/``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        kept = target.parent / "previous" / f"model_{hash_file(target)[:12]}.pt"
        kept.parent.mkdir(exist_ok=True)
        _copy(target, kept)
        if settings_path(target).is_file():
            _copy(settings_path(target), settings_path(kept))
        logger.info("the weights that were in %s are now in %s", target, kept)
    _copy(settings_path(source), settings_path(target))
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    write_atomic(target, lambda file: file.write(source.read_bytes()))


def _name_cases(evaluator: Engine) -> list[str]:
    """Returns the names of the cases in the order of the validation, as far as its data set tells them."""
    dataset = getattr(getattr(evaluator, "data_loader", None), "dataset", None)
    items = getattr(dataset, "data", None) or []
    images = [item.get("image") if isinstance(item, dict) else None for item in items]
    first = [image[0] if isinstance(image, (list, tuple)) else image for image in images]
    return [Path(path).name if isinstance(path, (str, Path)) else str(i) for i, path in enumerate(first)]


def _label_map(channels: torch.Tensor, include_background: bool) -> np.ndarray:
    """Returns the number of the label of each pixel, 0 for background, from one channel per label."""
    values = _to_array(channels)
    labels = values if include_background else values[1:]
    found: np.ndarray = np.where(labels.max(axis=0) > 0, labels.argmax(axis=0) + 1, 0)
    return found


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = torch.as_tensor(tensor).detach().cpu().float().numpy()
    return array


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
