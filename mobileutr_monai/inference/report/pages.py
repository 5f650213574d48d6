"""``report.html``, made from an output folder's ``report.csv`` and thumbnails, and more pages where there are many.

All is read and written case by case: memory does not grow with their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.text import NOTICE
from mobileutr_monai.inference.outputs.overlay import COLOURS
from mobileutr_monai.inference.outputs.table import OVERLAY_ENDINGS
from mobileutr_monai.inference.report.csv import FILE_NAME_ERRORS, read_cases, strip_ending
from mobileutr_monai.inference.report.page import describe_case, render_page
from mobileutr_monai.inference.report.thumbnails import read_thumbnail, thumbnail_path

__all__ = ["CASES_PER_FILE", "PAGE", "clear_pages", "write_pages"]

PAGE, PAGES_DIR = "report.html", "report_pages"

CASES_PER_FILE = 500
"""Pictures of more cases make a file that a phone does not open."""

SAID_ELSEWHERE = ("notice", "cases", "labels")
"""What the page has of a run's summary in another place."""


class _Placed(NamedTuple):
    """A case, its number in the report, and the file that has its thumbnails: 0 is ``report.html``."""

    number: int
    rows: Sequence[Mapping[str, str]]
    page: int


def clear_pages(folder: Path) -> None:
    """Removes the pages of an earlier run, which are of other results."""
    for path in (folder / PAGE, *(folder / PAGES_DIR).glob("page_*.html*")):
        path.unlink(missing_ok=True)
    if (folder / PAGES_DIR).is_dir() and not any((folder / PAGES_DIR).iterdir()):
        (folder / PAGES_DIR).rmdir()


def write_pages(
    folder: Path, provenance: Mapping[str, Any], labels: Iterable[str], most: int = CASES_PER_FILE
) -> list[Path]:
    """Writes ``report.html``, and beyond ``most`` cases ``report_pages/page_NNN.html`` too; returns the files.

    Then ``report.html`` has the cases that failed or are flagged, and the other files have the rest. Of flagged ones
    beyond ``most`` the thumbnails are there too.

    Args:
        folder: the output folder, with a finished ``report.csv``.
        provenance: what ran; ``bundle`` is the title.
        labels: their names, in the order of their indices.
        most: cases with thumbnails in a file.
    """
    clear_pages(folder)
    counts, paged = _count(folder, most)
    run: dict[str, Any] = {
        "title": f"{provenance['bundle']}: batch report",
        "notice": NOTICE,
        "counts": counts,
        "labels": [
            {"name": name, "colour": f"rgb{COLOURS[index % len(COLOURS)]}"} for index, name in enumerate(labels)
        ],
        "provenance": {"bundle": provenance["bundle"]}
        | {k: v for k, v in provenance.items() if k not in SAID_ELSEWHERE},
    }
    cases = (case for case in _place(folder, counts, most) if case.page)
    pages: list[dict[str, Any]] = []
    number_of_pages = -(-paged // most)
    for number in range(1, number_of_pages + 1):
        path = folder / PAGES_DIR / f"page_{number:03}.html"
        path.parent.mkdir(exist_ok=True)
        ends = _Ends(islice(cases, most))
        head = {**run, "up": "../", "page": number, "page_count": number_of_pages}
        _write(path, render_page(head, (_describe(folder, case, number) for case in ends)))
        pages.append({"file": f"{PAGES_DIR}/{path.name}", "first": ends.first, "last": ends.last})
    looked_at = (case for case in _place(folder, counts, most) if not case.page or _needs_a_look(case.rows))
    head = {**run, "up": "", "page": 0, "page_count": number_of_pages, "pages": pages}
    _write(folder / PAGE, render_page(head, (_describe(folder, case, 0) for case in looked_at)))
    return [folder / PAGE, *(folder / page["file"] for page in pages)]


class _Ends:
    """Hands cases on, and keeps the names of the first and the last one."""

    def __init__(self, cases: Iterable[_Placed]) -> None:
        self._cases, self.first, self.last = cases, "", ""

    def __iter__(self) -> Iterator[_Placed]:
        for case in self._cases:
            self.last = case.rows[0]["case"]
            self.first = self.first or self.last
            yield case


def _count(folder: Path, most: int) -> tuple[dict[str, int], int]:
    """Returns the number of cases of each status, of flagged ones and of all, and of those on pages of their own."""
    counts: Counter[str] = Counter(ok=0, failed=0, skipped=0, flagged=0, all=0)
    for rows in read_cases(folder / "report.csv"):
        counts.update([rows[0]["status"], "all"])
        counts["flagged"] += any(row["flag"] for row in rows)
    paged = sum(bool(case.page) for case in _place(folder, counts, most))
    return dict(counts), paged


def _place(folder: Path, counts: Mapping[str, int], most: int) -> Iterator[_Placed]:
    """Yields all cases with the page that they are on."""
    on_summary = on_pages = 0
    for number, rows in enumerate(read_cases(folder / "report.csv"), start=1):
        flagged = any(row["flag"] for row in rows)
        if counts["all"] <= most or rows[0]["status"] == "failed" or (flagged and on_summary < most):
            on_summary += flagged
            yield _Placed(number, rows, 0)
        else:
            yield _Placed(number, rows, on_pages // most + 1)
            on_pages += 1


def _needs_a_look(rows: Sequence[Mapping[str, str]]) -> bool:
    return rows[0]["status"] == "failed" or any(row["flag"] for row in rows)


def _describe(folder: Path, case: _Placed, page: int) -> dict[str, Any]:
    """Returns what a page shows of a case; its thumbnails only on the page that it is placed on."""
    output = case.rows[0]["output"]
    more: dict[str, Any] = {"number": case.number}
    if case.page != page:
        more["page"] = case.page
    elif output:
        more["thumbnails"] = read_thumbnail(thumbnail_path(folder, strip_ending(case.rows[0])))
    overlays = (strip_ending(case.rows[0]) + ending for ending in OVERLAY_ENDINGS)
    overlay = next((name for name in overlays if output and (folder / name).is_file()), "")
    results = {"result": output, "overlay": overlay}
    more["links"] = {name: _to_address(path) for name, path in results.items() if path}
    return describe_case(case.rows, **more)


def _to_address(path: str) -> str:
    """Returns an address relative to the output folder; file names need not be UTF-8."""
    return quote(path.encode(errors=FILE_NAME_ERRORS))


def _write(path: Path, texts: Iterable[str]) -> None:
    write_atomic(path, lambda file: file.writelines(text.encode() for text in texts))
