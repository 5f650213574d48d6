"""Files that are whole or absent, and the hash that identifies their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

__all__ = ["hash_file", "is_temporary", "temporary_path", "write_atomic", "write_text"]

_CHUNK_BYTES = 2**20
_TEMPORARY = ".tmp"


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file under another name, forces it to the disk, and gives it its name."""
    temporary = temporary_path(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Returns the name that a file has while it is written; one that is left was being written by a killed run."""
    return path.with_name(f"{path.name}{_TEMPORARY}")


def is_temporary(path: Path) -> bool:
    """Whether a file has a name of ``temporary_path``."""
    return path.name.endswith(_TEMPORARY)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8 atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
