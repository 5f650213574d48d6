"""Cases on their way: read by workers, through the network in batches, written by workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from mobileutr_monai.core.output_folder import format_files, hash_files, parse_files, stat_files
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.cine import CineMeter
from mobileutr_monai.inference.batch.delivery import Deliver
from mobileutr_monai.inference.batch.processes.case_worker import CaseWorker, Written, is_full_disk, to_case_error
from mobileutr_monai.inference.batch.processes.workers import WorkerError, WorkerPool
from mobileutr_monai.inference.batch.stream import CaseStream, InferredCase, map_ahead
from mobileutr_monai.inference.measure import Measurement
from mobileutr_monai.inference.quality import Judge, QualityCheck
from mobileutr_monai.inference.report.row import FLAG_SEPARATOR, Row
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.readers.cases import InputCase

__all__ = ["Pipeline", "failed_row", "hash_input", "stat_input"]

logger = logging.getLogger(__name__)

EXTRA_FAULTS = (Reason.CRASH, Reason.TIME, Reason.MEMORY)
"""Reasons that a case may have for its extras alone: pictures are drawn from the input, decoded again."""

_COLUMNS = {field.name for field in fields(Row)}


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
        deliver: sends a case's staged files somewhere; a case whose files do not get there fails.
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
        deliver: Deliver | None = None,
    ) -> None:
        self.segmenter, self.worker, self.pool, self.quality = segmenter, worker, pool, quality
        self.labels = worker.labels
        self.stream = CaseStream(segmenter, pool, batch_size, temporal_sigma)
        self.versions, self.deliver = versions, deliver
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
        ahead = self.stream.count_ahead(workers)
        singles = [case for case in cases if not case.kind.has_frames]

        def complete(case: InputCase, rows: list[Row]) -> tuple[InputCase, list[Row]]:
            return case, self._deliver(case, self._compare_input(input_stats[case.name], case, rows))

        def finish(inferred: InferredCase) -> tuple[InputCase, list[Row]]:
            return complete(*self._finish(inferred))

        yield from map_ahead(self.pool.submit, finish, self.stream.infer(singles, ahead), ahead)
        yield from (complete(*self._segment_cine(case)) for case in cases if case.kind.has_frames)

    def _compare_input(self, input_stat: str, case: InputCase, rows: list[Row]) -> list[Row]:
        """Returns the rows, or that of a failure if the input is no longer what it was when the run began."""
        if stat_input(case) != input_stat:
            detail = "it changed or vanished during the run; run again when nothing writes to it"
            rows = [failed_row(case, CaseError(Reason.CHANGED, detail), rows[0].seconds)]
        for row in rows:
            row.input_stat, row.versions = input_stat, self.versions
        return rows

    def _deliver(self, case: InputCase, rows: list[Row]) -> list[Row]:
        """Returns the rows, or that of a failure if the case's files cannot be delivered."""
        if self.deliver is None or rows[0].status != "ok":
            return rows
        base = self.worker.folder.find_staged(case.output) / case.output
        files = {ending: base.with_name(base.name + ending) for ending in parse_files(rows[0].files)}
        try:
            self.deliver(case, files)
        except CaseError as error:
            failed = failed_row(case, error, rows[0].seconds)
            failed.input_stat, failed.versions = rows[0].input_stat, rows[0].versions
            return [failed]
        return rows

    def _call(self, method: str, case: InputCase, *arguments: object) -> Any:
        """Returns what a method of the worker returns, or why it did not come to its end."""
        try:
            return self.pool.call(method, case, *arguments)
        except CaseError as error:
            return error

    def _finish(self, inferred: InferredCase) -> tuple[InputCase, list[Row]]:
        case, result, seconds = inferred
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
        meter = CineMeter(self.segmenter, self.quality, self.labels, case)

        def labels() -> Iterator[np.ndarray]:
            try:
                yield from meter.watch(self.stream.infer_frames(case))
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
        measurements = meter.measure()
        drawn = self._call("finish_cine", case, masks, measurements, meter.frames)
        detail = f"no picture: {drawn}" if isinstance(drawn, CaseError) else drawn
        assessments = meter.assess(measurements)
        name = masks.path.relative_to(self.worker.folder.find_staged(case.output)).as_posix()
        files = self.worker.folder.list_staged(case.output)
        detail = self.worker.describe(case, detail)
        written = Written(name, files, meter.shape, measurements, detail, assessments=assessments)
        return case, self._rows(case, written, time.perf_counter() - started)

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
