"""Ends a training that no longer gains."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path

from ignite.engine import Engine, Events

from mobileutr_monai.handlers.distributed import is_main_process

__all__ = ["EarlyStop", "read_scores"]

logger = logging.getLogger(__name__)


class EarlyStop:
    """Ends training after a number of validations in a row without a better score.

    It counts in the log that ``EpochLog`` writes, so a resumed run stops where the uninterrupted one does (MONAI's
    ``EarlyStopHandler`` counts from nothing again). Attach it behind the log and the checkpoint. With several
    processes it does nothing.

    Args:
        log_file: of ``EpochLog``.
        metric: column of it, higher is better.
        patience: validations without a better score; 0 to train to the end.
    """

    def __init__(self, log_file: str | Path, metric: str, patience: int) -> None:
        if patience < 0:
            raise ValueError(f"patience must be 0 or more validations, got {patience}")
        self.log_file, self.metric, self.patience = Path(log_file), metric, patience

    def attach(self, engine: Engine) -> None:
        if self.patience and is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        scores = read_scores(self.log_file, self.metric)
        if not scores or engine.state.epoch not in scores:
            return
        best = max(scores, key=lambda epoch: (scores[epoch], -epoch))
        since = sum(epoch > best for epoch in scores)
        if since >= self.patience:
            logger.info(
                "stopped at epoch %d: %d validations without a better %s than %.4f of epoch %d",
                *(engine.state.epoch, since, self.metric, scores[best], best),
            )
            engine.terminate()


def read_scores(log_file: Path, metric: str) -> dict[int, float]:
    """Returns epoch -> score from a training log, without epochs that were not validated."""
    if not log_file.is_file():
        return {}
    with log_file.open(newline="", encoding="utf-8") as file:
        found = {int(row["epoch"]): float(row[metric]) for row in csv.DictReader(file) if row.get(metric)}
    return {epoch: score for epoch, score in found.items() if not math.isnan(score)}
