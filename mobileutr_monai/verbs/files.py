"""Files that verbs read and write."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["keep_existing", "require_file", "write_json"]


def require_file(path: Path | None, what: str) -> None:
    """Raises FileNotFoundError if a path that was given is no file; ``what`` says what it should hold."""
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")


def keep_existing(path: Path, overwrite: bool) -> None:
    """Raises FileExistsError if a file is there that may not be replaced, IsADirectoryError if a folder is."""
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give a file as --output")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already; choose another --output, or give --overwrite")


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file, in a folder that is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
