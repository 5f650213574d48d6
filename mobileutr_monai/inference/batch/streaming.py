"""A run over inputs that are listed while it is on, part by part, so that an archive fits through a small disk.

The cases of a part are found, segmented and reported as those of a folder are. Results, rows and promises are those of
a run over a folder with the same files, with two differences: a volume's slices must lie in one folder of the source,
and the column ``input_stat`` describes the copy of a file that was fetched.
"""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from mobileutr_monai.core.folders import check_folders
from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.core.reasons import CaseError
from mobileutr_monai.core.text import escape
from mobileutr_monai.inference.batch.delivery import Deliver, DicomWebStore, RemoteFolder
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.batch.foresight import Foreseen, foresee
from mobileutr_monai.inference.batch.pipeline import Pipeline, failed_row, hash_input, stat_input
from mobileutr_monai.inference.report.csv import Wanted
from mobileutr_monai.inference.report.earlier import EarlierRun
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.inference.report.stream_table import StreamTable
from mobileutr_monai.readers.cases import InputCase, UnusedFile
from mobileutr_monai.readers.sources.dicomweb import DicomWebSource, is_dicomweb
from mobileutr_monai.readers.sources.local import LocalSource
from mobileutr_monai.readers.sources.remote import RemoteSource, is_url
from mobileutr_monai.readers.sources.units import Fetched, Grouping, Source, Unit, gather_parts

if TYPE_CHECKING:
    from mobileutr_monai.inference.batch.runner import BatchRunner
    from mobileutr_monai.inference.cluster.ray_pipeline import RayPipeline

__all__ = ["StreamOptions", "StreamRun", "unused_row"]

logger = logging.getLogger(__name__)

FETCHED_DIR = "fetched"
PARTS_AHEAD = 1
"""Parts that are fetched while one is segmented."""
MOST_FILES, MOST_BYTES = 256, 2**30
"""Of a part, unless files that belong together are more."""
FILES_PER_ACTOR = 64
"""Of a part, with a cluster: each actor gets several tasks of it."""
_MANY_CHANNELS_2D, _MANY_CHANNELS_3D = (1, 3), (1,)


@dataclass(frozen=True)
class StreamOptions:
    """Where inputs and results lie when it is not one folder each.

    Attributes:
        file_list: file with one path per line, or ``-`` for standard input; only these inputs are used.
        work_dir: folder for the report and what is in the making, where results go to an address.
        query: which series of a DICOMweb server are used, such as ``Modality=US,StudyDate=20240101-``.
        store: also store SEG and SR on the DICOMweb server that inputs come from.
    """

    file_list: str = ""
    work_dir: str | Path = ""
    query: str = ""
    store: bool = False

    def is_needed(self, source: str | Path, output: str | Path) -> bool:
        """Whether a run is one over a stream."""
        return bool(self.file_list or self.work_dir or self.query or self.store) or is_url(source) or is_url(output)

    def open_source(self, source: str | Path, output: Path) -> Source:
        """Returns where inputs come from.

        Raises:
            UsageError: it cannot be opened.
        """
        try:
            opened = self._open(source, output)
            opened.check()
        except ValueError as error:
            raise UsageError(str(error)) from None
        return opened

    def _open(self, source: str | Path, output: Path) -> Source:
        if isinstance(source, str) and is_dicomweb(source):
            if self.file_list:
                raise ValueError("a list has files, and a DICOMweb server has series; choose them with --query")
            return DicomWebSource(source, self.query)
        if self.query or self.store:
            raise ValueError(f"--query and --store are for a DICOMweb server, https://host/dicom-web; got {source}")
        if isinstance(source, str) and is_url(source):
            return RemoteSource(source, self.file_list)
        folder = Path(source)
        if not self.file_list:
            check_folders(folder, output)
        elif not folder.is_dir():
            raise ValueError(f"{str(folder)!r} is not a folder; give the folder that the listed files lie in")
        return LocalSource(folder, self.file_list, excluded=output)

    def choose_folder(self, output: str | Path) -> OutputFolder:
        """Returns where results go; for an address, nothing is asked of it yet.

        Raises:
            UsageError: an address cannot be opened, or lacks a work folder.
        """
        if is_dicomweb(output):
            raise UsageError(
                f"{output} is a DICOMweb server: give a folder as output; --store also stores SEG and SR on the server "
                "that the inputs come from"
            )
        if not (isinstance(output, str) and is_url(output)):
            if self.work_dir:
                raise UsageError(f"a work folder is for results that go to an address; {output} is a folder")
            return OutputFolder(Path(output).absolute())
        if not self.work_dir:
            raise UsageError(
                f"results that go to {output} need a folder of this machine for the report: give one with --work"
            )
        try:
            return RemoteFolder(Path(self.work_dir).absolute(), output)
        except ValueError as error:
            raise UsageError(str(error)) from None


