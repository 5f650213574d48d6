"""The notebook of the docs runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def list_outputs(notebook) -> list[str]:
    """Returns the text of each output, ``picture`` for a picture."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [
        "picture" if "image/jpeg" in output.get("data", {}) else output.get("text") or output["data"]["text/plain"]
        for output in outputs
    ]


@pytest.mark.slow
def test_the_quickstart_shows_what_it_says(repository: Path) -> None:
    from scripts.run_notebook import LARGEST, execute

    path = repository / "docs" / "quickstart.ipynb"
    assert path.stat().st_size <= LARGEST
    committed, found = list_outputs(nbformat.read(path, as_version=4)), list_outputs(execute(path))
    assert found.count("picture") == 3
    assert len(committed) == len(found)
    for old, new in zip(committed, found, strict=True):
        assert NUMBER.sub("#", old) == NUMBER.sub("#", new)
        # A pixel at a threshold may fall on the other side on another processor.
        numbers = [list(map(float, NUMBER.findall(text))) for text in (old, new)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02)
