"""``report.parquet`` has the rows of ``report.csv``, with numbers as numbers."""

from __future__ import annotations

import csv

import pytest

from mobileutr_monai.inference.report import parquet as report_parquet
from mobileutr_monai.inference.report.csv import HEADER
from mobileutr_monai.inference.report.parquet import check_parquet, clear_parquet, write_parquet

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"case": "a.png", "status": "ok", "label": "lesion", "pixels": "12", "percent": "0.5", "seconds": "0.1"},
        {"case": "b;'=.png", "status": "failed", "reason": "unreadable image", "seconds": "0.0"},
    ]
    (tmp_path / "report.csv").write_bytes(HEADER if isinstance(HEADER, bytes) else HEADER.encode())
    with (tmp_path / "report.csv").open("a", newline="") as file:
        names = (tmp_path / "report.csv").read_text().splitlines()[0].split(",")
        csv.DictWriter(file, names, lineterminator="\n", restval="").writerows(rows)
    return tmp_path


@pytest.mark.parametrize("at_once", [1, 50_000])
def test_numbers_are_numbers_and_empty_cells_are_null(folder, monkeypatch, at_once):
    monkeypatch.setattr(report_parquet, "_ROWS_AT_ONCE", at_once)
    table = parquet.read_table(write_parquet(folder)).to_pylist()
    assert [(row["case"], row["pixels"], row["percent"]) for row in table] == [
        ("a.png", 12, 0.5),
        ("b;'=.png", None, None),
    ]
    assert table[1]["reason"] == "unreadable image"
    clear_parquet(folder)
    assert not (folder / "report.parquet").exists()


def test_a_table_of_another_program_is_in_the_way_and_kept(folder):
    (folder / "report.parquet").write_bytes(b"PAR1 of somebody")
    with pytest.raises(ValueError, match="was not written by this run"):
        check_parquet(folder)
    clear_parquet(folder)
    assert (folder / "report.parquet").exists()


def test_a_package_that_is_missing_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r'pip install "mobileutr-monai\[parquet\]"'):
        check_parquet(folder)
