"""``report.csv`` of a run whose inputs are listed while it is on, so that they are never all held in memory.

What is done is looked up in a temporary database on the disk. Next to the rows lies a record of the units of the source
(``.mobileutr/units.jsonl``): a unit that is in it with the same stamp, and whose rows are there, is not fetched again.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import PurePosixPath
from typing import IO, Any

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.output_folder import OutputFolder, fold_name, parse_files
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.inference.report.csv import (
    ReportTable,
    Rows,
    Wanted,
    flag_gone,
    is_same,
    parse_rows,
    read_cases,
    strip_ending,
    to_bytes,
)

__all__ = ["StreamTable"]

logger = logging.getLogger(__name__)

UNITS = "units.jsonl"
_SCHEMA = """
CREATE TABLE cases (name TEXT PRIMARY KEY, stem TEXT, folded TEXT, start INTEGER, stop INTEGER, status TEXT,
    seen INTEGER) WITHOUT ROWID;
CREATE INDEX folded_stems ON cases (folded);
CREATE TABLE units (key TEXT PRIMARY KEY, stamp TEXT, names TEXT, seen INTEGER) WITHOUT ROWID;
"""


class StreamTable(ReportTable):
    """The rows of a run over a source.

    Call ``begin``; for each unit ``is_done``; for each case of the others ``place`` and ``resume``, and ``append`` its
    rows; ``finish_unit`` when all cases of a unit have ended; at the end ``close``.
    """

    def __init__(self, folder: OutputFolder, identity: dict[str, Any], labels: Sequence[str]) -> None:
        super().__init__(folder, identity, labels)
        # Without a name: a temporary file that SQLite removes; a few MiB of it are held in memory.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_SCHEMA}")
        self._units_path = folder.work / UNITS

    def begin(self) -> int:
        """Begins or resumes; returns how many cases of an earlier run went well and may stay.

        Rows of failures are left out, so that these cases are tried again; results of other settings are removed.
        """
        same = not self.find_changes()
        removed = 0

        def keep() -> Iterator[Rows]:
            nonlocal removed
            for rows in read_cases(self.path):
                stem = strip_ending(rows[0])
                if same and rows[0]["status"] == "skipped":
                    yield rows
                elif stem and same and self.is_whole(rows, stem):
                    yield flag_gone(rows, gone=False)
                elif stem:
                    removed += 1
                    self._remove_files(stem, rows)

        if self.identity_path.is_file() and not same:
            self._units_path.unlink(missing_ok=True)
        self._rewrite(keep())
        if removed:
            logger.warning("%s of an earlier run are removed, to be made again", pluralize(removed, "result"))
        self._read_units()
        self._database.execute("UPDATE cases SET seen = 0")
        return int(self._one("SELECT COUNT(*) FROM cases WHERE status = 'ok'"))

    def is_done(self, key: str, stamp: str) -> bool:
        """Whether a unit needs no work; its rows then belong to this run, too."""
        found = self._database.execute("SELECT names FROM units WHERE key = ? AND stamp = ?", (key, stamp)).fetchone()
        names = [] if found is None else json.loads(found[0])
        if not names or not all(map(self._has_place, names)):
            return False
        self._database.execute("UPDATE units SET seen = 1 WHERE key = ?", (key,))
        self._database.executemany("UPDATE cases SET seen = 1 WHERE name = ?", ((name,) for name in names))
        return True

    def is_repeated(self, key: str) -> bool:
        """Whether this run has begun or ended a unit of this key before; from now on it has begun it."""
        if self._one("SELECT COUNT(*) FROM units WHERE key = ? AND seen = 1", key):
            return True
        self._database.execute(
            "INSERT INTO units VALUES (?, '', '[]', 1) ON CONFLICT (key) DO UPDATE SET seen = 1", (key,)
        )
        return False

    def place(self, name: str, stem: str, taken: set[str]) -> str:
        """Returns where the results of a case go: ``stem``, or another one if that is another case's.

        Args:
            taken: folded stems of cases that have no rows yet; the new one is added.
        """
        own = self._database.execute("SELECT stem FROM cases WHERE name = ? AND status = 'ok'", (name,)).fetchone()
        if own is not None:
            taken.add(fold_name(own[0]))
            return str(own[0])
        path = PurePosixPath(stem)
        whole = path.with_name(PurePosixPath(name).name.replace(".", "_")).as_posix()
        candidates = chain((stem, whole), (f"{whole}_{number}" for number in count(2)))
        free = (name for name in candidates if fold_name(name) not in taken and not self._has_stem(name))
        chosen = next(free)
        taken.add(fold_name(chosen))
        return chosen

    def resume(self, name: str, wanted: Wanted) -> bool:
        """Whether a case is done, from an earlier run; if it is not, what that run left of it is removed."""
        rows = self._read(name)
        if rows and rows[0]["status"] == "ok" and is_same(rows, wanted, strip_ending(rows[0])):
            self._database.execute("UPDATE cases SET seen = 1 WHERE name = ?", (name,))
            return True
        self.drop(name)
        return False

    def drop(self, name: str) -> None:
        """Removes what an earlier run left of a case."""
        if rows := self._read(name):
            if stem := strip_ending(rows[0]):
                self._remove_files(stem, rows)
            self._database.execute("DELETE FROM cases WHERE name = ?", (name,))

    def _read(self, name: str) -> Rows:
        found = self._database.execute("SELECT start, stop FROM cases WHERE name = ?", (name,)).fetchone()
        if found is None:
            return []
        with self.path.open("rb") as file:
            file.seek(found[0])
            return parse_rows(file.read(found[1] - found[0]))

    def finish_unit(self, key: str, stamp: str, names: Sequence[str]) -> None:
        """Records that all cases of a unit have ended well or are skipped."""
        line = json.dumps({"key": key, "stamp": stamp, "names": list(names)})
        with self._units_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> dict[str, int]:
        """Puts the rows in the order of the cases' names, with a flag for results whose input is gone."""
        # A skipped file that is gone has nothing to show; a result stays.
        self._database.execute("DELETE FROM cases WHERE seen = 0 AND status != 'ok'")
        gone = int(self._one("SELECT COUNT(*) FROM cases WHERE seen = 0"))
        if gone:
            logger.warning("%s of inputs that are gone are kept, with a flag", pluralize(gone, "result"))
        write_atomic(self.path, self._write_sorted)
        counts = dict(self._database.execute("SELECT status, COUNT(*) FROM cases GROUP BY status").fetchall())
        self._database.close()
        return {status: int(counts.get(status, 0)) for status in ("ok", "failed", "skipped")}

    def _remove_files(self, stem: str, rows: Rows) -> None:
        if changed := self.folder.remove(stem, parse_files(rows[0]["files"])):
            logger.warning("%s changed since it was written and is kept", changed[0])

    def _note_place(self, rows: Sequence[dict[str, str]], start: int, end: int) -> None:
        stem = strip_ending(rows[0])
        values = (rows[0]["case"], stem, fold_name(stem), start, end, rows[0]["status"])
        self._database.execute("INSERT OR REPLACE INTO cases VALUES (?, ?, ?, ?, ?, ?, 1)", values)

    def is_seen(self, name: str) -> bool:
        """Whether this run has a case of this name already."""
        return bool(self._one("SELECT COUNT(*) FROM cases WHERE name = ? AND seen = 1", name))

    def _has_place(self, name: str) -> bool:
        return bool(self._one("SELECT COUNT(*) FROM cases WHERE name = ?", name))

    def _has_stem(self, stem: str) -> bool:
        return bool(self._one("SELECT COUNT(*) FROM cases WHERE folded = ?", fold_name(stem)))

    def _one(self, query: str, *values: object) -> Any:
        return self._database.execute(query, values).fetchone()[0]

    def _read_units(self) -> None:
        try:
            file = self._units_path.open(encoding="utf-8")
        except OSError:
            return
        with file:
            for line in file:
                try:
                    unit = json.loads(line)
                    values = (unit["key"], unit["stamp"], json.dumps(unit["names"]))
                except (ValueError, LookupError, TypeError):  # the last line of a run that was killed
                    continue
                self._database.execute("INSERT OR REPLACE INTO units VALUES (?, ?, ?, 0)", values)

    def _write_sorted(self, target: IO[bytes]) -> None:
        self._begin(target, ())
        # BINARY, the order of UTF-8, which is that of the characters.
        places = self._database.execute("SELECT start, stop, status, seen FROM cases ORDER BY name")
        with self.path.open("rb") as source:
            for start, stop, _, seen in places:
                source.seek(start)
                data = source.read(stop - start)
                target.write(data if seen else to_bytes(flag_gone(parse_rows(data), gone=True)))
