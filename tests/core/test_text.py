"""Words of messages."""

from __future__ import annotations

import pytest

from mobileutr_monai.core.text import escape, pluralize


@pytest.mark.parametrize(("number", "words"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases")])
def test_one_is_not_called_as_several_are(number: int, words: str) -> None:
    assert pluralize(number, "case") == words


@pytest.mark.parametrize(
    ("name", "escaped"), [("a b.png", "a b.png"), ("ä\nb", "ä\\nb"), ("\udcff", "\\udcff"), ("a\\b", "a\\\\b")]
)
def test_a_name_is_one_line_that_utf_8_has(name: str, escaped: str) -> None:
    assert escape(name) == escaped
    assert escape(name).encode()
