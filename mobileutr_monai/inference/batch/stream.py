"""Cases read ahead by a pool and taken through the network in batches, for whatever uses the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.processes.case_worker import to_case_error
from mobileutr_monai.inference.batch.processes.workers import WorkerPool
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.inference.temporal import smooth_frames
from mobileutr_monai.readers.cases import InputCase

__all__ = ["CaseStream", "InferredCase", "map_ahead"]

CASES_AHEAD = 2
"""How many images each worker may be ahead of the network, or behind it; of volumes it is one in all."""

In = TypeVar("In")
Out = TypeVar("Out")


class InferredCase(NamedTuple):
    """A case behind the network.

    Attributes:
        result: what ``Segmenter.infer`` returns, or why there is none.
        seconds: spent on it; of a batch, its share.
    """

    case: InputCase
    result: dict[str, Any] | CaseError
    seconds: float


class CaseStream:
    """Reads cases with a pool and takes them through the network.

    Args:
        segmenter: the bundle's network and transforms.
        pool: whose target is a ``CaseLoader``.
        batch_size: images that go through the network together.
        temporal_sigma: frames over which the probabilities of a cine are averaged, see ``smooth_frames``.
    """

    def __init__(self, segmenter: Segmenter, pool: WorkerPool, batch_size: int, temporal_sigma: float = 0.0) -> None:
        self.segmenter, self.pool = segmenter, pool
        self.batch_size, self.temporal_sigma = batch_size, temporal_sigma

    def count_ahead(self, workers: int) -> int:
        """Returns how many cases may be read before the network takes them."""
        return self.batch_size + CASES_AHEAD * workers if self.segmenter.spatial_dims == 2 else 1

    def infer(self, cases: Iterable[InputCase], ahead: int) -> Iterator[InferredCase]:
        """Yields everything but cines behind the network; of one batch, images of the same size come together.

        Args:
            cases: are taken as they are needed, so that they may be made on the way.
            ahead: see ``count_ahead``.
        """
        for chunk in _chunks(map_ahead(self.pool.submit, self._read, cases, ahead), self.batch_size):
            groups: dict[tuple[int, ...], tuple[list[tuple[InputCase, float]], list[dict[str, Any]]]] = {}
            while chunk:  # taken out, so that nobody holds an image longer than the network needs it
                read = chunk.pop(0)
                if isinstance(read.result, CaseError):
                    yield read
                else:
                    taken, images = groups.setdefault(tuple(read.result["image"].shape), ([], []))
                    taken.append((read.case, read.seconds))
                    images.append(read.result)
            del read
            for taken, images in groups.values():
                started = time.perf_counter()
                results = self._infer_batch(images)
                images.clear()
                share = (time.perf_counter() - started) / len(taken)
                for (case, seconds), result in zip(taken, results, strict=True):
                    yield InferredCase(case, result, seconds + share)

    def infer_frames(self, case: InputCase) -> Iterator[dict[str, Any]]:
        """Yields what ``Segmenter.infer`` returns of each frame of a cine, smoothed, in their order.

        Raises:
            CaseError: a frame cannot be read.
        """
        return smooth_frames(self._infer_frames(case), self.temporal_sigma)

    def _infer_frames(self, case: InputCase) -> Iterator[dict[str, Any]]:
        with closing(self.pool.stream("read_frames", case)) as frames:
            for batch in _chunks(_raising(frames), self.batch_size):
                yield from self.segmenter.infer(batch)

    def _read(self, case: InputCase) -> InferredCase:
        """Returns a case that is read and not yet inferred."""
        started = time.perf_counter()
        try:
            data = self.pool.call("read", case)
        except CaseError as error:
            data = error
        return InferredCase(case, data, time.perf_counter() - started)

    def _infer_batch(self, data: list[dict[str, Any]]) -> Sequence[dict[str, Any] | CaseError]:
        try:
            return self.segmenter.infer(data)
        except Exception as error:  # noqa: BLE001 - out of memory, for one, costs this batch only
            return [to_case_error(Reason.NETWORK, error)] * len(data)


def map_ahead(
    submit: Callable[[Callable[[In], Out], In], Future[Out]],
    function: Callable[[In], Out],
    items: Iterable[In],
    ahead: int,
) -> Iterator[Out]:
    """Maps in workers, in order, with at most ``ahead`` results waiting."""
    waiting: list[Future[Out]] = []
    for item in items:
        waiting.append(submit(function, item))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    while waiting:
        yield waiting.pop(0).result()


def _raising(items: Iterable[dict[str, Any] | CaseError]) -> Iterator[dict[str, Any]]:
    for item in items:
        if isinstance(item, CaseError):
            raise item
        yield item


def _chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
