"""What the report of an earlier run says of cases, as a run that resumes it finds it; nothing is written."""

from __future__ import annotations

from dataclasses import replace

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.report.csv import ReportTable, Rows, Wanted, is_same, read_cases, strip_ending

__all__ = ["EarlierRun"]

_MAY_DIFFER = (
    Reason.CHANGED,
    Reason.CRASH,
    Reason.TIME,
    Reason.MEMORY,
    Reason.NETWORK,
    Reason.OUTPUT,
    Reason.IN_THE_WAY,
    Reason.NOT_DELIVERED,
    Reason.NOT_FETCHED,
)
"""Reasons for which a case that failed may go well another time."""


class EarlierRun:
    """The results in an output folder that a run of the same identity keeps, and the failures that it repeats.

    Args:
        table: of the new run, whose folder need not exist; None for no earlier run.
        has_own_stems: names of results are those of the earlier run, as in a run over a list or an address.
    """

    def __init__(self, table: ReportTable | None, *, has_own_stems: bool = False) -> None:
        self._table, self._has_own_stems = table, has_own_stems
        self._rows: dict[str, Rows] = {}
        if table is not None and not table.find_changes():
            self._rows = {rows[0]["case"]: rows for rows in read_cases(table.path)}

    def is_done(self, name: str, case: Wanted) -> bool:
        """Whether a case need not be done again."""
        rows = self._rows.get(name, [])
        stem = strip_ending(rows[0]) if rows else ""
        wanted = replace(case, stem=stem) if self._has_own_stems else case
        return (
            bool(stem) and self._table is not None and self._table.is_whole(rows, stem) and is_same(rows, wanted, stem)
        )

    def find_failure(self, name: str, case: Wanted) -> str:
        """Returns why a case failed that would fail again; empty for others."""
        row = next(iter(self._rows.get(name, ())), None)
        if row is None or row["status"] != "failed" or not case.stat or row["input_stat"] != case.stat:
            return ""
        return "" if row["reason"] in {str(reason) for reason in _MAY_DIFFER} else f"{row['reason']}: {row['detail']}"