class _Part(NamedTuple):
    units: list[Unit]
    folder: Path
    fetched: Future[Fetched]


class StreamRun:
    """One run over a source.

    Args:
        runner: with its network and engine started.
        progress: whether to draw a progress bar.
    """

    def __init__(self, runner: BatchRunner, source: Source, progress: bool) -> None:
        self.runner, self.source, self.progress = runner, source, progress
        dims, channels = runner.segmenter.spatial_dims, runner.segmenter.network.in_channels
        usual = _MANY_CHANNELS_2D if dims == 2 else _MANY_CHANNELS_3D
        self.grouping = Grouping(volumes=dims == 3, channels=channels not in usual)
        self._listed = 0

    def segment(self, work: Path, identity: dict[str, Any]) -> dict[str, int]:
        """Segments everything; returns how many cases have each status.

        Args:
            work: folder for what is fetched or unpacked.

        Raises:
            UsageError: the source cannot be listed, or the output folder has results of other settings.
            OSError: the disk is full.
        """
        runner = self.runner
        ledger = StreamTable(runner.folder, identity, list(runner.labels.values()))
        runner.prepare_output(ledger)
        if isinstance(runner.folder, RemoteFolder):
            runner.folder.claim(is_resumed=ledger.identity_path.is_file())
        done = ledger.begin()
        if isinstance(runner.folder, RemoteFolder):
            runner.folder.claim(is_resumed=True)
        disable = None if self.progress else True
        try:
            with (
                runner.open_pipeline(identity, self._deliver) as pipeline,
                tqdm(initial=done, desc="Segmenting", unit="case", disable=disable) as bar,
            ):
                for part in self._fetch_ahead(self._list(ledger), work / FETCHED_DIR):
                    fetched = part.fetched.result()
                    for _ in self._segment_part(part, fetched, work, ledger, pipeline):
                        bar.update()
                    shutil.rmtree(part.folder, ignore_errors=True)
        except ValueError as error:  # of the listing, which is read while the run is on
            raise UsageError(str(error)) from error
        finally:
            runner.folder.discard_all()
        counts = ledger.close()
        self.check_listed()
        return counts

    def check_listed(self) -> None:
        """Checks that the source had files, after it was gone through.

        Raises:
            UsageError: it had none.
        """
        if not self._listed:
            raise UsageError(f"there are no files in {self.source.place}")

    def foresee(self, earlier: EarlierRun) -> Iterator[Foreseen]:
        """Yields what would become of each case and each file that is not used; files are fetched, and removed again.

        Raises:
            UsageError: the source cannot be listed.
        """
        with TemporaryDirectory() as name:
            for number, units in enumerate(gather_parts(self._units(), MOST_FILES, MOST_BYTES)):
                work = Path(name) / str(number)
                root, listing = self.source.fetch(units, work / FETCHED_DIR)
                found = self.runner.find_cases(work / "unpacked", root, listing)
                yield from foresee(found, self.runner.suitability.reject_all(found), earlier)
                shutil.rmtree(work, ignore_errors=True)

    @property
    def _deliver(self) -> Deliver | None:
        if self.runner.stream.store and isinstance(self.source, DicomWebSource):
            store = DicomWebStore(self.source)
            if not isinstance(self.runner.folder, RemoteFolder):
                return store.deliver
            folder = self.runner.folder

            def deliver(case: InputCase, files: Mapping[str, Path]) -> None:
                store.deliver(case, files)
                folder.deliver(case, files)

            return deliver
        return self.runner.folder.deliver if isinstance(self.runner.folder, RemoteFolder) else None

    def _units(self) -> Iterator[Unit]:
        for unit in self.source.list_units(self.grouping):
            self._listed += 1
            yield unit

    def _list(self, ledger: StreamTable) -> Iterator[Unit]:
        """Yields the units that are not done."""
        for unit in self._units():
            if ledger.is_repeated(unit.key):
                if unit.key.endswith("/"):
                    raise ValueError(
                        f"files of the folder {unit.key} do not follow one another in {self.source.place}; sort it, "
                        "since slices of a volume belong together"
                    )
                continue
            if not ledger.is_done(unit.key, self._stamp(unit)):
                yield unit

    def _stamp(self, unit: Unit) -> str:
        # What is skipped depends on it, and no result does.
        return f"{unit.stamp} any" if self.runner.suitability.any_modality else unit.stamp

    def _fetch_ahead(self, units: Iterable[Unit], folder: Path) -> Iterator[_Part]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        waiting: deque[_Part] = deque()
        try:
            with ThreadPoolExecutor(1) as pool:
                most_files = max(MOST_FILES, FILES_PER_ACTOR * self.runner.cluster.actors)
                for number, part in enumerate(gather_parts(units, most_files, MOST_BYTES)):
                    target = folder / str(number)
                    waiting.append(_Part(part, target, pool.submit(self.source.fetch, part, target)))
                    if len(waiting) > PARTS_AHEAD:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _segment_part(
        self, part: _Part, fetched: Fetched, work: Path, ledger: StreamTable, pipeline: Pipeline | RayPipeline
    ) -> Iterator[str]:
        """Yields the name of each case as it ends."""
        runner = self.runner
        unpacked = work / "archives"
        found = runner.find_cases(unpacked, fetched.root, fetched.listing)
        rejected = runner.suitability.reject_all(found)
        names = _Names(part.units)
        for file in found.unused:
            if not ledger.is_seen(file.name):
                ledger.drop(file.name)
                row = unused_row(file)
                ledger.append([row])
                names.note(file.name, row.status)
                if file.failed:
                    logger.warning("%s: %s", file.name, CaseError(file.reason, file.detail))
        todo: list[InputCase] = []
        stats: dict[str, str] = {}
        taken: set[str] = set()
        for case in found.cases:
            if ledger.is_seen(case.name):  # listed twice
                continue
            error = rejected[case.name]
            if error is not None:
                ledger.drop(case.name)
                ledger.append([failed_row(case, error)])
                names.note(case.name, "skipped" if error.skipped else "failed")
                continue
            case = replace(case, output=ledger.place(case.name, case.output, taken))
            stats[case.name] = stat_input(case)
            if ledger.resume(case.name, Wanted(case.output, stats[case.name], partial(hash_input, case))):
                names.note(case.name, "ok")
                yield case.name
            else:
                todo.append(case)
        for case, rows in pipeline.segment(todo, stats, runner.workers):
            names.note(case.name, runner.publish(case, rows, ledger))
            yield case.name
        for unit, noted in names.find_whole():
            ledger.finish_unit(unit.key, self._stamp(unit), noted)
        shutil.rmtree(unpacked, ignore_errors=True)


