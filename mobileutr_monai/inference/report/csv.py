"""``report.csv`` as it grows: one row per label per case, kept over a stop, in order at the end."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from mobileutr_monai.core.atomic import write_atomic, write_text
from mobileutr_monai.core.folders import has_other_report
from mobileutr_monai.core.output_folder import OutputFolder, find_foreign, parse_files
from mobileutr_monai.core.text import guard_cell, pluralize, unguard_cell
from mobileutr_monai.inference.report.row import FLAG_SEPARATOR, Row

__all__ = [
    "GONE",
    "HEADER",
    "ReportTable",
    "Rows",
    "Wanted",
    "check_report",
    "flag_gone",
    "is_same",
    "parse_rows",
    "read_cases",
    "strip_ending",
    "to_bytes",
]

logger = logging.getLogger(__name__)

COLUMNS = [field.name for field in fields(Row)]

REPORT, IDENTITY = "report.csv", "run.json"

GONE = "input is gone"
"""Flag of a result whose input was not in the folder when the last run began."""

LONGEST_TEXT = 500
"""Characters of what a file says of itself, which may be anything; a field of csv has at most 131072."""

_FROM_FILES = ("detail", "study_uid", "series_uid")
# Of these a run with other values gives the same results: it says so in its own rows.
_NOT_OF_IDENTITY = ("versions",)
# What an identity has; a file of that name without it is of another program.
_OF_IDENTITY = ("weights_sha256", "config_sha256", "settings", "options")

FILE_NAME_ERRORS = "surrogateescape"
"""File names need not be UTF-8: the report has their bytes as they are."""

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Wanted:
    """A case of this run.

    Attributes:
        stem: where its results go, ``InputCase.output``.
        stat: of its files, see ``stat_input``.
        hash_content: returns the hash of its files' content.
    """

    stem: str
    stat: str
    hash_content: Callable[[], str]


class _Place(NamedTuple):
    """Where the rows of a case stand in the file, in bytes; the rows themselves are not kept in memory."""

    start: int
    end: int
    status: str


class ReportTable:
    """The rows of a run in ``report.csv`` of its output folder, and what they say about its files.

    While the run is on, rows are appended as cases end, before their files get their names, so that a killed run loses
    at most the cases it was at, and every result is listed; ``run.json`` says with which weights and options it was
    begun. When it has ended, the rows are put in the order of the cases.

    Args:
        folder: the output folder.
        identity: weights, config, settings and options, which decide the results, and versions, which are noted.
        labels: names of the labels; a case that went well has one row for each.
    """

    def __init__(self, folder: OutputFolder, identity: dict[str, Any], labels: Sequence[str]) -> None:
        self.folder = folder
        self.path, self.identity_path = folder.path / REPORT, folder.path / IDENTITY
        self.identity, self.labels = identity, list(labels)
        self._places: dict[str, _Place] = {}

    def find_changes(self) -> list[str]:
        """Returns in what an earlier run here differs from this one; nothing if there was none."""
        earlier = read_identity(self.identity_path)
        if earlier is None:
            return []
        keys = [key for key in {*earlier, *self.identity} if key not in _NOT_OF_IDENTITY]
        changes = []
        for key in sorted(keys):
            old, new = earlier.get(key), self.identity.get(key)
            if old != new and isinstance(old, dict) and isinstance(new, dict):
                names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
                changes += [f"{name} ({old.get(name)}, now {new.get(name)})" for name in names]
            elif old != new:
                changes.append(key.removesuffix("_sha256"))
        return changes

    def open(self, wanted: Mapping[str, Wanted], others: Iterable[str] = ()) -> set[str]:
        """Begins or resumes; returns the names of cases that need not be done again.

        Those are the cases that went well in a run of the same identity, whose input has the same content and whose
        results are there as they were written. Results of inputs that are gone stay, and get a flag. All other results
        of the earlier run are removed, unless somebody has changed them.

        Args:
            wanted: name of a case -> what it is now.
            others: names of inputs of this run that are not to be segmented.
        """
        same = not self.find_changes()
        known = {*wanted, *others}
        stems = {case.stem for case in wanted.values()}
        removed: list[str] = []
        changed: list[str] = []

        def keep() -> Iterator[Rows]:
            for rows in read_cases(self.path):
                name, stem = rows[0]["case"], strip_ending(rows[0])
                if not stem:
                    continue
                whole = same and self.is_whole(rows, stem)
                if whole and name in wanted and is_same(rows, wanted[name], stem):
                    yield flag_gone(rows, gone=False)
                elif whole and name not in known and stem not in stems:
                    yield flag_gone(rows, gone=True)
                else:
                    removed.append(name)
                    changed.extend(self.folder.remove(stem, parse_files(rows[0]["files"])))

        self._rewrite(keep())
        if removed:
            logger.warning("%s of an earlier run are removed, to be made again", pluralize(len(removed), "result"))
        if changed:
            logger.warning(
                "%s changed since it was written and is kept; such files: %d", sorted(changed)[0], len(changed)
            )
        gone = len(self._places.keys() - wanted.keys())
        if gone:
            logger.warning("%s of inputs that are gone are kept, with the flag %r", pluralize(gone, "result"), GONE)
        return self._places.keys() & wanted.keys()

    def _rewrite(self, cases: Iterable[Rows]) -> None:
        """Has the file begin with these cases of an earlier run."""
        # At any time the folder says that it is a run's; it says of which one after other results are gone.
        begun = read_identity(self.identity_path) is not None
        if not begun:
            self._write_identity()
        write_atomic(self.path, lambda file: self._begin(file, cases))
        if begun:
            self._write_identity()

    def append(self, rows: Sequence[Row]) -> None:
        """Adds the rows of a case, and forces them to the disk: files get their names behind them."""
        texts = [{key: "" if value is None else str(value) for key, value in vars(row).items()} for row in rows]
        for text in texts:
            text.update({key: _shorten(text[key]) for key in _FROM_FILES})
        with self.path.open("ab") as file:
            self._write_case(file, texts)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> dict[str, int]:
        """Puts the rows in the order of the cases' names; returns how many cases have each status."""
        names = sorted(self._places)
        write_atomic(self.path, lambda file: self._copy(names, file))
        statuses = [self._places[name].status for name in names]
        return {status: statuses.count(status) for status in ("ok", "failed", "skipped")}

    def is_whole(self, rows: Rows, stem: str) -> bool:
        """Whether a case went well and its results are as they were written."""
        return (
            [row["label"] for row in rows if not row["component"]] == self.labels
            and all(row["status"] == "ok" for row in rows)
            and self.folder.is_whole(stem, parse_files(rows[0]["files"]), rows[0]["output"].removeprefix(stem))
        )

    def _write_identity(self) -> None:
        write_text(self.identity_path, json.dumps(self.identity, indent=2, sort_keys=True) + "\n")

    def _begin(self, file: IO[bytes], cases: Iterable[Rows]) -> None:
        file.write(HEADER)
        for rows in cases:
            if not self._has_place(rows[0]["case"]):
                self._write_case(file, rows)

    def _write_case(self, file: IO[bytes], rows: Sequence[dict[str, str]]) -> None:
        data = to_bytes(rows)
        start = file.seek(0, io.SEEK_END)
        file.write(data)
        self._note_place(rows, start, start + len(data))

    def _has_place(self, name: str) -> bool:
        return name in self._places

    def _note_place(self, rows: Sequence[dict[str, str]], start: int, end: int) -> None:
        self._places[rows[0]["case"]] = _Place(start, end, rows[0]["status"])

    def _copy(self, names: Iterable[str], target: IO[bytes]) -> None:
        target.write(HEADER)
        with self.path.open("rb") as source:
            for name in names:
                place = self._places[name]
                source.seek(place.start)
                target.write(source.read(place.end - place.start))


