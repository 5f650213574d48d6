"""The files of a bundle that it is handed on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["METADATA", "list_bundle_files"]

METADATA = "configs/metadata.json"
# What describes a bundle, runs it and shows that it runs. Not what training and evaluation have left.
_PARTS = ("LICENSE", "configs", "docs", "models/model.pt", "models/model.json", "sample_data")


def list_bundle_files(bundle: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name in the bundle and the file, of what a bundle is used with.

    Raises:
        FileNotFoundError: the folder is no bundle, or has no weights.
    """
    for needed in (METADATA, "configs/inference.json", "models/model.pt"):
        if not (bundle / needed).is_file():
            raise FileNotFoundError(f"{bundle.name} is no bundle to pack: it has no {needed}")
    for part in _PARTS:
        paths = [bundle / part] if (bundle / part).is_file() else (bundle / part).rglob("*")
        yield from ((path.relative_to(bundle).as_posix(), path) for path in paths if path.is_file())