class _Names:
    """Which cases and other files belong to which unit, and whether one of them failed."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._of = {unit.key: number for number, unit in enumerate(units)}
        self._of |= {escape(entry.name): number for number, unit in enumerate(units) for entry in unit.entries}
        self._noted: list[list[str]] = [[] for _ in units]
        self._failed: set[int] = set()

    def note(self, name: str, status: str) -> None:
        """Notes how a case ended; what was in an archive belongs to the archive."""
        places = (name, *(parent.as_posix() for parent in PurePosixPath(name).parents))
        number = next((self._of[place] for place in places if place in self._of), None)
        if number is None:
            return
        self._noted[number].append(name)
        if status == "failed":
            self._failed.add(number)

    def find_whole(self) -> Iterator[tuple[Unit, list[str]]]:
        """Yields the units of which nothing failed, with the names of their cases and other files."""
        for number, unit in enumerate(self._units):
            if number not in self._failed and self._noted[number]:
                yield unit, self._noted[number]


def unused_row(file: UnusedFile) -> Row:
    """Returns the row of a file that gives no case."""
    status = "failed" if file.failed else "skipped"
    row = Row(case=file.name, status=status, reason=file.reason.value, detail=file.detail)
    row.study_uid, row.series_uid = file.study_uid, file.series_uid
    return row
