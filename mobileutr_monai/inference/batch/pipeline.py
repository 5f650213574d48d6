"""Cases on their way: read by workers, through the network in batches, written by workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.output_folder import format_files, hash_files, stat_files
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.case_worker import CaseWorker, Written, is_full_disk, to_case_error
from mobileutr_monai.inference.batch.workers import WorkerError, WorkerPool
from mobileutr_monai.inference.measure import Measurement, measure_frames
from mobileutr_monai.inference.quality import Judge, QualityCheck
from mobileutr_monai.inference.report.row import FLAG_SEPARATOR, Row
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.inference.temporal import smooth_frames
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import mask_outside_tissue

__all__ = ["Pipeline", "failed_row", "hash_input", "stat_input"]

logger = logging.getLogger(__name__)

CASES_AHEAD = 2
"""How many images each worker may be ahead of the network, or behind it; of volumes it is one in all."""

EXTRA_FAULTS = (Reason.CRASH, Reason.TIME, Reason.MEMORY)
"""Reasons that a case may have for its extras alone: pictures are drawn from the input, decoded again."""

In = TypeVar("In")
Out = TypeVar("Out")
_COLUMNS = {field.name for field in fields(Row)}
ReadCase = tuple[InputCase, dict[str, Any] | CaseError, float]


class Pipeline:
    """Segments cases one after the other, reading ahead and writing behind.

    Args:
        segmenter: the bundle's network and transforms.
        worker: reads and writes; also the target of ``pool``.
        pool: where its methods are called.
        quality: gives results their confidence and flags.
        batch_size: images that go through the network together.
        temporal_sigma: frames over which the probabilities of a cine are averaged, see ``smooth_frames``.
        versions: of the libraries, for the report.
        average: what results are the mean of, see ``describe_average``; said in the report.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        worker: CaseWorker,
        pool: WorkerPool,
        quality: QualityCheck,
        batch_size: int,
        temporal_sigma: float,
        versions: str = "",
        average: str = "",
    ) -> None:
        self.segmenter, self.worker, self.pool, self.quality = segmenter, worker, pool, quality
        self.labels, self.batch_size, self.temporal_sigma = worker.labels, batch_size, temporal_sigma
        self.versions = versions
        self.note = f"mean of {average}; confidence is not calibrated for that" if average else ""

    def segment(
        self, cases: Sequence[InputCase], input_stats: Mapping[str, str], workers: int
    ) -> Iterator[tuple[InputCase, list[Row]]]:
        """Yields each case with its rows, in the order in which they end; its files are staged.

        Args:
            input_stats: name of a case -> ``stat_input`` of it when the run began.

        Raises:
            OSError: the disk is full.
            WorkerError: no process can be started.
        """
        ahead = self.batch_size + CASES_AHEAD * workers if self.segmenter.spatial_dims == 2 else 1
        submit = self.pool.submit
        singles = [case for case in cases if case.kind is not CaseKind.CINE]
        read = _map_ahead(submit, self._read, singles, ahead)
        ended = _map_ahead(submit, _call_now, self._infer(read), ahead)
        cines = (self._segment_cine(case) for case in cases if case.kind is CaseKind.CINE)
        for results in (ended, cines):
            for case, rows in results:
                yield case, self._compare_input(input_stats[case.name], case, rows)

    def _compare_input(self, input_stat: str, case: InputCase, rows: list[Row]) -> list[Row]:
        """Returns the rows, or that of a failure if the input is no longer what it was when the run began."""
        if stat_input(case) != input_stat:
            detail = "it changed or vanished during the run; run again when nothing writes to it"
            rows = [failed_row(case, CaseError(Reason.CHANGED, detail), rows[0].seconds)]
        for row in rows:
            row.input_stat, row.versions = input_stat, self.versions
        return rows

    def _call(self, method: str, case: InputCase, *arguments: object) -> Any:
        """Returns what a method of the worker returns, or why it did not come to its end."""
        try:
            return self.pool.call(method, case, *arguments)
        except CaseError as error:
            return error

    def _read(self, case: InputCase) -> ReadCase:
        started = time.perf_counter()
        data = self._call("read", case)
        return case, data, time.perf_counter() - started

    def _infer(self, items: Iterable[ReadCase]) -> Iterator[Callable[[], tuple[InputCase, list[Row]]]]:
        """Yields what is left to be done for each case behind the network."""
        for chunk in _chunks(items, self.batch_size):
            groups: dict[tuple[int, ...], tuple[list[tuple[InputCase, float]], list[dict[str, Any]]]] = {}
            while chunk:  # taken out, so that nobody holds an image longer than the network needs it
                case, data, seconds = chunk.pop(0)
                if isinstance(data, CaseError):
                    yield partial(self._finish, case, data, seconds)
                else:
                    cases, images = groups.setdefault(tuple(data["image"].shape), ([], []))
                    cases.append((case, seconds))
                    images.append(data)
            del data
            for cases, images in groups.values():
                started = time.perf_counter()
                results = self._infer_batch(images)
                images.clear()
                share = (time.perf_counter() - started) / len(cases)
                for (case, seconds), result in zip(cases, results, strict=True):
                    yield partial(self._finish, case, result, seconds + share)

    def _infer_batch(self, data: list[dict[str, Any]]) -> Sequence[dict[str, Any] | CaseError]:
        try:
            return self.segmenter.infer(data)
        except Exception as error:  # noqa: BLE001 - out of memory, for one, costs this batch only
            return [to_case_error(Reason.NETWORK, error)] * len(data)

    def _finish(
        self, case: InputCase, result: dict[str, Any] | CaseError, seconds: float
    ) -> tuple[InputCase, list[Row]]:
        if isinstance(result, CaseError):
            return case, [failed_row(case, result, seconds)]
        started = time.perf_counter()
        try:
            raw = self.segmenter.measure_confidence(result)
            judge = Judge(self.quality, raw, self.quality.measure_distance(result["image"]))
            probabilities = None
            if self.worker.writer.options.probabilities and case.dicom is not None:
                label, probabilities = self.segmenter.make_label_map_and_probabilities(result)
            else:
                label = self.segmenter.make_label_map(result)
        except Exception as error:  # noqa: BLE001 - as for the network
            return case, [failed_row(case, to_case_error(Reason.NETWORK, error), seconds)]
        result.clear()  # logits and image of a volume are larger than what writing it takes
        written = self._call("write", case, label, judge, True, probabilities)
        if isinstance(written, CaseError) and written.reason in EXTRA_FAULTS and self.worker.writer.has_extras:
            # It may be the fault of an extra, which must not cost the mask.
            fault, written = written, self._call("write", case, label, judge, False)
            if isinstance(written, Written):
                written = written._replace(detail=self.worker.describe(case, f"no extra files: {fault}"))
        seconds += time.perf_counter() - started
        if isinstance(written, CaseError):
            return case, [failed_row(case, written, seconds)]
        return case, self._rows(case, written, seconds)

    def _segment_cine(self, case: InputCase) -> tuple[InputCase, list[Row]]:
        started = time.perf_counter()
        pixels: dict[int, list[int]] = {index: [] for index in self.labels}
        beyond: dict[int, int] | None = None
        confidence: dict[int, list[float]] = {}
        distances: list[float] = []
        shape: tuple[int, ...] = ()

        def labels() -> Iterator[np.ndarray]:
            nonlocal beyond, shape
            try:
                outside = mask_outside_tissue(case.paths[0])
                beyond = None if outside is None else dict.fromkeys(self.labels, 0)
                for result in smooth_frames(self._infer_frames(case), self.temporal_sigma):
                    label = self.segmenter.make_label_map(result)
                    shape = (*label.shape, len(next(iter(pixels.values()))) + 1)
                    for index, counts in pixels.items():
                        region = label == index
                        counts.append(int(region.sum()))
                        if beyond is not None:
                            beyond[index] += int((region & outside).sum())
                    for index, value in self.segmenter.measure_confidence(result).items():
                        confidence.setdefault(index, []).append(value)
                    if (distance := self.quality.measure_distance(result["image"])) is not None:
                        distances.append(distance)
                    yield label
            except (CaseError, WorkerError):
                raise
            except Exception as error:  # noqa: BLE001 - as for images
                raise to_case_error(Reason.NETWORK, error, case.paths[0]) from None

        try:
            masks = self.worker.write_cine(case, labels())
        except Exception as error:
            if is_full_disk(error):
                raise
            if isinstance(error, WorkerError):
                raise
            failure = error if isinstance(error, CaseError) else to_case_error(Reason.OUTPUT, error, case.paths[0])
            return case, [failed_row(case, failure, time.perf_counter() - started)]
        counted = {self.labels[index]: counts for index, counts in pixels.items()}
        outside = None if beyond is None else {self.labels[index]: count for index, count in beyond.items()}
        measurements = measure_frames(counted, shape[0] * shape[1], outside)
        drawn = self._call("finish_cine", case, masks, measurements)
        detail = f"no picture: {drawn}" if isinstance(drawn, CaseError) else drawn
        means = {index: float(np.mean(values)) for index, values in confidence.items()}
        median = float(np.median(distances)) if distances else None
        judge = Judge(self.quality, means, median)
        assessments = judge.assess(dict(zip(self.labels, measurements, strict=True)), pixels)
        name = masks.path.relative_to(self.worker.folder.find_staged(case.output)).as_posix()
        files = self.worker.folder.list_staged(case.output)
        detail = self.worker.describe(case, detail)
        written = Written(name, files, shape, measurements, detail, assessments=assessments)
        return case, self._rows(case, written, time.perf_counter() - started)

    def _infer_frames(self, case: InputCase) -> Iterator[dict[str, Any]]:
        with closing(self.pool.stream("read_frames", case)) as frames:
            for batch in _chunks(_raising(frames), self.batch_size):
                yield from self.segmenter.infer(batch)

    def _rows(
        self,
        case: InputCase,
        written: Written,
        seconds: float,
    ) -> list[Row]:
        rows = []
        input_id = hash_input(case)
        components = written.components or [[] for _ in self.labels]
        for measurement, (confidence, flags), pieces in zip(
            written.measurements, written.assessments, components, strict=True
        ):
            row = _row(case, seconds)
            row.output, row.files = written.output, format_files(written.files)
            row.input_id = input_id
            row.shape = " x ".join(map(str, written.shape))
            _fill_in(row, measurement)
            row.confidence = None if confidence is None else round(confidence, 4)
            row.flag = FLAG_SEPARATOR.join(flags)
            row.detail = "; ".join(filter(None, (written.detail, self.note)))
            rows.append(row)
            for piece in pieces:
                rows.append(_fill_in(replace(row, confidence=None, flag=""), piece))
        return rows


