"""What a dry run says: what would be done with each file, as far as that is known before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.model_settings import compare_settings
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.batch.output_lock import check_changes
from mobileutr_monai.inference.batch.pipeline import hash_input, stat_input
from mobileutr_monai.inference.batch.processes.case_worker import to_case_error
from mobileutr_monai.inference.batch.suitability import check_found
from mobileutr_monai.inference.engines.choice import AUTO, DEFAULT_ENGINE
from mobileutr_monai.inference.report.csv import IDENTITY, ReportTable, Wanted, read_identity
from mobileutr_monai.inference.report.earlier import EarlierRun
from mobileutr_monai.readers.cases import FoundInputs, InputCase
from mobileutr_monai.readers.pillow_io import look_at

if TYPE_CHECKING:
    from mobileutr_monai.inference.batch.runner import BatchRunner
    from mobileutr_monai.inference.batch.streaming import StreamRun

__all__ = ["Foreseen", "Foresight", "foresee", "foresee_run"]


class Foreseen(NamedTuple):
    """What would become of a file.

    Attributes:
        line: for people.
        fails: whether the run would count it as failed.
    """

    line: str
    fails: bool


class Foresight(NamedTuple):
    """What a run would do, in the order of ``RunResult``.

    Attributes:
        counts: ``failed``, those that are known to fail.
        report: a dry run has none.
        lines: one for each case and each file that is not used.
        refusal: why the run would not begin; empty if nothing is known to be in its way.
    """

    counts: dict[str, int]
    report: None
    lines: tuple[str, ...]
    refusal: str


def foresee_run(runner: BatchRunner, streamed: StreamRun | None) -> Foresight:
    """Returns what a run would do, as far as it is known without decoding or computing anything.

    Args:
        streamed: the run over a source, if it is one.
    """
    foreseen: list[Foreseen] = []
    table, refusal = None, ""
    try:
        table = _open_table(runner)
    except UsageError as error:
        refusal = str(error)
    earlier = EarlierRun(table, has_own_stems=streamed is not None)
    try:
        if streamed is not None:
            foreseen += streamed.foresee(earlier)
            streamed.check_listed()
        else:
            with TemporaryDirectory() as unpacked:
                found = runner.find_cases(Path(unpacked))
                rejected = runner.suitability.reject_all(found)
                foreseen += foresee(found, rejected, earlier)
            check_found(found, rejected, runner.segmenter.spatial_dims, runner.dataset_dir, runner.inputs)
    except UsageError as error:
        refusal = refusal or str(error)
    failed = sum(file.fails for file in foreseen)
    return Foresight({"failed": failed}, None, tuple(file.line for file in foreseen), refusal)


def _open_table(runner: BatchRunner) -> ReportTable:
    """Returns the report that the run would write.

    Raises:
        UsageError: its weights are missing or of other settings, or an earlier run had other settings.
    """
    try:
        for path in runner.every_weights:
            if not path.is_file():
                raise UsageError(f"no weights at {path}; train the bundle or copy a model.pt there")
            compare_settings(path, runner.model_settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    identity = runner.identify_run(DEFAULT_ENGINE if runner.engine == AUTO else runner.engine)
    if runner.engine == AUTO:  # which is measured when a run begins
        earlier = read_identity(runner.folder.path / IDENTITY) or {}
        identity["engine"] = earlier.get("engine", DEFAULT_ENGINE)
    table = ReportTable(runner.folder, identity, list(runner.labels.values()))
    check_changes(table, overwrite=runner.overwrite)
    return table


def foresee(found: FoundInputs, rejected: Mapping[str, CaseError | None], earlier: EarlierRun) -> Iterator[Foreseen]:
    """Yields what a dry run says of each case and of each file that is not used.

    Args:
        rejected: name of a case -> why it is not for the bundle.
    """
    for case in found.cases:
        error = rejected[case.name]
        said, fails = _foresee_case(case, earlier) if error is None else (_foresee_error(error), not error.skipped)
        yield Foreseen(f"{case.name}: {case.kind.value}, {said}", fails)
    for file in found.unused:
        error = CaseError(file.reason, file.detail, skipped=not file.failed)
        yield Foreseen(f"{file.name}: {_foresee_error(error)}", file.failed)


def _foresee_error(error: CaseError) -> str:
    return f"would {'be skipped' if error.skipped else 'fail'}: {error}"


def _foresee_case(case: InputCase, earlier: EarlierRun) -> tuple[str, bool]:
    if not all(path.stat().st_size for path in case.paths):
        return "would fail: the file is empty", True
    if case.kind is CaseKind.IMAGE:
        try:
            look_at(case.paths[0])
        except (FileNotFoundError, ValueError) as error:
            return f"would fail: {to_case_error(Reason.UNREADABLE, error, case.paths[0]).detail}", True
    wanted = Wanted(case.output, stat_input(case), partial(hash_input, case))
    if earlier.is_done(case.name, wanted):
        return "done in an earlier run", False
    if failure := earlier.find_failure(case.name, wanted):
        return f"would fail as in an earlier run: {failure}", True
    return "would be segmented", False
