"""Seeded splits that keep what belongs together on one side and come out the same on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.datalist import pair_cases, relative_case
from mobileutr_monai.datasets.duplicates import find_near_duplicates, group_pairs
from mobileutr_monai.datasets.layout import Layout, find_layout, layout_of_table
from mobileutr_monai.datasets.masks import MaskCoding
from mobileutr_monai.datasets.tables import read_column

__all__ = [
    "assign_folds",
    "hash_files",
    "make_datalist",
    "read_classes",
    "read_groups",
    "read_table",
    "split_groups",
    "told_as_classes",
]

MOST_CLASSES, FEWEST_NUMBERED = 10, 4
"""Folders above which, and numbered folders from which, they are taken for groups."""


def make_datalist(
    root: Path,
    shares: Mapping[str, float],
    seed: int,
    *,
    folds: int = 0,
    classes: str | Path = "",
    groups: str | Path = "",
    coding: MaskCoding | None = None,
    pairs: Sequence[Sequence[Any]] | None = None,
    table: Path | None = None,
) -> dict[str, Any]:
    """Splits the cases of a folder into a datalist; near-duplicates stay in one section.

    Args:
        shares: section -> share of the cases; the rest is ``training``.
        folds: instead of sections, number the training cases by folds from 0; only ``testing`` is set aside.
        classes: keep the shares of the classes: see ``read_classes``. Empty: folders that are ``told_as_classes``,
            unless there are ``groups``.
        groups: images of a group (a patient) stay together: a CSV file with the columns ``image`` and ``group``, or
            ``"folder"``. Empty: folders that are not ``told_as_classes``.
        coding: what the masks' values stand for, written into the datalist.
        pairs: near-duplicates, if they are known already.
        table: CSV table of the cases, as for ``read_cases``, instead of the folder's layout; its columns give groups,
            classes and sections where there are no others.

    Returns:
        A datalist with paths relative to ``root``, and how it was made.

    Raises:
        ValueError: files are missing, in doubt or unreadable, or a section would be empty.
    """
    layout = find_layout(root) if table is None else layout_of_table(table)
    cases = pair_cases(root, layout)
    if pairs is None:
        pairs = find_near_duplicates({name: case["image"] for name, case in cases.items()})
    by_folder = bool(layout.diagnosis) and not told_as_classes(layout) and not classes
    if table is not None and layout.groups and not groups:
        groups = table
    groups = groups or ("folder" if by_folder else "")
    class_of = read_classes(layout, classes or ("none" if groups and not layout.classes else ""))
    members: dict[str, list[str]] = {}
    for name, group in (layout.groups if groups == table else read_groups(layout, groups)).items():
        members.setdefault(group, []).append(name)
    grouped = group_pairs(cases, [*pairs, *(pair for names in members.values() for pair in pairwise(names))])

    kept = f"{pluralize(len(pairs), 'pair')} of near-duplicates kept together"
    datalist: dict[str, Any] = {"description": f"seed {seed}, {kept}"}
    if members:
        source = "the folders" if groups == "folder" else Path(groups).name
        datalist["description"] += f", {pluralize(len(members), 'group')} of {source} kept together"
    if class_of:
        rule = Path(classes).name if classes else "folder"
        datalist["description"] += f", stratified by {rule} ({', '.join(sorted(set(class_of.values())))})"
    if folds:
        datalist["description"] += f", {folds} folds numbered from 0"
    datalist["inputs_sha256"] = hash_files(root, cases.values())
    if coding is not None:
        datalist["mask_coding"] = coding.to_json()
    if layout.sections:
        sections = {section: sorted(names) for section, names in layout.sections.items()}
        datalist["description"] = f"sections of {'' if table is None else table.name}"
        if "training" not in sections:
            raise ValueError(f"{table} has no row whose split is training; add some, or remove the column")
    else:
        sections = _split_strata(_make_strata(grouped, class_of), shares, seed)
        _fill_empty(sections, grouped, shares, seed)
    for section, names in sections.items():
        datalist[section] = [relative_case(cases[name], root) for name in names]
    if folds:
        in_training = set(sections["training"])
        left = [group for group in grouped if group[0] in in_training]
        fold_of = assign_folds(_make_strata(left, class_of), folds, seed)
        for name, item in zip(sections["training"], datalist["training"], strict=True):
            item["fold"] = fold_of[name]
    return datalist


def split_groups(
    groups: Sequence[Sequence[str]], counts: Mapping[str, int], rest: str, seed: int
) -> dict[str, list[str]]:
    """Assigns whole groups of names to sections.

    Groups are taken in the order of a hash of seed and first name, and fill the sections one after the other as long as
    they fit, so that neither the order of the files nor the machine matters. Then a section that is short takes larger
    groups as long as that brings it nearer to what is wanted.

    Args:
        groups: names that must stay together.
        counts: section -> number of names wanted.
        rest: section of what remains.
        seed: another seed gives another split.

    Raises:
        ValueError: the sections want all names or more.
    """
    total = sum(len(group) for group in groups)
    if sum(counts.values()) >= total:
        cases = pluralize(total, "case")
        raise ValueError(f"cannot take {sum(counts.values())} of {cases} and leave some for {rest!r}; take fewer")
    sections: dict[str, list[str]] = {name: [] for name in (*counts, rest)}
    for group in sorted(groups, key=lambda g: _digest(seed, min(g))):
        section = next((s for s, n in counts.items() if len(sections[s]) + len(group) <= n), rest)
        sections[section] += group
    for section, wanted in counts.items():
        _draw_nearer(sections[section], sections[rest], groups, wanted, seed)
    return {section: sorted(names) for section, names in sections.items()}


def _draw_nearer(
    section: list[str], rest: list[str], groups: Iterable[Sequence[str]], wanted: int, seed: int, at_least: int = 0
) -> None:
    """Moves whole groups from the rest to a section while that brings its size nearer; one group stays behind."""
    in_rest = set(rest)
    left = sorted((g for g in groups if set(g) <= in_rest), key=lambda g: (-len(g), _digest(seed, min(g))))
    while len(left) > 1:
        group = min(left, key=lambda g: abs(len(section) + len(g) - wanted))
        nearer = abs(len(section) + len(group) - wanted) < abs(len(section) - wanted)
        if not nearer and len(section) >= at_least:
            return
        left.remove(group)
        section += group
        rest[:] = [name for name in rest if name not in set(group)]


def assign_folds(strata: Mapping[str, Sequence[Sequence[str]]], folds: int, seed: int) -> dict[str, int]:
    """Numbers names by folds from 0, whole groups together, each class as even as the groups allow.

    Args:
        strata: class -> groups of names.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    total = sum(map(len, strata.values()))
    if not 2 <= folds <= total:
        some = f"take 2 to {total}" if total > 1 else "add others"
        raise ValueError(f"cannot make {folds} folds of {pluralize(total, 'group')} of cases; {some}")
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    for _, groups in sorted(strata.items()):
        of_class = [0] * folds
        for group in sorted(groups, key=lambda g: (-len(g), _digest(seed, min(g)))):
            fold = min(range(folds), key=lambda f: (of_class[f], sizes[f], f))
            of_class[fold] += len(group)
            sizes[fold] += len(group)
            fold_of |= dict.fromkeys(group, fold)
    return fold_of


