"""Finds what is wrong with a data set of 2D images before anything is trained on it; files are read as training does.

Images are read one at a time; of each only a thumbnail and a few numbers are kept. Not looked for: text burned into the
images, which no simple rule tells from anatomy.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from mobileutr_monai.core.walk import is_file
from mobileutr_monai.datasets.datalist import find_json, find_lists, read_lines, read_mask_coding, read_sections
from mobileutr_monai.datasets.duplicates import make_thumbnail, pair_thumbnails
from mobileutr_monai.datasets.layout import Layout, find_layout, layout_of_table
from mobileutr_monai.datasets.masks import MaskCoding, ValueCounts, guess_coding, parse_coding, read_mask
from mobileutr_monai.datasets.problems import (
    CONFLICT_DICE,
    ERROR,
    HUGE,
    KINDS,
    NEARLY_FULL,
    TINY,
    WARNING,
    Problem,
    ProblemAdder,
    Report,
)
from mobileutr_monai.datasets.split import read_classes
from mobileutr_monai.datasets.tables import is_table
from mobileutr_monai.readers.image_content import TRANSPARENT_MODES, ImageContent
from mobileutr_monai.readers.pillow_io import look_at, open_image

__all__ = ["ERROR", "KINDS", "WARNING", "Case", "Problem", "Report", "check_folder", "examine_cases"]

NARROW_16_BIT = 65535 // 16
"""Highest value of a 16-bit image under which at most 16 of 256 grey levels are left after scaling."""

MASK_THUMBNAIL_SIDE = 32

REMEMBERED = 20_000
"""Cases of which what was found is kept, so that the folds of a cross-validation are not read again."""

TURNED = range(5, 9)
"""Values of EXIF's orientation tag that exchange width and height."""

QUIET_SUFFIXES = (".txt", ".csv", ".json", ".md", ".db", ".ini", ".xlsx", ".pdf", ".html")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Case:
    """A case, the section that it is in, and what is kept of its pixels."""

    name: str
    image: Path
    masks: list[Path]
    section: str = ""
    digest: str = ""
    thumbnail: np.ndarray | None = None
    mask: np.ndarray | None = None


