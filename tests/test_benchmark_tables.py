"""Tables of measurements in the pages are what the benchmarks' JSON says."""

from __future__ import annotations


def test_no_table_is_stale(python, repository):
    process = python(repository / "benchmarks" / "make_tables.py", "--check")
    assert process.returncode == 0, process.stdout + process.stderr