def read_classes(layout: Layout, rule: str | Path = "") -> dict[str, str]:
    """Returns name -> class of the image, or nothing where classes are not known.

    Args:
        rule: ``"folder"``: the folder that the image lies in; ``"prefix"``: the letters that its name begins with;
            ``"none"``; or a CSV file with the columns ``image`` and ``class``. Empty: folders that are
            ``told_as_classes``.

    Raises:
        ValueError: the rule does not give each image a class.
    """
    if not rule and layout.classes:
        return dict(layout.classes)
    if not rule:
        return dict(layout.diagnosis) if told_as_classes(layout) else {}
    if rule == "none":
        return {}
    if rule == "folder":
        if not layout.diagnosis:
            raise ValueError("the images are not in folders of their classes; give --classes prefix or a CSV file")
        return dict(layout.diagnosis)
    if rule == "prefix":
        classes = {name: _prefix(path.stem) for name, path in layout.images.items()}
        nameless = sorted(name for name, prefix in classes.items() if not prefix)
        if nameless:
            raise ValueError(f"{nameless[0]!r} does not begin with a letter, so its name has no class; give a CSV file")
        return classes
    return read_table(Path(rule), "class", layout)


def read_groups(layout: Layout, rule: str | Path) -> dict[str, str]:
    """Returns name -> group of the image, or nothing for an empty rule.

    Args:
        rule: ``"folder"``, or a CSV file with the columns ``image`` and ``group``.

    Raises:
        ValueError: the rule does not give each image a group.
    """
    if rule != "folder":
        return read_table(Path(rule), "group", layout) if rule else {}
    if not layout.diagnosis:
        raise ValueError("the images are not in folders of their groups; give --groups a CSV file")
    return dict(layout.diagnosis)