def check_folder(
    root: Path,
    *,
    datalist: str | Path | None = "",
    fold: int = 1,
    coding: MaskCoding | str | None = None,
    classes: str | Path = "",
) -> Report:
    """Checks the images and masks of a folder, and of the list that says which are for training, if there is one.

    Args:
        root: folder in one of the layouts of ``find_layout``, or that the datalist's paths are relative to.
        datalist: as for ``load_datalist``; None: no list, even if the folder has one.
        fold: as for ``load_datalist``.
        coding: what the masks' values stand for; default: what the datalist declares, else guessed from all masks.
        classes: where the classes of the images are from, as for ``read_classes``.

    Raises:
        FileNotFoundError: the folder has no such layout and no datalist.
        ValueError: the datalist or the classes cannot be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{str(root)!r} is not a folder; give the folder that holds the images")
    report = Report(root)
    path = None if datalist is None else find_json(root, datalist)
    table = path if path is not None and is_table(path) else None
    try:
        layout = find_layout(root) if table is None else layout_of_table(table)
    except FileNotFoundError:
        if path is None:
            raise
        layout = _layout_of_list(root, path)
    add = ProblemAdder(report)
    _check_names(layout, add)
    cases = {name: Case(name, path, layout.mask_files(name)) for name, path in layout.images.items()}
    if datalist is not None and (table is None or layout.sections):
        _place_in_sections(cases, root, path, fold, report, add)
    elif table is not None:
        for case in cases.values():
            if not is_file(case.image):
                add("missing_file", [case.image], f"in {table.name}")
    class_of = read_classes(layout, classes)
    report.cases, report.masks = len(cases), sum(len(case.masks) for case in cases.values())

    with _quiet_pillow():
        declared = read_mask_coding(path) if path is not None else None
        if coding is not None:
            coding, report.coding_reason = parse_coding(coding, layout.files), "as given"
        elif declared is not None:
            coding, report.coding_reason = declared, "declared in the datalist"
        else:
            coding = _guess(cases.values(), layout.files, report, add)
    report.coding = coding
    examine_cases(cases, coding, class_of, report)
    return report


def examine_cases(
    cases: Mapping[str, Case], coding: MaskCoding | None, class_of: Mapping[str, str], report: Report
) -> None:
    """Reads images and masks, compares them with each other, and adds what is wrong to a report.

    Args:
        coding: None if it is not known: then the masks' values are not looked at.
        class_of: name -> class of the image, where classes are known.
    """
    add = ProblemAdder(report)
    with _quiet_pillow():
        for _, found in _in_threads(lambda case: _recall(case, coding), list(cases.values()), "images"):
            for kind, file, detail in found:
                add(kind, [file], detail)
    report.pairs = _compare(cases, class_of, add)
    report.problems.sort(key=lambda problem: list(KINDS).index(problem.kind))


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Leaves out Pillow's warnings: what they are about is said as a problem."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _layout_of_list(root: Path, path: Path) -> Layout:
    """Returns the cases of a datalist as a layout."""
    layout = Layout(mask_folders=[root], files="class", masks=[{}], orphans=[[]])
    for items in read_sections(path).values():
        for item in items:
            name = Path(item["image"]).with_suffix("").as_posix()
            label = item.get("label", [])
            layout.images[name] = root / item["image"]
            layout.masks[0][name] = [root / mask for mask in (label if isinstance(label, list) else [label])]
    return layout


def _check_names(layout: Layout, add: ProblemAdder) -> None:
    """Notes what the names of the files tell."""
    for index, folder in enumerate(layout.mask_folders):
        for name in layout.without_mask(index):
            add(
                "missing_mask", [layout.images[name]], f"none in {folder.name}/" if len(layout.mask_folders) > 1 else ""
            )
        for path in layout.orphans[index]:
            add("extra_mask", [path])
    for pair in layout.same_name:
        add("same_name", pair)
    by_lower: dict[str, list[Path]] = {}
    for name, path in layout.images.items():
        by_lower.setdefault(name.lower(), []).append(path)
    for paths in by_lower.values():
        if len(paths) > 1:
            add("lower_case_name", paths)
    for path in layout.left_out:
        if path.suffix.lower() not in QUIET_SUFFIXES:
            add("left_out", [path])
    for ignored in layout.ignored:
        add("not_searched", [ignored.path], ", ".join(filter(None, (ignored.reason, ignored.detail))))


def _place_in_sections(
    cases: Mapping[str, Case], root: Path, path: Path | None, fold: int, report: Report, add: ProblemAdder
) -> None:
    """Notes the section of each case, from a JSON datalist or from text lists, where there are any."""
    entries = _read_json_entries(root, path, add) if path is not None else _read_text_entries(cases, root, fold, add)
    by_image = {case.image.resolve(): case for case in cases.values()}
    for section, image in entries:
        report.sections[section] = report.sections.get(section, 0) + 1
        case = by_image.get(image.resolve())
        if case is None:
            continue
        if case.section:
            add("split_overlap", [case.image], f"in {case.section} and in {section}")
        case.section = section
    for case in cases.values():
        if report.sections and not case.section:
            add("not_in_list", [case.image])


def _read_json_entries(root: Path, path: Path, add: ProblemAdder) -> Iterator[tuple[str, Path]]:
    for section, items in read_sections(path).items():
        for item in items:
            label = item.get("label", [])
            for file in (item["image"], *(label if isinstance(label, list) else [label])):
                if not is_file(root / file):
                    add("missing_file", [root / file], f"in {section} of {path.name}")
            if any(role in section for role in ("train", "val", "test")):
                yield (
                    f"fold {item['fold']}" if "fold" in item and section == "training" else section,
                    root / item["image"],
                )


def _read_text_entries(
    cases: Mapping[str, Case], root: Path, fold: int, add: ProblemAdder
) -> Iterator[tuple[str, Path]]:
    try:
        lists = find_lists(root, fold)
    except FileNotFoundError:
        return
    for section, path in lists.items():
        for name in read_lines(path):
            if name in cases:
                yield section, cases[name].image
            else:
                add("missing_file", [name], f"named in {path.name}")


def _guess(cases: Iterable[Case], files: str, report: Report, add: ProblemAdder) -> MaskCoding | None:
    """Guesses the coding from all masks that can be read."""
    counts = _count_values([path for case in cases for path in case.masks])
    if not counts.masks:
        return None
    try:
        coding, report.coding_reason = guess_coding(counts, files)
    except ValueError as error:
        add("mask_coding", [], str(error))
        return None
    known_without = coding.kind != "values" or (len(coding.values) == 2 and min(coding.values) < 0)
    if report.sections and not known_without:
        add("undeclared_coding", [], f"{coding} ({report.coding_reason})")
    return coding


def _count_values(masks: Sequence[Path]) -> ValueCounts:
    """Counts the values of the masks that can be read."""
    counts = ValueCounts()
    for _, one in _in_threads(_count_one, masks, "masks"):
        counts.update(one)
    return counts


def _count_one(path: Path) -> ValueCounts:
    counts = ValueCounts()
    with suppress(FileNotFoundError, ValueError):  # said when the case is looked at
        counts.add(read_mask(path), str(path))
    return counts


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[tuple[Item, Result]]:
    """Yields items with what a function makes of them, in order; decoding images runs outside of Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        yield from zip(items, tqdm(results, desc=f"Reading {what}", total=len(items), disable=None), strict=True)


