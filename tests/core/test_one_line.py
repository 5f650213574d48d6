"""Errors of a program that MONAI runs, in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mobileutr_monai.core.folders import require_configs
from mobileutr_monai.core.program import explain_errors


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Callable[[], object]], str]:
    """Returns what is printed when a program ends with the error that a function raises, wrapped as MONAI does."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    explain_errors()

    def _show(function: Callable[[], object]) -> str:
        try:
            try:
                function()
            except Exception as error:
                raise RuntimeError("Failed to instantiate component 'CacheDataset'") from error
        except RuntimeError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        return capsys.readouterr().err

    return _show


def test_an_error_of_the_package_is_one_line(
    show: Callable[[Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = show(lambda: require_configs(Path("nowhere")))
    assert said == "mobileutr: error: 'nowhere' is not a bundle's folder: it has no configs/inference.json\n"
    monkeypatch.setenv("MOBILEUTR_TRACEBACK", "1")
    assert "Traceback" in show(lambda: require_configs(Path("nowhere")))


@pytest.mark.parametrize("function", [lambda: int("x"), lambda: 1 / 0])
def test_an_error_of_something_else_keeps_its_traceback(
    function: Callable[[], object], show: Callable[[Callable[[], object]], str]
) -> None:
    assert "Traceback" in show(function)
