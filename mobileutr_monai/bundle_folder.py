"""What makes a folder a bundle, told without torch and MONAI, which take seconds to import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["require_configs"]


def require_configs(bundle: Path, names: Iterable[str] = ("inference", "metadata")) -> None:
    """Checks that a folder has a bundle's configs.

    Raises:
        FileNotFoundError: it is not there, or has not all of them.
    """
    for name in names:
        if not (bundle / "configs" / f"{name}.json").is_file():
            raise FileNotFoundError(f"{str(bundle)!r} is not a bundle: it has no configs/{name}.json")