Found = list[tuple[str, Path, str]]
_remembered: dict[tuple[object, ...], tuple[Found, str, np.ndarray | None, np.ndarray | None]] = {}


def _recall(case: Case, coding: MaskCoding | None) -> Found:
    """Does what ``_look_at`` does, once for files that have not changed since."""
    try:
        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (case.image, *case.masks)]
    except OSError:
        return _look_at(case, coding)
    key = (*states, coding and json.dumps(coding.to_json()))
    if key in _remembered:
        found, case.digest, case.thumbnail, case.mask = _remembered[key]
        return found
    found = _look_at(case, coding)
    if len(_remembered) >= REMEMBERED:
        _remembered.clear()
    _remembered[key] = (found, case.digest, case.thumbnail, case.mask)
    return found


def _look_at(case: Case, coding: MaskCoding | None) -> Found:
    """Reads a case, keeps its thumbnails in it, and returns kind, file and detail of what is wrong."""
    found: Found = []
    turned = False
    size: tuple[int, int] | None = None
    try:
        content = look_at(case.image)
        if content.is_stack:
            return [("several_frames", case.image, f"{content.pages} images")]
        with open_image(case.image, "image") as image:
            size, turned = image.size, content.orientation in TURNED
            found += _look_at_image(image, case.image, content)
            case.digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=image.mode.encode()).hexdigest()
            case.thumbnail = make_thumbnail(image)
    except FileNotFoundError:
        found = []  # said of the list that names it
    except ValueError as error:
        found = [("unreadable_image", case.image, _say_why(error, case.image))]
    if case.masks:
        found += _look_at_masks(case, coding, size, turned)
    return found


def _say_why(error: Exception, path: Path) -> str:
    """Returns what is wrong with a file in one line, without its name; nothing if it is only not there."""
    if isinstance(error, FileNotFoundError):
        return ""
    text = " ".join(str(error).split())
    for what in ("image", "mask"):
        text = text.removeprefix(f"{what} {path} cannot be read: ")
    return text.removeprefix(f"{path}: ")


