"""A run as a page for people: what is known of its cases in, the text of one HTML file out.

The page is ``page.html`` with its styles and its script, and blocks of JSON in between. Names and words of a run
are only in these blocks: nothing of them is markup, wherever they come from.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from mobileutr_monai.core.reasons import remedy_for
from mobileutr_monai.inference.report.row import FLAG_SEPARATOR

__all__ = ["describe_case", "render_page"]

TITLE, POLICY, DATA = "<!--title-->", "<!--policy-->", "<!--data-->"
"""What the template has where the page's title, its security policy and its data go."""

NUMBERS = (
    "pixels",
    "percent",
    "area_mm2",
    "volume_ml",
    "diameter_px",
    "diameter_mm",
    "short_diameter_px",
    "short_diameter_mm",
    "components",
    "frames",
    "outside_percent",
)


def describe_case(rows: Sequence[Mapping[str, str]], **more: object) -> dict[str, Any]:
    """Returns what the page shows of a case.

    Args:
        rows: of the case in ``report.csv``, one per label; those of components are not shown.
        more: besides: ``number`` in the report, ``thumbnails``, ``links`` (name -> address), and ``page`` where the
            thumbnails are on another one.
    """
    first = rows[0]
    labels = [
        {
            "name": row["label"],
            **{name: _to_number(row[name]) for name in (*NUMBERS, "confidence")},
            "flags": row["flag"].split(FLAG_SEPARATOR) if row["flag"] else [],
        }
        for row in rows
        if row["label"] and not row["component"]
    ]
    texts = {name: first[name] for name in ("kind", "status", "reason", "detail", "study_uid", "series_uid", "shape")}
    return {
        "name": first["case"],
        **texts,
        "remedy": remedy_for(first["reason"]),
        "seconds": _to_number(first["seconds"]),
        "labels": labels,
        **more,
    }


def render_page(run: Mapping[str, Any], cases: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the text of a page piece by piece, so that no more than one case is in memory.

    Args:
        run: what the page says of the run: ``title``, ``notice``, ``counts``, ``labels`` (``name`` and ``colour``),
            ``provenance``, ``up`` (path to the output folder), ``page`` (0 for the summary), ``pages``.
        cases: what ``describe_case`` returns.
    """
    before, after = _read_template()
    title = html.escape(str(run["title"])).encode("ascii", "xmlcharrefreplace").decode()
    yield before.replace(TITLE, title)
    yield _embed(run, 'id="run"')
    for case in cases:
        yield _embed(case, 'class="case"')
    yield after


@cache
def _read_template() -> tuple[str, str]:
    """Returns what comes before and after the data; the policy lets nothing run or load but what the template has."""
    text = (files(__package__) / "page.html").read_text(encoding="utf-8")
    style, script = (_hash_of(tag, text) for tag in ("style", "script"))
    policy = f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; base-uri 'none'"
    before, _, after = text.replace(POLICY, policy).partition(DATA)
    return before, after


def _hash_of(tag: str, text: str) -> str:
    """Returns the hash of the only element of a kind, as a Content-Security-Policy has it."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _embed(value: Mapping[str, Any], attribute: str) -> str:
    """Returns a block of data in ASCII, in which no tag or comment can begin."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" {attribute}>{text}</script>\n'


def _to_number(text: str) -> float | None:
    """Returns the number in a cell of the report, None if it is empty or not finite."""
    number = float(text or "nan")
    return number if math.isfinite(number) else None
