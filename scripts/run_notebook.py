"""Executes a notebook, and writes its outputs into it: ``python scripts/run_notebook.py docs/quickstart.ipynb``.

Pictures are kept as JPEG alone; Pillow's images offer PNG, too, which is several times larger.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from mobileutr_monai.core.atomic import write_text

LARGEST = 100_000
"""Bytes of a notebook."""


def main() -> int:
    """Executes and writes; returns 0, or 1 if a cell fails or the outputs are too large."""
    parser = argparse.ArgumentParser(description="Execute a notebook, and write its outputs into it.")
    parser.add_argument("notebook", type=Path, metavar="FILE")
    path = parser.parse_args().notebook
    try:
        text = nbformat.writes(execute(path)) + "\n"
    except CellExecutionError as error:
        print(f"run_notebook: error: {error}", file=sys.stderr)
        return 1
    if len(text) > LARGEST:
        print(f"run_notebook: error: {path} would have {len(text)} bytes; show smaller pictures", file=sys.stderr)
        return 1
    write_text(path, text)
    print(f"{path}: {len(text) / 1e3:.0f} kB")
    return 0


def execute(path: Path, timeout: float = 600.0) -> nbformat.NotebookNode:
    """Returns the notebook with the outputs of this Python, and without what differs from run to run.

    Args:
        timeout: seconds that one cell may take.

    Raises:
        CellExecutionError: a cell raises.
    """
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    # record_timing: off, since times would differ in each run.
    NotebookClient(
        notebook, timeout=timeout, record_timing=False, resources={"metadata": {"path": path.parent}}
    ).execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/jpeg" in data:
                data.pop("image/png", None)
                data.pop("text/plain", None)  # the address of an object
    return notebook


if __name__ == "__main__":
    sys.exit(main())
