"""Cases segmented by actors of a Ray cluster, in place of this process.

Ray Core and not Ray Data: a case has an identity here. ``map_batches`` retries whole blocks, cannot tell which case
of a block killed its process, nor give one up, and yields a block when all of it is done. With actors the driver holds
the queue: it gives work to whoever is idle, knows which case an actor was at, and tries it elsewhere.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.delivery import Deliver
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.batch.pipeline import failed_row
from mobileutr_monai.inference.batch.processes.case_worker import is_full_disk
from mobileutr_monai.inference.cluster.actor import CaseActor, pack_job, place_of
from mobileutr_monai.inference.cluster.options import connect
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.readers.cases import InputCase

if TYPE_CHECKING:
    from mobileutr_monai.inference.batch.runner import BatchRunner

__all__ = ["RayPipeline"]

logger = logging.getLogger(__name__)

TASKS_AHEAD = 2
"""Calls that an actor has at a time, so that it need not wait for the next one."""
BATCHES_PER_TASK = 2
MOST_DEATHS = 2
"""Actors that a case may cost while it is alone with them, on nodes that go on."""
MOST_FAILURES = 5
"""The same, with those of nodes that failed."""
MOST_STARTS = 3
"""Actors in a row that may fail to start."""
GRACE_SECONDS = 120.0
"""Beyond the time limit of its cases, before an actor that does not answer is ended."""
_POLL_SECONDS = 1.0
_NODE_ID = "ray.io/node-id"
"""A label that Ray gives every node."""


@dataclass(eq=False)
class _Task:
    """Cases that go to an actor together.

    Attributes:
        deaths: nodes whose actors ended while they were at it, of a single case.
    """

    cases: list[InputCase]
    deaths: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Actor:
    """An actor, and the calls that it has, the first of which it is at."""

    handle: Any
    token: str
    starting: Any
    node: str = ""
    calls: deque[tuple[Any, _Task]] = field(default_factory=deque)
    since: float = 0.0


class RayPipeline:
    """Segments cases as ``Pipeline`` does, on the nodes of a cluster.

    The inputs and the output folder must have the same paths on all nodes, as on a shared file system, and the package
    must be installed there. This process finds the cases, hands them out, and writes the report.

    Args:
        runner: with its weights loaded.
        identity: of the run.
        deliver: sends staged files somewhere; the actors call it.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, runner: BatchRunner, identity: Mapping[str, Any], deliver: Deliver | None = None) -> None:
        self.runner = runner
        self._ray = connect(runner.cluster.address)
        self._job = self._ray.put(pack_job(runner, identity, deliver))
        self._versions = ", ".join(f"{name} {number}" for name, number in identity["versions"].items())
        cpus, gpus = (float(self._ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
        each = max(1, runner.workers)
        self.number = runner.cluster.actors or max(1, int(gpus or cpus // each))
        self._resources = {"num_cpus": min(each, max(1, cpus // self.number)), "num_gpus": min(1.0, gpus / self.number)}
        self._actors: list[_Actor] = []
        self._failed_starts = 0
        self._full: set[str] = set()  # nodes whose disk is full
        self._warn_at = time.monotonic() + GRACE_SECONDS

    def __enter__(self) -> RayPipeline:
        while len(self._actors) < self.number:
            self._add_actor()
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._ray.shutdown()

    def segment(
        self, cases: Sequence[InputCase], input_stats: Mapping[str, str], workers: int
    ) -> Iterator[tuple[InputCase, list[Row]]]:
        """Yields each case with its rows as they end; its files are staged in the output folder.

        Raises:
            OSError: the disk is full on every node.
            UsageError: no actor can be started.
        """
        todo = deque(self._make_tasks(cases))
        while todo or any(actor.calls for actor in self._actors):
            self._check_starts()
            self._hand_out(todo, input_stats)
            for actor in self._wait():
                yield from self._receive(actor, todo, input_stats)
            for actor in list(self._actors):
                if self._is_late(actor):
                    yield from self._bury(actor, todo, input_stats, Reason.TIME)

    def _make_tasks(self, cases: Sequence[InputCase]) -> Iterator[_Task]:
        """Yields images by the batch, everything that takes long alone and first."""
        size = BATCHES_PER_TASK * self.runner.batch_size
        flat = self.runner.segmenter.spatial_dims == 2
        small = [case for case in cases if flat and not case.kind.has_frames]
        yield from (_Task([case]) for case in cases if not flat or case.kind.has_frames)
        iterator = iter(small)
        while some := list(islice(iterator, size)):
            yield _Task(some)

    def _add_actor(self) -> None:
        token = uuid.uuid4().hex[:16]
        gpu = self._resources["num_gpus"] > 0
        elsewhere = {"label_selector": {_NODE_ID: f"!in({','.join(sorted(self._full))})"}} if self._full else {}
        options = {**self._resources, "max_restarts": 0, "scheduling_strategy": "SPREAD", **elsewhere}
        remote = self._ray.remote(**options)(CaseActor)
        handle = remote.remote(self._job, token, gpu)
        self._actors.append(_Actor(handle, token, handle.start.remote()))

    def _check_starts(self) -> None:
        """Notes which actors are ready, and replaces those that did not start."""
        starting = [actor for actor in self._actors if actor.starting is not None]
        if len(starting) == len(self._actors) and time.monotonic() > self._warn_at:
            logger.warning("no actor has started yet; does the cluster have %s?", self._resources)
            self._warn_at = math.inf
        busy = any(actor.starting is None for actor in self._actors)
        if not starting:
            return
        ready, _ = self._ray.wait(
            [actor.starting for actor in starting], num_returns=len(starting), timeout=0 if busy else _POLL_SECONDS
        )
        for actor in starting:
            if actor.starting not in ready:
                continue
            try:
                node = self._ray.get(actor.starting)
            except self._ray.exceptions.RayError as error:
                self._replace_failed_start(actor, error)
            else:
                actor.starting, actor.node, self._failed_starts = None, node, 0

    def _replace_failed_start(self, actor: _Actor, error: Exception) -> None:
        self._remove(actor)
        self._failed_starts += 1
        cause = getattr(error, "cause", None) or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        if self._failed_starts < MOST_STARTS:
            logger.warning("an actor did not start: %s", lines[-1])
            self._add_actor()
        elif not any(other.starting is None for other in self._actors):
            raise UsageError(f"no actor starts on the cluster: {lines[-1]}")

    def _hand_out(self, todo: deque[_Task], input_stats: Mapping[str, str]) -> None:
        ready = sorted((actor for actor in self._actors if actor.starting is None), key=lambda one: len(one.calls))
        nodes = {actor.node for actor in ready}
        for _ in range(TASKS_AHEAD):
            for actor in ready:
                if len(actor.calls) < TASKS_AHEAD and (task := _take(todo, actor.node, nodes)) is not None:
                    stats = {case.name: input_stats[case.name] for case in task.cases}
                    if not actor.calls:
                        actor.since = time.monotonic()
                    actor.calls.append((actor.handle.segment.remote(task.cases, stats), task))

    def _wait(self) -> list[_Actor]:
        """Returns the actors whose first call has ended, after a second at the latest."""
        first = {actor.calls[0][0]: actor for actor in self._actors if actor.calls}
        if not first:
            return []
        ready, _ = self._ray.wait(list(first), num_returns=1, timeout=_POLL_SECONDS)
        if ready:
            ready, _ = self._ray.wait(list(first), num_returns=len(first), timeout=0)
        return [first[reference] for reference in ready]

    def _receive(
        self, actor: _Actor, todo: deque[_Task], input_stats: Mapping[str, str]
    ) -> Iterator[tuple[InputCase, list[Row]]]:
        reference, task = actor.calls[0]
        try:
            ended = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None) or error
            if not is_full_disk(cause):
                raise cause from error
            self._retire(actor, todo)
            return
        except self._ray.exceptions.RayError:
            yield from self._bury(actor, todo, input_stats, Reason.CRASH)
            return
        actor.calls.popleft()
        actor.since = time.monotonic()
        by_name = {case.name: case for case in task.cases}
        theirs = OutputFolder(place_of(self.runner.output_dir, actor.token))
        for name, rows in ended:
            case = by_name[name]
            if rows[0].status == "ok":
                self.runner.folder.adopt(case.output, theirs)
            else:
                logger.warning("%s: %s", case.name, ": ".join(filter(None, (rows[0].reason, rows[0].detail))))
            yield case, rows

    def _bury(
        self, actor: _Actor, todo: deque[_Task], input_stats: Mapping[str, str], reason: Reason
    ) -> Iterator[tuple[InputCase, list[Row]]]:
        """Puts the cases of an actor that ended back; yields one that is given up.

        Raises:
            OSError: the disk is full on every node that is left.
        """
        self._remove(actor)
        self._replace()
        for _, task in reversed(list(actor.calls)[1:]):  # it had not begun them
            todo.appendleft(task)
        task = actor.calls[0][1]
        logger.warning("an actor ended (%s); %d of its cases are tried again", reason, len(task.cases))
        if len(task.cases) > 1:
            todo.extendleft(_Task([case]) for case in reversed(task.cases))
            return
        task.deaths.append(actor.node)
        alive = {found["NodeID"] for found in self._ray.nodes() if found["Alive"]}
        if sum(node in alive for node in task.deaths) < MOST_DEATHS and len(task.deaths) < MOST_FAILURES:
            todo.appendleft(task)
            return
        (case,) = task.cases
        row = failed_row(case, CaseError(reason, f"{len(task.deaths)} actors ended while they had it alone"))
        row.input_stat, row.versions = input_stats[case.name], self._versions
        yield case, [row]

    def _retire(self, actor: _Actor, todo: deque[_Task]) -> None:
        """Leaves out the node of an actor whose disk is full.

        Raises:
            OSError: it is full on every node.
        """
        self._remove(actor)
        self._full.add(actor.node)
        todo.extendleft(task for _, task in reversed(actor.calls))
        logger.warning("a node's disk is full; the others do its cases")
        if not self._actors:
            self._replace()

    def _replace(self) -> None:
        """Adds an actor in place of one that is gone, on a node whose disk is not full.

        Raises:
            OSError: there is none.
        """
        needs = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        fit = [
            node["NodeID"]
            for node in self._ray.nodes()
            if node["Alive"] and all(node["Resources"].get(name, 0) >= number for name, number in needs.items())
        ]
        if self._full and not self._actors and self._full.issuperset(fit):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._add_actor()

    def _remove(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle)
        self._actors.remove(actor)

    def _is_late(self, actor: _Actor) -> bool:
        if not actor.calls:
            return False
        limit = self.runner.time_limit * len(actor.calls[0][1].cases) + GRACE_SECONDS
        return not actor.calls[0][1].cases[0].kind.has_frames and time.monotonic() - actor.since > limit


def _take(todo: deque[_Task], node: str, nodes: set[str]) -> _Task | None:
    """Takes the next task for a node: not one that ended an actor there, unless there is no other node."""
    for position, task in enumerate(todo):
        if node not in task.deaths or nodes <= set(task.deaths):
            del todo[position]
            return task
    return None
