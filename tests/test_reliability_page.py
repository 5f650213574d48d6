"""The page on reliability says what the committed results say."""

from __future__ import annotations


def test_tables_are_those_of_the_committed_results(python):
    process = python("scripts/make_reliability_page.py", "--check")
    assert process.returncode == 0, process.stderr
