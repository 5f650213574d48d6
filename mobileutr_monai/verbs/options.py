"""What options of several verbs have in common."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobileutr_monai.core.choices import parse_formats

__all__ = [
    "amount",
    "count",
    "duration",
    "formats",
    "fraction",
    "location",
    "make_folds",
    "positive",
    "separate_table",
    "setting",
    "sides",
    "spacing",
]


def location(text: str) -> str | Path:
    """Returns a path, or an address such as ``s3://bucket/prefix`` as it is."""
    if not text.strip():  # an unset variable of a shell would be the current folder
        raise argparse.ArgumentTypeError("is empty; give a path")
    return text if "://" in text else Path(text)


def number(kind: Callable[[str], float], fits: Callable[[float], bool], allowed: str) -> Callable[[str], Any]:
    """Returns what makes a number of an option's text, or says which ones there may be."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text}")
        return value

    return parse


def numbers(kind: Callable[[str], float], fits: Callable[[float], bool], allowed: str) -> Callable[[str], list[Any]]:
    """Returns what makes a list of numbers of an option's text, with commas between them."""
    one = number(kind, fits, allowed)
    return lambda text: [one(part) for part in text.strip("[]").split(",")]


positive = number(int, lambda value: value >= 1, "a whole number, at least 1")
count = number(int, lambda value: value >= 0, "a whole number, 0 or more")
duration = number(float, lambda value: value > 0, "more than 0")
amount = number(float, lambda value: value >= 0, "0 or more")
fraction = number(float, lambda value: 0 <= value < 1, "in [0, 1)")
sides = numbers(int, lambda value: value >= 16 and value % 16 == 0, "multiples of 16 with commas, as in 256,320")
spacing = numbers(float, lambda value: value > 0, "numbers above 0 with commas, as in 1,1,1.5")


def setting(text: str) -> tuple[str, Any]:
    """Returns config id and value of a text, the value read as JSON, else as text."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"must be ID=VALUE, as in image_size=[320,416], got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def formats(text: str) -> str:
    """Returns a list of formats as it is, with commas between them, if all are known."""
    try:
        parse_formats(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def separate_table(source: Path) -> tuple[Path, Path | None]:
    """Returns the folder of a data set, and its table where a CSV file was given instead of a folder."""
    from mobileutr_monai.datasets.tables import is_table

    return (source.parent, source) if is_table(source) and not source.is_dir() else (source, None)


def make_folds(folder: Path, folds: int) -> dict[str, Any]:
    """Returns a datalist with folds of a folder that has none."""
    from mobileutr_monai.datasets.check_cases import check_to_split, check_volumes_to_split
    from mobileutr_monai.datasets.nifti_folders.layout import has_volumes, make_volume_datalist
    from mobileutr_monai.datasets.split import make_datalist

    if has_volumes(folder):
        return make_volume_datalist(folder, {}, 0, folds=folds, pairs=check_volumes_to_split(folder).pairs)
    report = check_to_split(folder)
    return make_datalist(folder, {}, 0, folds=folds, coding=report.coding, pairs=report.pairs)
