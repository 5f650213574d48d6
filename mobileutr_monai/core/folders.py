"""Checks of folders that need neither torch nor MONAI, which take seconds to import."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = [
    "check_folders",
    "check_inputs",
    "has_other_report",
    "overlay_path",
    "read_labels",
    "refuse_mangled",
    "require_configs",
]


def check_folders(source: Path, target: Path) -> None:
    """Checks where a run reads and writes.

    Raises:
        ValueError: there is no folder to read, or the other one is a file or within it.
    """
    if not source.is_dir():
        raise ValueError(f"{str(source)!r} is not a folder; give the folder that holds the images")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise ValueError(f"output folder {inner} lies inside the input folder; choose one outside")
    if target.exists() and not target.is_dir():
        raise ValueError(f"output folder {target} is a file; choose another one")


def check_inputs(inputs: Iterable[Path], folder: Path, target: Path) -> None:
    """Checks where a run over files and folders reads and writes.

    Args:
        folder: what holds all inputs.

    Raises:
        ValueError: an input is not there or not in the folder, or results would lie in an input or next to a file.
    """
    for path in inputs:
        if not path.exists():
            raise ValueError(f"no file or folder {str(path)!r}")
        if not path.is_relative_to(folder):
            raise ValueError(f"{str(path)!r} is not in {str(folder)!r}; give the folder that holds all inputs")
        if path.is_dir():
            check_folders(path, target)
        elif target.resolve() == path.resolve().parent:
            raise ValueError(
                f"output folder {target.resolve()} is the folder of the input {path.name}; choose another one"
            )
    if target.exists() and not target.is_dir():
        raise ValueError(f"output folder {target} is a file; choose another one")


def has_other_report(report: Path, columns: Sequence[str]) -> bool:
    """Whether a table is there that has other columns, as that of another program has."""
    try:
        with report.open(encoding="utf-8", errors="replace", newline="") as file:
            return next(csv.reader(file), []) != list(columns)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, csv.Error):
        return True


def overlay_path(weights: Path) -> Path:
    """Returns where ``mobileutr convert`` writes the config overlay of a file of weights."""
    return weights.with_name(f"{weights.stem}.overlay.json")


def read_labels(bundle: str | Path) -> list[str]:
    """Returns the names of a bundle's labels 1, 2 ... from its metadata.

    Raises:
        ValueError: the metadata lack them.
    """
    path = Path(bundle) / "configs" / "metadata.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {
            int(i): str(name) for i, name in content["network_data_format"]["outputs"]["pred"]["channel_def"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(
            f"{path} has no names of labels; add channel_def to network_data_format, outputs, pred"
        ) from None
    return [names[index] for index in sorted(names) if index > 0]


def refuse_mangled(**paths: object) -> None:
    """Checks that MONAI's parser has not changed a path: of a text it makes ``::`` of each ``#``.

    Args:
        paths: config id -> path; a ``Path`` went past the parser unchanged.

    Raises:
        ValueError: a text has ``::``.
    """
    for name, path in paths.items():
        if isinstance(path, str) and "::" in path:
            raise ValueError(
                f"{name} {path!r} contains '::', which monai.bundle run also makes of '#'; choose a path without "
                "either, or use mobileutr predict"
            )


def require_configs(bundle: Path, names: Iterable[str] = ("inference", "metadata")) -> None:
    """Checks that a folder has a bundle's configs.

    Raises:
        FileNotFoundError: it is not there, or has not all of them.
    """
    for name in names:
        if not (bundle / "configs" / f"{name}.json").is_file():
            raise FileNotFoundError(f"{str(bundle)!r} is not a bundle's folder: it has no configs/{name}.json")
