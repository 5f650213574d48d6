"""The page on results says what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_column_reference_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    from make_column_reference import main

    assert main(["--check"]) == 0
