"""What segments cases on a node of a cluster: a copy of the run with its network, which stages results."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

import mobileutr_monai
from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.inference.batch.delivery import Deliver
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.readers.cases import InputCase

if TYPE_CHECKING:
    from mobileutr_monai.inference.batch.runner import BatchRunner

__all__ = ["CaseActor", "Job", "pack_job"]


class Job(NamedTuple):
    """What every actor of a run gets.

    Attributes:
        runner: with the weights loaded, without an engine.
        engine: name of the engine, the same on every node, so that a run's results come from one.
        identity: of the run.
        deliver: sends staged files somewhere.
        version: of this package.
    """

    runner: BatchRunner
    engine: str
    identity: Mapping[str, Any]
    deliver: Deliver | None
    version: str


def pack_job(runner: BatchRunner, identity: Mapping[str, Any], deliver: Deliver | None) -> Job:
    """Returns what a run's actors need of it, on the CPU and without what an engine has built.

    Its paths are absolute: an actor has a current folder of its own.
    """
    own = copy.copy(runner)
    own.weights, own.config, own.output_dir = (
        path.absolute() for path in (runner.weights, runner.config, runner.output_dir)
    )
    own.every_weights = [path.absolute() for path in runner.every_weights]
    own.segmenter = copy.copy(runner.segmenter)
    own.segmenter.network = copy.deepcopy(runner.segmenter.network).cpu()
    own.segmenter.predictor, own.segmenter.further_predictors = own.segmenter.network, []
    return Job(own, runner.engine, identity, deliver, mobileutr_monai.__version__)


class CaseActor:
    """Segments cases, one call after the other.

    Results are staged in a folder of this actor alone, so that one that is given up, but still runs, touches nothing of
    the actor that gets its cases.

    Args:
        job: see ``pack_job``.
        token: name of the folder.
        gpu: whether this actor may use a GPU.
    """

    def __init__(self, job: Job, token: str, gpu: bool) -> None:
        self.job, self.token, self.gpu = job, token, gpu
        self._stack = ExitStack()

    def start(self) -> str:
        """Starts the engine; returns the id of the node.

        Raises:
            ValueError: the package has another version here.
            UsageError: the engine cannot run here.
        """
        logging.disable(logging.CRITICAL)  # names of files stay out of Ray's logs; the run logs what failed
        if mobileutr_monai.__version__ != self.job.version:
            raise ValueError(
                f"mobileutr-monai is {mobileutr_monai.__version__} here, and {self.job.version} in the run"
            )
        runner = self.job.runner
        device = torch.device("cuda" if self.gpu and torch.cuda.is_available() else "cpu")
        runner.segmenter.device = device
        for network in (runner.segmenter.network, *runner.members):
            network.to(device).eval()
        runner.engine = self.job.engine
        runner.start_engine()
        runner.output_dir = place_of(runner.output_dir, self.token)
        runner.folder = OutputFolder(runner.output_dir)
        worker = runner.make_worker(self.job.identity)
        pool = self._stack.enter_context(runner.make_pool(worker))
        self._pipeline = runner.make_pipeline(worker, pool, self.job.identity, self.job.deliver)
        import ray  # an extra

        return str(ray.get_runtime_context().get_node_id())

    def segment(self, cases: Sequence[InputCase], input_stats: Mapping[str, str]) -> list[tuple[str, list[Row]]]:
        """Returns name and rows of each case; files of those that went well are staged.

        Raises:
            OSError: the disk is full.
        """
        runner = self.job.runner
        ended = []
        for case, rows in self._pipeline.segment(cases, input_stats, runner.workers):
            if rows[0].status != "ok":
                runner.folder.discard(case.output)
            ended.append((case.name, rows))
        return ended


def place_of(output_dir: Path, token: str) -> Path:
    """Returns the folder of an actor, among what a run has in the making."""
    return OutputFolder(output_dir).making / token
