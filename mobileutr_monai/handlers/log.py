"""Progress and history of a training run."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer
from tqdm import tqdm

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.handlers.distributed import is_main_process

__all__ = ["EpochLog", "ProgressBar"]


class ProgressBar:
    """Progress bar over the whole run, with the time left, the epoch and the loss (ignite's spans one epoch).

    Where stderr is no terminal, such as a file, it is a line after each epoch instead.

    Args:
        evaluator: engine whose ``metric`` is shown, too; none is, without one.
    """

    def __init__(self, evaluator: Engine | None = None, metric: str = "") -> None:
        self.evaluator, self.metric = evaluator, metric
        self._bar: tqdm | None = None
        self._shown = 0.0

    def attach(self, engine: Engine) -> None:
        if is_main_process():
            engine.add_event_handler(Events.STARTED, self._open)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._print_line)
            engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self._close)

    def _open(self, engine: Engine) -> None:
        total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
        start = engine.state.iteration
        self._bar = tqdm(desc="Training", total=total, initial=start, unit="step", mininterval=1.0, disable=None)

    def _advance(self, engine: Engine) -> None:
        if self._bar is None or self._bar.disable:
            return
        now = time.perf_counter()
        if now - self._shown >= self._bar.mininterval or self._bar.n + 1 == self._bar.total:
            self._shown = now  # to read a loss is to wait for a GPU
            self._bar.set_postfix(self._describe(engine), refresh=False)
        self._bar.update()

    def _print_line(self, engine: Engine) -> None:
        if self._bar is not None and self._bar.disable:
            shown = ", ".join(f"{name} {value}" for name, value in self._describe(engine).items())
            print(shown, file=sys.stderr, flush=True)

    def _describe(self, engine: Engine) -> dict[str, str]:
        epoch = f"{engine.state.epoch}/{engine.state.max_epochs}"
        shown = {"epoch": epoch, "loss": f"{float(_loss(engine)):.3f}"}
        score = self.evaluator.state.metrics.get(self.metric) if self.evaluator is not None else None
        if score is not None:
            shown["score"] = f"{float(score):.3f}"
        return shown

    def _close(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is not None:
            raise error


class EpochLog:
    """Writes one CSV row per epoch: epoch, mean loss, learning rate, seconds, and the validation's metrics.

    A resumed run keeps the rows of the epochs behind it. Attach it behind the validation's handler.
    """

    def __init__(self, output_file: str | Path, optimizer: Optimizer, evaluator: Engine) -> None:
        self.output_file = Path(output_file)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self._losses: list[torch.Tensor] = []
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        if is_main_process():
            engine.add_event_handler(Events.EPOCH_STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._losses = []
        self._started = time.perf_counter()

    def _collect(self, engine: Engine) -> None:
        self._losses.append(_loss(engine))

    def _write(self, engine: Engine) -> None:
        row: dict[str, object] = {
            "epoch": engine.state.epoch,
            "loss": round(float(torch.stack(self._losses).mean(dtype=torch.float64)), 5),
            "learning_rate": f"{self.optimizer.param_groups[0]['lr']:.3g}",
            "seconds": round(time.perf_counter() - self._started, 1),
        }
        if self.evaluator.state.epoch == engine.state.epoch:  # else its metrics are those of an earlier epoch
            row |= {name: round(float(value), 5) for name, value in sorted(self.evaluator.state.metrics.items())}
        rows = [*self._read_rows(before=engine.state.epoch), row]
        self.output_file.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.output_file, text.getvalue())

    def _read_rows(self, before: int) -> list[dict[str, object]]:
        if before == 1 or not self.output_file.is_file():
            return []
        with self.output_file.open(newline="", encoding="utf-8") as file:
            return [{**row} for row in csv.DictReader(file) if int(row["epoch"]) < before]


def _loss(engine: Engine) -> torch.Tensor:
    """Returns the loss of a step, where it was computed."""
    output: Any = engine.state.output
    # MONAI's trainer decollates its output, unless told not to: one dictionary per image, each with the batch's loss.
    loss = output["loss"] if isinstance(output, dict) else output[0]["loss"]
    return torch.as_tensor(loss).detach()
