"""Writes the columns of ``report.csv`` into ``docs/results.md``; ``--check`` says whether they are there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from make_card import replace_block

from mobileutr_monai.inference.report.row import describe_columns

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
UNITS = {"_px": "px", "_mm": "mm", "_mm2": "mm²", "_ml": "ml", "percent": "%", "seconds": "s", "pixels": "px"}
"""How a column's name ends -> its unit."""


def make_table() -> str:
    """Returns the reference as a markdown table."""
    rows = [f"| `{name}` | {find_unit(name)} | {meaning} |" for name, meaning in describe_columns()]
    return "\n".join(("| column | unit | meaning |", "| --- | --- | --- |", *rows))


def find_unit(name: str) -> str:
    """Returns the unit of a column, which its name ends with; empty for a column without."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def render(text: str) -> str:
    """Returns the page with the reference as the code has it."""
    return replace_block(text, "columns", make_table(), "make_column_reference.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page; returns 1 if ``--check`` finds it stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page is stale")
    options = parser.parse_args(arguments)
    text = PAGE.read_text(encoding="utf-8")
    rendered = render(text)
    if options.check and rendered != text:
        print(f"{PAGE.name}: the columns are not those of the code; run scripts/make_column_reference.py")
        return 1
    if not options.check:
        PAGE.write_text(rendered, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
