"""``report.csv`` as it grows: a row a label of a case, kept over a stop, in order at the end."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any, NamedTuple

from mobileutr_monai.core.atomic import write_atomic, write_text
from mobileutr_monai.core.folders import has_other_report
from mobileutr_monai.inference.measure import Row

__all__ = ["ReportTable", "check_report", "read_cases"]

logger = logging.getLogger(__name__)

COLUMNS = [field.name for field in fields(Row)]

REPORT, IDENTITY = "report.csv", "run.json"

LONGEST_TEXT = 500
"""Characters of what a file says of itself, which may be anything; a field of csv has at most 131072."""

_FROM_FILES = ("detail", "study_uid", "series_uid")

FILE_NAME_ERRORS = "surrogateescape"
"""File names need not be UTF-8: the report has their bytes as they are."""


class _Place(NamedTuple):
    """Where the rows of a case stand in the file, in bytes; the rows themselves are not kept in memory."""

    start: int
    end: int
    status: str


class ReportTable:
    """The rows of a run in ``report.csv`` of its output folder.

    While the run is on, rows are appended as cases end, so that a killed run loses at most the cases it was at;
    ``run.json`` says with which weights and options it was begun. When it has ended, the rows are put in the order of
    the cases.

    Args:
        folder: the output folder.
        identity: weights, options and versions; rows of a run with another identity are not taken over.
        labels: names of the labels; a case that went well has a row of each.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], labels: Sequence[str]) -> None:
        self.path, self.identity_path = folder / REPORT, folder / IDENTITY
        self.identity, self.labels = identity, list(labels)
        self._places: dict[str, _Place] = {}

    def open(self, input_ids: dict[str, str]) -> set[str]:
        """Begins or goes on; returns the names of cases that need not be done again.

        Those are the cases that went well in a run of the same identity, whose input is unchanged and whose output is
        there.

        Args:
            input_ids: name of a case -> what changes when its files do.
        """
        kept: Iterable[list[dict[str, str]]] = []
        earlier = self._read_identity()
        if earlier == self.identity:
            kept = (
                rows
                for rows in read_cases(self.path)
                if [row["label"] for row in rows] == self.labels
                and all(self._is_whole(row, input_ids.get(row["case"])) for row in rows)
            )
        elif earlier is not None:
            changed = sorted(k for k in {*earlier, *self.identity} if earlier.get(k) != self.identity.get(k))
            logger.warning(
                "an earlier run here had other %s: its results are removed, all cases are done again",
                ", ".join(changed),
            )
        write_atomic(self.path, lambda file: self._begin(file, kept))
        write_text(self.identity_path, json.dumps(self.identity, indent=2, sort_keys=True) + "\n")
        return set(self._places)

    def append(self, rows: Sequence[Row]) -> None:
        """Adds the rows of a case."""
        texts = [{key: "" if value is None else str(value) for key, value in asdict(row).items()} for row in rows]
        for text in texts:
            text.update({key: _shorten(text[key]) for key in _FROM_FILES})
        with self.path.open("ab") as file:
            self._write_case(file, texts)

    def close(self, order: Iterable[str]) -> dict[str, int]:
        """Puts the rows in the order of the cases; returns how many cases have each status."""
        names = [name for name in order if name in self._places]
        write_atomic(self.path, lambda file: self._copy(names, file))
        statuses = [self._places[name].status for name in names]
        return {status: statuses.count(status) for status in ("ok", "failed", "skipped")}

    def _begin(self, file: IO[bytes], cases: Iterable[list[dict[str, str]]]) -> None:
        file.write(_to_bytes([dict(zip(COLUMNS, COLUMNS, strict=True))]))
        for rows in cases:
            if rows[0]["case"] not in self._places:
                self._write_case(file, rows)

    def _write_case(self, file: IO[bytes], rows: Sequence[dict[str, str]]) -> None:
        data = _to_bytes(rows)
        start = file.seek(0, io.SEEK_END)
        file.write(data)
        self._places[rows[0]["case"]] = _Place(start, start + len(data), rows[0]["status"])

    def _copy(self, names: Iterable[str], target: IO[bytes]) -> None:
        target.write(_to_bytes([dict(zip(COLUMNS, COLUMNS, strict=True))]))
        with self.path.open("rb") as source:
            for name in names:
                place = self._places[name]
                source.seek(place.start)
                target.write(source.read(place.end - place.start))

    def _is_whole(self, row: dict[str, str], input_id: str | None) -> bool:
        output = self.path.parent / row["output"]
        return row["status"] == "ok" and row["input_id"] == input_id and bool(row["output"]) and output.is_file()

    def _read_identity(self) -> dict[str, Any] | None:
        try:
            identity: dict[str, Any] = json.loads(self.identity_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return identity


def check_report(folder: Path) -> None:
    """Checks that a folder has no ``report.csv`` but one of a run; the first file of a run that was killed is one, too.

    Raises:
        ValueError: it has another.
    """
    if not (folder / IDENTITY).is_file() and has_other_report(folder / REPORT, COLUMNS):
        raise ValueError(f"{folder / REPORT} is not of a run with a bundle; choose another output folder")


def read_cases(path: Path) -> Iterator[list[dict[str, str]]]:
    """Yields the rows of each case in a ``report.csv``, without what was being written when the run was killed."""
    try:
        file = path.open(encoding="utf-8", errors=FILE_NAME_ERRORS, newline="")
    except OSError:
        return
    with file:
        whole = (line for line in file if line.endswith("\n"))
        rows: list[dict[str, str]] = []
        try:
            for row in csv.DictReader(whole):
                if set(row) != set(COLUMNS) or None in row.values():
                    continue
                if rows and row["case"] != rows[0]["case"]:
                    yield rows
                    rows = []
                rows.append(row)
        except csv.Error:  # not a report of ours, or cut within quotes: what was read before it counts
            pass
        if rows:
            yield rows


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _to_bytes(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, COLUMNS).writerows(rows)
    return text.getvalue().encode(errors=FILE_NAME_ERRORS)