def _look_at_image(image: Image.Image, path: Path, content: ImageContent) -> Found:
    found: Found = []
    extrema: Any = image.getextrema()
    low_high: Sequence[tuple[float, float]] = [extrema] if len(image.getbands()) == 1 else extrema
    width, height = image.size
    if image.mode.startswith("I"):
        high = low_high[0][1]
        narrow = 0 < high < NARROW_16_BIT
        found.append(("narrow_16_bit" if narrow else "16_bit", path, f"its highest value is {high:g}"))
    if image.mode == "F":
        found.append(("float", path, f"values {low_high[0][0]:g} to {low_high[0][1]:g}"))
    if image.mode in TRANSPARENT_MODES and low_high[-1][0] < 255:
        found.append(("alpha", path, ""))
    if content.is_deep_colour:
        found.append(("16_bit", path, f"{content.bits}-bit colour"))
    if content.orientation != 1:
        found.append(("exif_rotation", path, f"orientation {content.orientation}"))
    if min(width, height) < TINY:
        found.append(("tiny_image", path, f"{width} x {height}"))
    if max(width, height) > HUGE:
        found.append(("huge_image", path, f"{width} x {height}"))
    if all(low == high for low, high in low_high):
        found.append(("blank_image", path, ""))
    return found


def _look_at_masks(case: Case, coding: MaskCoding | None, size: tuple[int, int] | None, turned: bool) -> Found:
    """Reads the masks of a case, and merges them where the coding is known."""
    values = []
    for path in case.masks:
        try:
            values.append(read_mask(path))
        except (FileNotFoundError, ValueError) as error:
            kind = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable_mask"
            return [(kind, path, _say_why(error, path))]
        height, width = values[-1].shape
        if size is not None and (width, height) != size:
            fits_turned = turned and (height, width) == size
            detail = f"{width} x {height}, the image is {size[0]} x {size[1]}"
            return [("rotated_image", case.image, "") if fits_turned else ("size_mismatch", path, detail)]
    if coding is None:
        return []
    names = [str(path) for path in case.masks]
    try:
        label = coding.decode(values, names)
    except ValueError as error:
        return [("unexpected_value", case.masks[0], str(error))]
    foreground = label > 0
    share = float(foreground.mean())
    thumbnail = Image.fromarray(foreground.astype(np.uint8) * 255)
    side = (MASK_THUMBNAIL_SIDE, MASK_THUMBNAIL_SIDE)
    case.mask = np.asarray(thumbnail.resize(side, Image.Resampling.BOX))
    if share >= NEARLY_FULL:
        return [("full_mask", case.masks[0], f"{100 * share:.1f} %")]
    if share > 0:
        return []
    highest = max(float(mask.max()) for mask in values)
    faint = coding.kind == "threshold" and highest > 0
    return [("faint_mask" if faint else "empty_mask", case.masks[0], f"highest value {highest:g}" if faint else "")]


def _compare(cases: Mapping[str, Case], class_of: Mapping[str, str], add: ProblemAdder) -> list[tuple[str, str, float]]:
    """Notes pairs of (nearly) identical images, and what is wrong with each; returns them."""
    pairs = pair_thumbnails({name: case.thumbnail for name, case in cases.items() if case.thumbnail is not None})
    for first, second, correlation in pairs:
        a, b = cases[first], cases[second]
        same = a.digest == b.digest
        files = [a.image, b.image]
        likeness = "identical" if same else f"correlation {correlation:.4f}"
        add("exact_duplicate" if same else "near_duplicate", files, "" if same else likeness)
        if class_of and class_of[first] != class_of[second]:
            add("class_conflict", files, f"{class_of[first]} and {class_of[second]}, {likeness}")
        if a.section and b.section and a.section != b.section:
            add("split_leak", files, f"{a.section} and {b.section}, {likeness}")
        if a.mask is not None and b.mask is not None:
            dice = _dice(a.mask, b.mask)
            if dice < CONFLICT_DICE:
                add("duplicate_conflict" if same else "mask_conflict", files, f"Dice {dice:.2f}, {likeness}")
    return pairs


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum(dtype=np.int64) + second.sum(dtype=np.int64))
    return 2 * int(np.minimum(first, second).sum(dtype=np.int64)) / total if total else 1.0
