"""The report page's files: which case is where, and that their number costs no memory."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import pytest

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.inference.report.csv import ReportTable
from mobileutr_monai.inference.report.pages import clear_pages, write_pages
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.inference.report.thumbnails import thumbnail_path

FILES = "_mask.png:0"
PROVENANCE = {"bundle": "b 1.0", "notice": "Research only.", "cases": {}, "weights_sha256": "abcd"}
THUMBNAIL = {"name": "", "width": 4, "height": 3, "picture": "data:image/jpeg;base64,", "contours": "data:,"}


def make_report(folder: Path, cases: int, flagged: set[int] = frozenset(), failed: set[int] = frozenset()) -> None:
    """Writes what a run leaves: ``report.csv`` and the thumbnails."""
    ledger = ReportTable(OutputFolder(folder), {}, ["lesion"])
    ledger.open({})
    for number in range(1, cases + 1):
        row = Row(case=f"{number:05}.png", kind="image", label="lesion", pixels=3, output=f"{number:05}_mask.png")
        if number in flagged:
            row.flag = "low confidence"
        if number in failed:
            row = Row(case=row.case, kind="image", status="failed", reason="took too long")
        else:
            row.files = "_mask.png:0"
            thumbnail_path(folder, "x").parent.mkdir(parents=True, exist_ok=True)
            write_text(thumbnail_path(folder, f"{number:05}"), json.dumps([THUMBNAIL]))
        ledger.append([row])
    ledger.close()


def read_page(path: Path) -> tuple[dict, list[dict]]:
    """Returns what a page has of the run and of its cases."""
    blocks = re.findall(r'<script type="application/json" [a-z]+="(\w+)">(.*?)</script>', path.read_text())
    (run,) = (json.loads(text) for kind, text in blocks if kind == "run")
    return run, [json.loads(text) for kind, text in blocks if kind == "case"]


def test_few_cases_are_on_one_page(tmp_path):
    make_report(tmp_path, 5, flagged={2}, failed={4})
    assert write_pages(tmp_path, PROVENANCE, ["lesion"], most=5) == [tmp_path / "report.html"]
    run, cases = read_page(tmp_path / "report.html")
    assert run["counts"] == {"ok": 4, "failed": 1, "skipped": 0, "flagged": 1, "all": 5}
    assert run["provenance"] == {"bundle": "b 1.0", "weights_sha256": "abcd"}
    assert [case["number"] for case in cases] == [1, 2, 3, 4, 5]
    assert [case.get("thumbnails") for case in cases] == [[THUMBNAIL]] * 3 + [None] + [[THUMBNAIL]]
    assert cases[0]["links"] == {"result": "00001_mask.png"}
    assert not (tmp_path / "report_pages").exists()


def test_many_cases_are_on_pages_and_the_summary_has_what_needs_a_look(tmp_path):
    flagged, failed = {3, 9, 10, 11}, {1, 20}
    make_report(tmp_path, 20, flagged, failed)
    paths = write_pages(tmp_path, PROVENANCE, ["lesion"], most=3)
    summary, *pages = (read_page(path) for path in paths)
    assert {case["number"] for case in summary[1]} == flagged | failed
    shown = [case["number"] for _, cases in (summary, *pages) for case in cases if case.get("thumbnails")]
    assert sorted(shown) == sorted(set(range(1, 21)) - failed), "each thumbnail is on one page"
    assert all(len(cases) <= 3 for _, cases in pages)
    assert [path.name for path in paths[1:]] == [f"page_{number:03}.html" for number in range(1, len(pages) + 1)]
    last = next(case for case in summary[1] if case["number"] == 11)
    assert "thumbnails" not in last, "three flagged ones are on the summary"
    assert 11 in [case["number"] for case in pages[last["page"] - 1][1]]
    for entry, (run, cases) in zip(summary[0]["pages"], pages, strict=True):
        assert (entry["first"], entry["last"]) == (cases[0]["name"], cases[-1]["name"])
        assert run["up"] == "../"


def test_pages_of_an_earlier_run_are_gone(tmp_path):
    make_report(tmp_path, 9)
    assert len(write_pages(tmp_path, PROVENANCE, ["lesion"], most=2)) == 6
    assert len(write_pages(tmp_path, PROVENANCE, ["lesion"], most=4)) == 4
    assert len(list((tmp_path / "report_pages").iterdir())) == 3
    (tmp_path / "report_pages" / "mine.txt").write_text("not of the run")
    clear_pages(tmp_path)
    assert [path.name for path in (tmp_path / "report_pages").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["caf\udce9", "a#b?c", "javascript:alert(1)", "sub/<b>"])
def test_links_lead_to_the_result_whatever_its_name(tmp_path, name):
    ledger = ReportTable(OutputFolder(tmp_path), {}, ["lesion"])
    ledger.open({})
    ledger.append([Row(case=name, kind="image", label="lesion", pixels=3, output=f"{name}_mask.png", files=FILES)])
    (tmp_path / f"{name}_overlay.png").parent.mkdir(exist_ok=True)
    (tmp_path / f"{name}_overlay.png").touch()
    write_pages(tmp_path, PROVENANCE, ["lesion"])
    (case,) = read_page(tmp_path / "report.html")[1]
    assert case["name"] == name
    links = {"caf\udce9": "caf%E9", "a#b?c": "a%23b%3Fc", "javascript:alert(1)": "javascript%3Aalert%281%29"}
    start = links.get(name, "sub/%3Cb%3E")
    assert case["links"] == {"result": f"{start}_mask.png", "overlay": f"{start}_overlay.png"}


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path):
    peaks = []
    for cases in (100, 1000):
        folder = tmp_path / str(cases)
        folder.mkdir()
        make_report(folder, cases, flagged=set(range(1, cases, 3)))
        write_pages(folder, PROVENANCE, ["lesion"], most=50)  # so that the template is read before
        tracemalloc.start()
        write_pages(folder, PROVENANCE, ["lesion"], most=50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.15 * peaks[0]
