"""What identifies a file: the SHA-256 of its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["hash_file"]

_CHUNK_BYTES = 2**20


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
