"""Checkpoints that survive a kill."""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from torch import nn

from mobileutr_monai.core.atomic import hash_file, write_atomic
from mobileutr_monai.handlers.distributed import is_main_process

__all__ = ["TrainingCheckpoint"]

logger = logging.getLogger(__name__)

AUTO = "auto"


class TrainingCheckpoint:
    """Saves after epochs what training needs to resume, keeps the best model, and installs it at the end.

    ``training/last.pt`` is the state, ``training/best.pt`` the model with the highest metric so far. When training has
    finished, the best model becomes ``model.pt``, atomically; what was there before is in ``previous/``, too. Files are
    written under another name first, so a kill never leaves half a one. (MONAI's ``CheckpointSaver`` writes in place,
    and forgets the best score when resumed.) Attach it behind the validation's handler.

    Args:
        ckpt_dir: folder of ``model.pt``.
        state: objects with ``state_dict`` to save and restore.
        model: what is kept when it is the best.
        evaluator: engine that computes ``metric``.
        metric: name of a metric, higher is better. Ties keep the earlier epoch.
        resume: continue from ``training/last.pt``; with ``auto``, only if it is there, so that the command that began a
            training is the one that resumes it, as ``torchrun --max-restarts`` and job queues need.
        interval: epochs between two saves; the last epoch is saved always.
        score_installed: score the weights of ``model.pt`` at the start, on the same cases; the log ends with both
            scores.
        only_better: likewise, and the best model is installed only if it is not worse.

    Raises:
        FileNotFoundError: at the start of training, when there is nothing to resume.
        ValueError: likewise, when the run to resume has another number of epochs.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        state: Mapping[str, Any],
        model: nn.Module,
        evaluator: Engine,
        metric: str,
        resume: bool | str = False,
        interval: int = 1,
        score_installed: bool = False,
        only_better: bool = False,
    ) -> None:
        if isinstance(ckpt_dir, str) and "::" in ckpt_dir:
            raise ValueError(
                f"ckpt_dir {ckpt_dir!r} contains '::', which monai.bundle run also makes of '#'; choose a path without "
                "either"
            )
        if isinstance(resume, str) and resume != AUTO:
            raise ValueError(f"resume must be True, False or {AUTO!r}, got {resume!r}")
        self.ckpt_dir = Path(ckpt_dir)
        self.last, self.best = self.ckpt_dir / "training" / "last.pt", self.ckpt_dir / "training" / "best.pt"
        self.state = dict(state)
        self.model = model
        self.evaluator = evaluator
        self.metric = metric
        self.resume = resume
        self.interval = interval
        self.score_installed = score_installed
        self.only_better = only_better
        self.earlier_score: float | None = None
        self.best_score = float("-inf")

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        if is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
            engine.add_event_handler(Events.COMPLETED, self._install_best)

    def _start(self, engine: Engine) -> None:
        if self.score_installed or self.only_better:
            self.earlier_score = self._score_installed()
        if self.last.is_file() if self.resume == AUTO else self.resume:
            self._restore(engine)
        elif is_main_process():
            self.best_score = float("-inf")  # a round of a federation starts the same objects again
            self.last.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.last, self.best):
                if path.is_file():  # an earlier run's: kept, but never taken for this one's
                    path.replace(path.with_name(f"earlier_{path.name}"))

    def _score_installed(self) -> float | None:
        """Returns the metric of the weights of ``model.pt``; None if they are not there or have no value of it."""
        if not (installed := self.ckpt_dir / "model.pt").is_file():
            return None
        before = copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(torch.load(installed, map_location="cpu", weights_only=True))
        self.evaluator.run()
        self.model.load_state_dict(before)
        score = _to_number(self.evaluator.state.metrics.get(self.metric))
        logger.info("the weights in %s have %s %.4f on the held-out cases", installed.name, self.metric, score)
        return None if math.isnan(score) else score

    def _restore(self, engine: Engine) -> None:
        if not self.last.is_file():
            earlier = self.last.with_name(f"earlier_{self.last.name}")
            remedy = f"rename {earlier.name} to resume the run before" if earlier.is_file() else "start without resume"
            raise FileNotFoundError(f"nothing to resume: {self.last} does not exist; {remedy}")
        checkpoint = torch.load(self.last, map_location="cpu", weights_only=True)
        max_epochs, saved = engine.state.max_epochs, checkpoint["trainer"]["max_epochs"]
        if max_epochs != saved:
            raise ValueError(
                f"{self.last} is of a run with max_epochs={saved}, which its schedule depends on, not {max_epochs}; "
                f"resume with {saved}, or start another run from its weights with pretrained"
            )
        self.best_score = checkpoint.pop("best_score")
        Checkpoint.load_objects({**self.state, "trainer": engine}, checkpoint)
        logger.info("resumed from %s after epoch %d", self.last, engine.state.epoch)

    def _save(self, engine: Engine) -> None:
        if engine.state.epoch % self.interval and engine.state.epoch != engine.state.max_epochs:
            return
        score = _to_number(self.evaluator.state.metrics.get(self.metric))
        if score > self.best_score:
            self.best_score = score
            # of a GPU's training, too, it is loaded where there is none
            _write({name: value.cpu() for name, value in self.model.state_dict().items()}, self.best)
        objects = {**self.state, "trainer": engine}
        content = {name: value.state_dict() for name, value in objects.items()}
        _write({**content, "best_score": self.best_score}, self.last)

    def _install_best(self, engine: Engine) -> None:
        target = self.ckpt_dir / "model.pt"
        if self.best_score == float("-inf"):  # a best.pt that is there is another run's
            logger.warning(
                "no epoch has a value of %s, so %s stays as it is and the weights are in %s; a val_interval of at most "
                "max_epochs validates",
                self.metric,
                target,
                self.last,
            )
            return
        if self.only_better and self.earlier_score is not None and self.best_score < self.earlier_score:
            logger.warning(
                "not installed: %s is %.4f before training and %.4f after it; the new weights are in %s",
                self.metric,
                self.earlier_score,
                self.best_score,
                self.best,
            )
            return
        if target.is_file():
            digest = hash_file(target)[:12]
            previous = self.ckpt_dir / "previous" / f"model_{digest}.pt"
            previous.parent.mkdir(exist_ok=True)
            if not previous.is_file():  # of the same content
                _link(target, previous)
            logger.info("the weights that were in %s are also in %s", target, previous)
        _write(torch.load(self.best, weights_only=True), target)  # in their place at once: others may read them
        logger.info("best epoch's weights (%s %.4f) are in %s", self.metric, self.best_score, target)
        if self.earlier_score is not None:
            scores = self.earlier_score, self.best_score
            logger.info("installed: %s is %.4f before training and %.4f after it", self.metric, *scores)


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where the file system knows none."""
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def _to_number(score: Any) -> float:
    """Returns a metric as a Python float, as ``torch.load(weights_only=True)`` reads it; NaN where there is none.

    Raises:
        ValueError: it is more than one number.
    """
    if score is None:
        return math.nan
    try:
        return float(score)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"the metric is {score!r}, which is not one number; name another metric") from None


def _write(content: Mapping, path: Path) -> None:
    # ignite's DiskSaver(atomic=True) does not force a file to the disk before it gets its name, leaves a file of random
    # name after a kill, and makes every file readable for all users.
    write_atomic(path, lambda file: torch.save(dict(content), file))
