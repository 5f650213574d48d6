"""The report page as text: what it says of a case, and that no name or word of a run is more than text in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from mobileutr_monai.core.reasons import Reason, remedy_for
from mobileutr_monai.inference.report.page import describe_case, render_page

ROW = {
    "case": "a.png",
    "input_id": "0123",
    "kind": "image",
    "status": "ok",
    "reason": "",
    "detail": "",
    "study_uid": "",
    "series_uid": "",
    "output": "a_mask.png",
    "shape": "10 x 20",
    "label": "lesion",
    "component": "",
    "pixels": "12",
    "percent": "6.0",
    "area_mm2": "",
    "volume_ml": "",
    "diameter_px": "4.2",
    "diameter_mm": "",
    "short_diameter_px": "2.0",
    "short_diameter_mm": "",
    "components": "1",
    "frames": "",
    "outside_percent": "",
    "confidence": "0.91",
    "flag": "",
    "seconds": "0.2",
}
RUN = {"title": "b 1.0: batch report", "notice": "Research only.", "counts": {}, "labels": [], "provenance": {}}


class Blocks(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data) -> None:
        if self.lasttag == "script":
            self.scripts[-1] += data


def parse(page: str) -> Blocks:
    blocks = Blocks()
    blocks.feed(page)
    return blocks


def test_a_case_has_numbers_where_the_report_has_them():
    other = {**ROW, "label": "shadow", "pixels": "0", "confidence": "", "flag": "nothing found; many pieces"}
    case = describe_case([ROW, other], number=3)
    assert (case["name"], case["seconds"], case["number"], case["status"]) == ("a.png", 0.2, 3, "ok")
    lesion, shadow = case["labels"]
    assert (lesion["pixels"], lesion["percent"], lesion["area_mm2"], lesion["confidence"]) == (12, 6.0, None, 0.91)
    assert (lesion["flags"], shadow["flags"]) == ([], ["nothing found", "many pieces"])


@pytest.mark.parametrize("text", ["nan", "inf", ""])
def test_what_is_no_number_is_none(text):
    assert describe_case([{**ROW, "confidence": text}])["labels"][0]["confidence"] is None


def test_a_failure_has_its_reason_and_remedy():
    failed = {**ROW, "status": "failed", "reason": "took too long", "detail": "more than 10 s", "label": ""}
    case = describe_case([failed])
    assert case["labels"] == []
    assert (case["reason"], case["remedy"]) == ("took too long", "Allow more time with --time-limit.")


@pytest.mark.parametrize("reason", [*Reason], ids=lambda reason: reason.name)
def test_every_reason_has_a_remedy(reason):
    assert remedy_for(reason.value).endswith(".")


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]><img src=x onerror=alert(1)>",
    "a\"'`b\\",
    "&lt;b&gt;",
    "\u202egpj.exe",
    "caf\udce9.png",
    "line\u2028separator",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_wherever_they_come_from(name):
    harmless = parse("".join(render_page(RUN, [describe_case([ROW])])))
    row = {**ROW, "case": name, "detail": name, "label": name, "flag": name}
    run = {**RUN, "title": name, "provenance": {name: name}}
    page = "".join(render_page(run, [describe_case([row])])).encode().decode()
    blocks = parse(page)
    assert blocks.tags == harmless.tags
    assert json.loads(blocks.scripts[0])["title"] == name
    case = json.loads(blocks.scripts[1])
    assert (case["name"], case["detail"], case["labels"][0]["name"]) == (name, name, name)


def test_only_the_style_and_the_script_of_the_template_may_be_used():
    page = "".join(render_page(RUN, []))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert (allowed["default-src"], allowed["img-src"]) == ("'none'", "data:")
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


def test_nothing_is_left_of_the_marks_of_the_template():
    page = "".join(render_page(RUN, []))
    assert "<!--" not in page
    assert "<title>b 1.0: batch report</title>" in page
