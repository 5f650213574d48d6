"""``report.csv`` as it grows: a row a label of a case, kept over a stop, in order at the end."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mobileutr_monai.inference.outputs import write_text
from mobileutr_monai.inference.report import Row

__all__ = ["Ledger"]

logger = logging.getLogger(__name__)

COLUMNS = [field.name for field in fields(Row)]


class Ledger:
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
        self.path, self.identity_path = folder / "report.csv", folder / "run.json"
        self.identity, self.labels = identity, list(labels)
        self._rows: dict[str, list[dict[str, str]]] = {}

    def open(self, input_ids: dict[str, str]) -> set[str]:
        """Begins or goes on; returns the names of cases that need not be done again.

        Those are the cases that went well in a run of the same identity, whose input is unchanged and whose output is
        there.

        Args:
            input_ids: name of a case -> what changes when its files do.
        """
        kept: dict[str, list[dict[str, str]]] = {}
        earlier = self._read_identity()
        if earlier == self.identity:
            kept = {
                name: rows
                for name, rows in self._read_rows().items()
                if [row["label"] for row in rows] == self.labels
                and all(self._is_whole(row, input_ids.get(name)) for row in rows)
            }
        elif earlier is not None:
            changed = sorted(k for k in {*earlier, *self.identity} if earlier.get(k) != self.identity.get(k))
            logger.warning("an earlier run here had other %s: all cases are done again", ", ".join(changed))
        self._rows = kept
        self._write_all(kept.values())
        write_text(self.identity_path, json.dumps(self.identity, indent=2, sort_keys=True) + "\n")
        return set(kept)

    def append(self, rows: Sequence[Row]) -> None:
        """Adds the rows of a case."""
        texts = [{key: "" if value is None else str(value) for key, value in asdict(row).items()} for row in rows]
        self._rows[rows[0].case] = texts
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerows(texts)

    def close(self, order: Iterable[str]) -> dict[str, int]:
        """Writes the rows in the order of the cases; returns how many cases have each status."""
        names = [name for name in order if name in self._rows]
        self._write_all(self._rows[name] for name in names)
        statuses = [self._rows[name][0]["status"] for name in names]
        return {status: statuses.count(status) for status in ("ok", "failed", "skipped")}

    def _is_whole(self, row: dict[str, str], input_id: str | None) -> bool:
        output = self.path.parent / row["output"]
        return row["status"] == "ok" and row["input_id"] == input_id and bool(row["output"]) and output.is_file()

    def _read_identity(self) -> dict[str, Any] | None:
        try:
            identity: dict[str, Any] = json.loads(self.identity_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return identity

    def _read_rows(self) -> dict[str, list[dict[str, str]]]:
        """Returns the rows by case, without what was being written when the run was killed."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError):
            return {}
        whole = [line for line in lines if line.endswith("\n")]
        rows: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(whole):
            if set(row) == set(COLUMNS) and None not in row.values():
                rows.setdefault(row["case"], []).append(row)
        return rows

    def _write_all(self, cases: Iterable[list[dict[str, str]]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        for rows in cases:
            writer.writerows(rows)
        write_text(self.path, text.getvalue())
