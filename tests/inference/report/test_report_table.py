"""The report as it grows, where what it has to say is hostile."""

from __future__ import annotations

import csv
from pathlib import Path

from mobileutr_monai.inference.measure import Row
from mobileutr_monai.inference.report.csv import ReportTable


def make_row(folder: Path, name: str, **values: str) -> Row:
    (folder / f"{name}_mask.png").touch()
    return Row(case=name, input_id="1", output=f"{name}_mask.png", label="lesion", **values)


def test_what_a_file_says_of_itself_cannot_make_the_report_unreadable(tmp_path: Path):
    ledger = ReportTable(tmp_path, {"weights": "1"}, ["lesion"])
    ledger.open({})
    ledger.append([Row(case="liar", status="failed", reason="not an image object", detail="x" * 200_000)])
    ledger.append([make_row(tmp_path, "good")])
    # Python's csv gives up at a field of 131072 characters: the cases behind it were done again.
    assert ReportTable(tmp_path, {"weights": "1"}, ["lesion"]).open({"liar": "1", "good": "1"}) == {"good"}
    ledger.close(["good", "liar"])
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["good"]
