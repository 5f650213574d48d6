"""Files that are whole or absent."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

import pytest

from mobileutr_monai.core.atomic import hash_file, write_atomic, write_text


def test_a_file_that_fails_half_way_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(size))
    assert hash_file(path) == hashlib.sha256(bytes(size)).hexdigest()