def check_report(folder: Path) -> None:
    """Checks that a folder is empty or holds a run of this program, so that nothing of somebody else is touched.

    Raises:
        ValueError: it holds anything else.
    """
    is_run = read_identity(folder / IDENTITY) is not None
    if is_run and not has_other_report(folder / REPORT, COLUMNS):
        return
    foreign = find_foreign(folder)
    if is_run:
        raise ValueError(f"{folder / REPORT} is not of this version of mobileutr; choose another output folder")
    if foreign:
        raise ValueError(
            f"output folder {folder} holds other files ({foreign}) and no run of mobileutr; choose an empty folder"
        )


def read_cases(path: Path) -> Iterator[Rows]:
    """Yields the rows of each case in a ``report.csv``, without what was being written when the run was killed."""
    try:
        file = path.open(encoding="utf-8", errors=FILE_NAME_ERRORS, newline="")
    except OSError:
        return
    with file:
        whole = (line for line in file if line.endswith("\n"))
        rows: Rows = []
        try:
            for row in csv.DictReader(whole):
                if set(row) != set(COLUMNS) or None in row.values():
                    continue
                row = _unguard(row)
                if rows and row["case"] != rows[0]["case"]:
                    yield rows
                    rows = []
                rows.append(row)
        except csv.Error:  # not a report of ours, or cut within quotes: what was read before it counts
            pass
        if rows:
            yield rows


def parse_rows(data: bytes) -> Rows:
    """Returns the rows of a case from its part of a ``report.csv``."""
    text = io.StringIO(data.decode(errors=FILE_NAME_ERRORS), newline="")
    return [_unguard(row) for row in csv.DictReader(text, COLUMNS)]


def strip_ending(row: Mapping[str, str]) -> str:
    """Returns what the names of all results of a case begin with, ``InputCase.output``; empty for a case without."""
    output = PurePosixPath(row["output"])
    if output.is_absolute() or ".." in output.parts:  # a report that somebody has changed
        return ""
    endings = sorted(parse_files(row["files"]), key=len, reverse=True)
    return next((row["output"].removesuffix(ending) for ending in endings if row["output"].endswith(ending)), "")


def _unguard(row: Mapping[str, str]) -> dict[str, str]:
    return {key: unguard_cell(value) for key, value in row.items()}


def is_same(rows: Rows, case: Wanted, stem: str) -> bool:
    """Whether the rows are of the case as it is now; sizes and times that differ are noted if the content does not."""
    if stem != case.stem or not case.stat:
        return False
    if rows[0]["input_stat"] != case.stat:
        if rows[0]["input_id"] != case.hash_content():
            return False
        for row in rows:
            row["input_stat"] = case.stat
    return True


def flag_gone(rows: Rows, gone: bool) -> Rows:
    """Returns the rows of a case with or without the flag of a result whose input is gone."""
    for row in rows:
        flags = [flag for flag in row["flag"].split(FLAG_SEPARATOR) if flag and flag != GONE]
        row["flag"] = FLAG_SEPARATOR.join([*flags, *([GONE] if gone else [])])
    return rows


def read_identity(path: Path) -> dict[str, Any] | None:
    """Returns what a run said it was, None where there is none, or a file of another program."""
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(identity, dict) and all(key in identity for key in _OF_IDENTITY)
    return identity if is_ours else None


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def to_bytes(rows: Sequence[dict[str, str]]) -> bytes:
    """Returns rows as they stand in the file."""
    text = io.StringIO(newline="")
    csv.DictWriter(text, COLUMNS).writerows({key: guard_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode(errors=FILE_NAME_ERRORS)


HEADER = to_bytes([dict(zip(COLUMNS, COLUMNS, strict=True))])