def stat_input(case: InputCase) -> str:
    """Returns ``stat_files`` of a case's files."""
    return stat_files(case.paths)


def hash_input(case: InputCase) -> str:
    """Returns ``hash_files`` of a case's files."""
    return hash_files(case.paths)


def failed_row(case: InputCase, error: CaseError, seconds: float = 0.0) -> Row:
    """Returns the row of a case without a result, and logs it unless it was only not for this run."""
    row = _row(case, seconds)
    row.status = "skipped" if error.skipped else "failed"
    row.reason, row.detail = error.reason.value, error.detail
    if not error.skipped:
        logger.warning("%s: %s", case.name, error)
    return row


def _row(case: InputCase, seconds: float) -> Row:
    row = Row(case=case.name, kind=case.kind.value, seconds=round(seconds, 3))
    if case.dicom is not None:
        row.study_uid, row.series_uid = case.dicom.study_uid, case.dicom.series_uid
    return row


def _fill_in(row: Row, measurement: Measurement) -> Row:
    for name, value in asdict(measurement).items():
        if name in _COLUMNS:
            setattr(row, name, value)
    return row


def _raising(items: Iterable[dict[str, Any] | CaseError]) -> Iterator[dict[str, Any]]:
    for item in items:
        if isinstance(item, CaseError):
            raise item
        yield item


def _call_now(function: Callable[[], Out]) -> Out:
    return function()


def _map_ahead(
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


def _chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