def told_as_classes(layout: Layout) -> bool:
    """Whether the folders of images are classes, such as diagnoses; otherwise each is a group, such as a patient.

    Classes are few and large. Folders are groups where there are more than ``MOST_CLASSES``, more than images in a
    folder on average, or ``FEWEST_NUMBERED`` or more whose names differ in their numbers only. Images of a patient on
    both sides of a split are worse than shares of classes that are not kept, so what is in doubt is a group.
    """
    sizes = Counter(layout.diagnosis.values())
    if not sizes or len(sizes) > MOST_CLASSES or len(sizes) > len(layout.diagnosis) / len(sizes):
        return False
    stems = {"".join(letter for letter in name if not letter.isdigit()) for name in sizes}
    return len(sizes) < FEWEST_NUMBERED or len(stems) > 1


def read_table(path: Path, column: str, layout: Layout) -> dict[str, str]:
    """Returns name -> value of a column, from a CSV file with a column ``image`` (names with or without suffix).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or an image is missing, or rows contradict each other.
    """
    uses = Counter(image.stem for image in layout.images.values())
    keys = {
        name: [name, name + image.suffix] + [image.stem, image.name] * (uses[image.stem] == 1)
        for name, image in layout.images.items()
    }
    return read_column(path, column, keys)


def hash_files(root: Path, cases: Iterable[Mapping[str, Any]]) -> str:
    """Returns the SHA-256 of all images and masks of cases, with their names, in the order of their names."""
    paths = {
        Path(path).relative_to(root).as_posix(): Path(path)
        for case in cases
        for path in (case["image"], *case["label"])
    }
    total = hashlib.sha256()
    for name, path in sorted(paths.items()):
        total.update(f"{name} {hash_file(path)}\n".encode())
    return total.hexdigest()


def _make_strata(groups: Iterable[Sequence[str]], class_of: Mapping[str, str]) -> dict[str, list[Sequence[str]]]:
    """Returns class -> groups; a group of several classes is of the most frequent one, the first by name if equal."""
    strata: dict[str, list[Sequence[str]]] = {}
    for group in groups:
        counts = Counter(class_of.get(name, "") for name in group)
        strata.setdefault(min(counts, key=lambda c: (-counts[c], c)), []).append(group)
    return strata


def _split_strata(
    strata: Mapping[str, Sequence[Sequence[str]]], shares: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for _, groups in sorted(strata.items()):
        size = sum(map(len, groups))
        counts = {section: round(share * size) for section, share in shares.items() if share}
        for section, names in split_groups(groups, counts, "training", seed).items():
            sections.setdefault(section, []).extend(names)
    return {section: sorted(names) for section, names in sections.items()}


def _fill_empty(
    sections: dict[str, list[str]], groups: Sequence[Sequence[str]], shares: Mapping[str, float], seed: int
) -> None:
    """Gives sections that are wanted and empty, since the classes or groups are too small, whole groups of training.

    Raises:
        ValueError: there are too few groups.
    """
    total = sum(map(len, groups))
    wanted = {section: share for section, share in shares.items() if share}
    for section, share in wanted.items():
        names = sections.setdefault(section, [])
        if not names:
            _draw_nearer(names, sections["training"], groups, max(1, round(share * total)), seed, at_least=1)
            names.sort()
        if not names:
            raise ValueError(
                f"{section!r} would be empty: {pluralize(len(groups), 'group')} of cases for "
                f"{len(wanted) + 1} sections; add cases, leave a section out, or give --groups finer groups"
            )


def _prefix(stem: str) -> str:
    return stem[: next((i for i, letter in enumerate(stem) if not letter.isalpha()), len(stem))]


def _digest(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
