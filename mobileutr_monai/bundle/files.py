"""The files of a bundle that it is handed on with, alone or with this package in its root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mobileutr_monai

__all__ = ["METADATA", "list_bundle_files", "list_packed_files", "make_packed_metadata"]

METADATA = "configs/metadata.json"
# What describes a bundle, runs it and shows that it runs. Not what training and evaluation have left.
_PARTS = ("LICENSE", "configs", "docs", "models/model.pt", "models/model.json", "sample_data")
_PACKAGE = Path(mobileutr_monai.__file__).parent
_DISTRIBUTION = "mobileutr-monai"
# MONAI Label has an app of its own for bundles.
_LEFT_OUT = ("monai_label",)


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


def list_packed_files(bundle: Path) -> Iterator[tuple[str, Path]]:
    """Yields what ``list_bundle_files`` does, then the package's files, as files of the bundle.

    Raises:
        FileNotFoundError: the folder is no bundle, or has no weights.
    """
    yield from list_bundle_files(bundle)
    for path in _PACKAGE.rglob("*"):
        inside = path.relative_to(_PACKAGE)
        if path.is_file() and inside.parts[0] not in _LEFT_OUT and "__pycache__" not in inside.parts:
            yield f"{_PACKAGE.name}/{inside.as_posix()}", path


def make_packed_metadata(bundle: Path) -> dict[str, Any]:
    """Returns a bundle's metadata without the requirement of this package, which is inside."""
    metadata: dict[str, Any] = json.loads((bundle / METADATA).read_text(encoding="utf-8"))
    metadata["required_packages_version"].pop(_DISTRIBUTION, None)
    return metadata
