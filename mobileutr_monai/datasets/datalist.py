"""The lists that say which case is for training.

Three ways in: a MONAI datalist (JSON with ``training``, ``validation``, ``testing``); a folder of images and masks
(see ``layout``) with the lists of names of the authors' code (FengheTan9/Mobile-U-ViT), ``*_train1.txt`` and
``*_val1.txt`` in the folder or in ``splits/``; such a folder with a list by ``mobileutr split``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.core.walk import is_file
from mobileutr_monai.datasets.layout import Layout, find_layout
from mobileutr_monai.datasets.masks import MaskCoding, parse_coding
from mobileutr_monai.datasets.tables import compose, is_table, normalize, read_cases, read_lines

__all__ = [
    "find_json",
    "find_lists",
    "load_datalist",
    "load_mask_coding",
    "pair_cases",
    "read_mask_coding",
    "read_sections",
    "relative_case",
    "select_sections",
]

logger = logging.getLogger(__name__)

UNLABELLED_SECTIONS = ("testing", "test")
"""Sections whose cases may be plain paths of images, as in the datalists of the Medical Segmentation Decathlon."""

Item = dict[str, Any]


def load_datalist(dataset_dir: str | Path, datalist: str | Path = "", fold: int | None = None) -> dict[str, list[Item]]:
    """Returns the sections of a datalist with paths that exist.

    Args:
        dataset_dir: folder that the datalist's paths are relative to.
        datalist: JSON file, or CSV table as for ``read_cases``; if empty, ``datalist.json`` in the folder, else the
            text lists of the authors' layout.
        fold: which of the numbered text lists to use; in a JSON list without ``validation`` whose ``training`` cases
            have a ``fold``, the cases of this one become ``validation``. None: the first, which is said.

    Raises:
        FileNotFoundError: the folder, the list or one of its files does not exist.
        ValueError: the list is not a datalist, or an image has no mask.
    """
    root = Path(dataset_dir).absolute()  # MONAI's LoadImage takes a "~" at the beginning for the home directory
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {str(dataset_dir)!r} is not a folder")
    path = find_json(root, datalist)
    if path is not None:
        sections = {name: [_resolve(i, root, path) for i in items] for name, items in read_sections(path).items()}
        return _hold_out(sections, fold, path)
    lists = find_lists(root, 1 if fold is None else fold)
    logger.info("training on %s, validating on %s", lists["training"].name, lists["validation"].name)
    cases = pair_cases(root)
    return {section: _select(cases, names) for section, names in lists.items()}


def load_mask_coding(dataset_dir: str | Path, datalist: str | Path = "") -> MaskCoding:
    """Returns the mask coding that a datalist declares; without one, masks of two values.

    Args:
        dataset_dir: as for ``load_datalist``; without a list, the folder says how files of one case go together.
        datalist: as for ``load_datalist``.
    """
    root = Path(dataset_dir)
    path = find_json(root, datalist)
    if path is not None:
        return read_mask_coding(path) or MaskCoding()
    try:
        return MaskCoding(files=find_layout(root).files)
    except FileNotFoundError:
        return MaskCoding()


def read_mask_coding(path: Path) -> MaskCoding | None:
    """Returns the mask coding that a JSON datalist declares, if it does.

    Raises:
        ValueError: what it declares is no coding.
    """
    if is_table(path):
        return None
    entry = _read_json(path).get("mask_coding")
    return None if entry is None else parse_coding(entry)


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


def pair_cases(root: Path, layout: Layout | None = None) -> dict[str, Item]:
    """Pairs images with their masks: name -> {"image": path, "label": [path, in order of the classes]}.

    Args:
        root: folder in one of the layouts that ``find_layout`` knows.
        layout: the folder's layout, if it is known already.

    Raises:
        FileNotFoundError: the folder has no such layout.
        ValueError: an image has no mask, a mask no image, or two files have the same name.
    """
    layout = layout or find_layout(root)
    if layout.same_name:
        first, second = layout.same_name[0]
        but = " but for the form of a letter" if compose(first.name) == compose(second.name) else ""
        raise ValueError(f"{first} and {second.name} have the same name{but}; rename or remove one of them")
    for index, folder in enumerate(layout.mask_folders):
        missing = layout.without_mask(index)
        if missing:
            raise ValueError(
                f"{folder} has no mask of {pluralize(len(missing), 'image')}, for example "
                f"{layout.images[missing[0]].name!r}; add the masks or remove the images"
            )
        orphans = layout.orphans[index]
        if orphans:
            raise ValueError(
                f"{folder} has {pluralize(len(orphans), 'mask')} without an image, for example {orphans[0].name!r}; "
                "add the images or remove the masks"
            )
    return {
        name: {"image": str(path), "label": [str(mask) for mask in layout.mask_files(name)]}
        for name, path in sorted(layout.images.items())
    }


def find_lists(root: Path, fold: int) -> dict[str, Path]:
    """Returns section -> text list of names, in the folder or in its ``splits/``.

    Raises:
        FileNotFoundError: there are no such lists.
        ValueError: there are several.
    """
    for folder in (root, root / "splits"):
        for suffix in (str(fold), ""):
            lists = {
                section: sorted(folder.glob(f"*{name}{suffix}.txt"))
                for section, name in (("training", "train"), ("validation", "val"))
            }
            for found in lists.values():
                if len(found) > 1 and all(lists.values()):
                    raise ValueError(
                        f"{folder} has {len(found)} lists that could be meant, {found[0].name} and {found[1].name}; "
                        "leave one of them there"
                    )
            if all(lists.values()):
                return {section: found[0] for section, found in lists.items()}
    raise FileNotFoundError(
        f"{root} has no datalist.json and no lists *_train{fold}.txt, *_val{fold}.txt; "
        f"make one with: mobileutr split {root} --output {root / 'datalist.json'}"
    )


def read_sections(path: Path) -> dict[str, list[Item]]:
    """Returns the sections of a JSON datalist as they stand there.

    Raises:
        FileNotFoundError: the list does not exist.
        ValueError: it is not a datalist.
    """
    if is_table(path):
        return _read_table_sections(path)
    sections = {name: items for name, items in _read_json(path).items() if isinstance(items, list)}
    if not sections:
        raise ValueError(f"datalist {path} has no lists of cases, such as 'training' and 'validation'")
    return {name: [_as_item(item, name, path) for item in items] for name, items in sections.items()}


def _read_table_sections(path: Path) -> dict[str, list[Item]]:
    sections: dict[str, list[Item]] = {}
    for case in read_cases(path):
        if not case.split:
            raise ValueError(
                f"{path} has no column split; make a list of it with: mobileutr split {path} --output "
                f"{path.parent / 'datalist.json'}"
            )
        image, *masks = (file.relative_to(path.parent).as_posix() for file in (case.image, *case.masks))
        sections.setdefault(case.split, []).append({"image": image, "label": masks})
    return sections


def find_json(root: Path, datalist: str | Path = "") -> Path | None:
    """Returns the JSON datalist or CSV table that is given, or the list that the folder holds, or nothing."""
    path = Path(datalist) if datalist else root / "datalist.json"
    return path if datalist or path.is_file() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"datalist {str(path)!r} does not exist; mobileutr split makes one") from None
    except ValueError as error:
        raise ValueError(f"datalist {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"datalist {path} must be an object with 'training' and 'validation' lists")
    return content


def _hold_out(sections: dict[str, list[Item]], fold: int | None, path: Path) -> dict[str, list[Item]]:
    """Makes a fold of the training cases the validation cases, where the list has folds."""
    training = sections.get("training", [])
    if "validation" in sections or not training or not all("fold" in item for item in training):
        return sections
    folds = sorted({item["fold"] for item in training})
    if fold is None:
        fold = folds[0]
        logger.warning("validating on fold %s of %s; choose another with --fold", fold, ", ".join(map(str, folds)))
    if fold not in folds:
        raise ValueError(
            f"datalist {path} has no fold {fold}, only {', '.join(map(str, folds))}; choose one with --fold"
        )
    held_out = {
        "training": [item for item in training if item["fold"] != fold],
        "validation": [item for item in training if item["fold"] == fold],
    }
    return {**sections, **held_out}


def _as_item(item: Any, section: str, source: Path) -> Item:
    if isinstance(item, str) and section in UNLABELLED_SECTIONS:
        return {"image": item}
    if not isinstance(item, dict) or "image" not in item:
        raise ValueError(f"datalist {source} has an entry without an image: {item!r}")
    return item


def _resolve(item: Item, root: Path, source: Path) -> Item:
    resolved = dict(item)
    for key in ("image", "label"):
        if key in item:
            value = item[key]
            paths = [root / v for v in (value if isinstance(value, list) else [value])]
            for path in paths:
                if not is_file(path):
                    raise FileNotFoundError(f"{path}, named as {key} in {source}, does not exist{_find_twin(path)}")
            resolved[key] = [str(p) for p in paths] if isinstance(value, list) else str(paths[0])
    return resolved


def _find_twin(path: Path) -> str:
    """Returns what to add where a file is there whose name differs in the form of a letter only."""
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    twin = any(compose(sibling.name) == compose(path.name) for sibling in siblings)
    return ", but for the form of a letter; make the list again with mobileutr split" if twin else ""


def _select(cases: dict[str, Item], path: Path) -> list[Item]:
    names = read_lines(path)
    names = [normalize(name) for name in names]
    unknown = [name for name in names if name not in cases]
    if unknown:
        raise ValueError(f"{path} names {pluralize(len(unknown), 'case')} without an image, for example {unknown[0]!r}")
    return [cases[name] for name in names]
