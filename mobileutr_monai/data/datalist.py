"""Pairs of images and masks, and the lists that say which case is for training.

Three ways in: a MONAI datalist (JSON with ``training``, ``validation``, ``testing``); the layout of the authors' code
(FengheTan9/Mobile-U-ViT), ``images/NAME.EXT`` and ``masks/0/NAME.png`` (more classes ``masks/1/`` ...), with lists of
names ``*_train1.txt``, ``*_val1.txt`` in the folder or in ``splits/``; that layout and a list by ``mobileutr split``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.data.duplicates import find_near_duplicates, group_pairs
from mobileutr_monai.data.split import split_groups

__all__ = [
    "IMAGE_SUFFIXES",
    "load_datalist",
    "make_datalist",
    "pair_cases",
    "read_names",
    "relative_case",
    "select_sections",
]


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
Item = dict[str, Any]


def load_datalist(dataset_dir: str | Path, datalist: str | Path = "", fold: int = 1) -> dict[str, list[Item]]:
    """Returns the sections of a datalist with paths that exist.

    Args:
        dataset_dir: folder that the datalist's paths are relative to.
        datalist: JSON file; if empty, ``datalist.json`` in the folder, else the text lists of the authors' layout.
        fold: which of the numbered text lists to use.

    Raises:
        FileNotFoundError: the folder, the list or one of its files does not exist.
        ValueError: the list is not a datalist, or an image has no mask.
    """
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {str(root)!r} is not a folder")
    path = Path(datalist) if datalist else root / "datalist.json"
    if datalist or path.is_file():
        return _load_json(path, root)
    train, val = _find_text_lists(root, fold)
    cases = pair_cases(root)
    return {"training": _select(cases, train), "validation": _select(cases, val)}


def make_datalist(root: Path, shares: Mapping[str, float], seed: int) -> dict[str, Any]:
    """Splits the cases of ``images/`` and ``masks/`` into a datalist; near-duplicates stay in one section.

    Args:
        shares: section -> share of the cases; the rest is ``training``.

    Returns:
        A datalist with paths relative to ``root``, and how it was made.
    """
    cases = pair_cases(root)
    pairs = find_near_duplicates({name: case["image"] for name, case in cases.items()})
    counts = {section: round(share * len(cases)) for section, share in shares.items() if share}
    sections = split_groups(group_pairs(cases, pairs), counts, "training", seed)
    datalist: dict[str, Any] = {"description": f"seed {seed}, {len(pairs)} pairs of near-duplicates kept together"}
    return datalist | {name: [relative_case(cases[case], root) for case in names] for name, names in sections.items()}


def relative_case(case: Item, root: Path) -> Item:
    """Returns a case with its paths relative to a folder."""
    image, *masks = (Path(path).relative_to(root).as_posix() for path in (case["image"], *case["label"]))
    return {"image": image, "label": masks}


def select_sections(datalist: Mapping[str, list[Item]], names: Sequence[str]) -> list[Item]:
    """Returns the cases of some sections, one after the other.

    Raises:
        ValueError: the datalist has no such section, or they are all empty.
    """
    missing = [name for name in names if name not in datalist]
    if missing:
        raise ValueError(f"the datalist has no section {missing[0]!r}, only {sorted(datalist)}")
    items = [item for name in names for item in datalist[name]]
    if not items:
        raise ValueError(f"the datalist's sections {list(names)} have no cases")
    return items


def pair_cases(root: Path) -> dict[str, Item]:
    """Pairs ``images/NAME.*`` with ``masks/<class>/NAME.*``: name -> {"image": path, "label": [path per class]}.

    Classes are in the order of their numbers, others behind them by name; hidden files and folders are left out.
    """
    images = _by_name(root / "images")
    classes = sorted((p for p in (root / "masks").glob("[!.]*") if p.is_dir()), key=_class_order)
    if not images or not classes:
        raise FileNotFoundError(f"{root} has no images/ with masks/0/ beside it; see the README for the layout")
    masks = [_by_name(folder) for folder in classes]
    for folder, found in zip(classes, masks, strict=True):
        missing = sorted(images.keys() - found.keys())
        if missing:
            raise ValueError(
                f"{len(missing)} images have no mask in {folder}, for example {images[missing[0]].name!r}; "
                "add the masks or remove the images"
            )
        extra = sorted(found.keys() - images.keys())
        if extra:
            raise ValueError(
                f"{len(extra)} masks in {folder} have no image, for example {found[extra[0]].name!r}; "
                "add the images or remove the masks"
            )
    return {name: {"image": str(path), "label": [str(m[name]) for m in masks]} for name, path in sorted(images.items())}


def read_names(path: Path) -> list[str]:
    """Returns the names in a text list, one a line, without blank lines."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _class_order(folder: Path) -> tuple[float, str]:
    return (int(folder.name) if folder.name.isdecimal() else math.inf, folder.name)


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in found:
            raise ValueError(f"{found[path.stem]} and {path.name} have the same name; rename or remove one of them")
        found[path.stem] = path
    return found


def _load_json(path: Path, root: Path) -> dict[str, list[Item]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"datalist {str(path)!r} does not exist; mobileutr split makes one") from None
    except ValueError as error:
        raise ValueError(f"datalist {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"datalist {path} must be an object with 'training' and 'validation' lists")
    sections = {name: items for name, items in content.items() if isinstance(items, list)}
    return {name: [_resolve(item, root, path) for item in items] for name, items in sections.items()}


def _resolve(item: Item, root: Path, source: Path) -> Item:
    if not isinstance(item, dict) or "image" not in item:
        raise ValueError(f"datalist {source} has an entry without an image: {item!r}")
    resolved = dict(item)
    for key in ("image", "label"):
        if key in item:
            value = item[key]
            paths = [root / v for v in (value if isinstance(value, list) else [value])]
            for path in paths:
                if not path.is_file():
                    raise FileNotFoundError(f"{path}, named as {key} in {source}, does not exist")
            resolved[key] = [str(p) for p in paths] if isinstance(value, list) else str(paths[0])
    return resolved


def _find_text_lists(root: Path, fold: int) -> tuple[Path, Path]:
    for folder in (root, root / "splits"):
        for suffix in (str(fold), ""):
            train = sorted(folder.glob(f"*train{suffix}.txt"))
            val = sorted(folder.glob(f"*val{suffix}.txt"))
            if len(train) == 1 and len(val) == 1:
                return train[0], val[0]
    raise FileNotFoundError(
        f"{root} has no datalist.json and no lists *_train{fold}.txt, *_val{fold}.txt; "
        f"make one with: mobileutr split {root} --output {root / 'datalist.json'}"
    )


def _select(cases: dict[str, Item], path: Path) -> list[Item]:
    names = read_names(path)
    unknown = [name for name in names if name not in cases]
    if unknown:
        raise ValueError(f"{path} names {len(unknown)} cases that have no image, for example {unknown[0]!r}")
    return [cases[name] for name in names]
