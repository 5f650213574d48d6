"""Finds what is wrong with a data set of 2D images before anything is trained on it; files are read as training does.

Images are read one at a time; of each only a thumbnail and a few numbers are kept. Not looked for: text burned into the
images, which no simple rule tells from anatomy.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.datalist import find_json, find_lists, read_lines, read_mask_coding, read_sections
from mobileutr_monai.datasets.duplicates import make_thumbnail, pair_thumbnails
from mobileutr_monai.datasets.layout import Layout, find_layout
from mobileutr_monai.datasets.masks import MaskCoding, ValueCounts, guess_coding, parse_coding, read_mask
from mobileutr_monai.datasets.split import read_classes
from mobileutr_monai.readers.image_content import TRANSPARENT_MODES, ImageContent
from mobileutr_monai.readers.pillow_io import look_at, open_image

__all__ = ["ERROR", "KINDS", "WARNING", "Problem", "Report", "check_folder", "guess_masks"]

ERROR, WARNING = "error", "warning"

NEARLY_FULL = 0.95
"""Share of the pixels from which a mask covers nearly all of its image."""

TINY, HUGE = 64, 4096
"""Sides in pixels: shorter below TINY, longer above HUGE."""

CONFLICT_DICE = 0.5
"""Dice of two nearly identical images' masks under which they contradict each other."""

NARROW_16_BIT = 65535 // 16
"""Highest value of a 16-bit image under which at most 16 of 256 grey levels are left after scaling."""

MASK_THUMBNAIL_SIDE = 32

TURNED = range(5, 9)
"""Values of EXIF's orientation tag that exchange width and height."""

KINDS: dict[str, tuple[str, str]] = {
    "mask_coding": (ERROR, "what the masks' values stand for is not clear"),
    "undeclared_coding": (ERROR, "the list lacks mask_coding, and training takes masks of two values only"),
    "missing_mask": (ERROR, "images without a mask: add an (empty) mask or remove the image"),
    "extra_mask": (ERROR, "masks without an image: add the image or remove the mask"),
    "missing_file": (ERROR, "files of the list that do not exist"),
    "same_name": (ERROR, "files that differ in the suffix only: remove or rename one"),
    "unreadable_image": (ERROR, "images that cannot be read, or only in part: export them again"),
    "unreadable_mask": (ERROR, "masks that cannot be read, or only in part: export them again"),
    "size_mismatch": (ERROR, "masks of another size than their image"),
    "grid_mismatch": (ERROR, "volumes that lie elsewhere than their image: export both on one grid"),
    "missing_channel": (ERROR, "volumes that lack a channel: add the file or remove the case"),
    "unexpected_value": (ERROR, "masks with values that the coding lacks"),
    "rotated_image": (ERROR, "masks that fit only without EXIF rotation: save the image as stored, without the tag"),
    "narrow_16_bit": (ERROR, "16-bit images that use less than a sixteenth of the range: scale them to 8 bit"),
    "duplicate_conflict": (ERROR, "identical images with contradicting masks: keep one"),
    "split_leak": (ERROR, "(nearly) identical images on both sides of the split: make one with mobileutr split"),
    "split_overlap": (ERROR, "cases in several sections of the list"),
    "empty_mask": (WARNING, "masks without foreground: right only for images without a finding"),
    "faint_mask": (WARNING, "masks whose values all stay under the threshold: they count as empty"),
    "full_mask": (WARNING, f"masks that cover {100 * NEARLY_FULL:.0f} % of the image or more: inverted?"),
    "16_bit": (WARNING, "16-bit images: reduced to 8 bit by their full range"),
    "float": (WARNING, "images of floating-point values: reduced to 8 bit"),
    "alpha": (WARNING, "images with transparency: it is dropped"),
    "exif_rotation": (
        WARNING,
        "images that EXIF rotates: they are read rotated; masks drawn on the stored pixels do not match",
    ),
    "several_frames": (ERROR, "files of several images: save each as a file of its own"),
    "tiny_image": (WARNING, f"images with a side under {TINY} px"),
    "huge_image": (WARNING, f"images with a side over {HUGE} px: slow to read; resize them once"),
    "blank_image": (WARNING, "images of one value"),
    "lower_case_name": (WARNING, "names that are the same in small letters: other systems will mix them up"),
    "exact_duplicate": (WARNING, "identical images"),
    "near_duplicate": (WARNING, "nearly identical images: keep them in one section, as mobileutr split does"),
    "class_conflict": (WARNING, "(nearly) identical images of different classes"),
    "mask_conflict": (WARNING, f"nearly identical images whose masks disagree (Dice under {CONFLICT_DICE})"),
    "not_in_list": (WARNING, "images that are in no section of the list"),
    "left_out": (WARNING, "files that are not read: another format, or too deep a folder"),
    "not_searched": (WARNING, "links to folders, broken links and others that are not looked at"),
}
"""Kind of problem -> severity, and what it means."""

QUIET_SUFFIXES = (".txt", ".csv", ".json", ".md", ".db", ".ini", ".xlsx", ".pdf", ".html")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Problem:
    """Something wrong with some files, named relative to the folder."""

    kind: str
    files: tuple[str, ...]
    detail: str = ""

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]


@dataclass
class Report:
    """What was found in a folder."""

    folder: Path
    cases: int = 0
    masks: int = 0
    coding: MaskCoding | None = None
    coding_reason: str = ""
    sections: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """Returns the number of problems of a severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Returns the whole report."""
        return {
            "folder": str(self.folder),
            "cases": self.cases,
            "masks": self.masks,
            "mask_coding": self.coding.to_json() if self.coding else None,
            "mask_coding_reason": self.coding_reason,
            "sections": self.sections,
            "notes": self.notes,
            "counts": dict(Counter(problem.kind for problem in self.problems)),
            "problems": [
                {"severity": p.severity, "kind": p.kind, "files": list(p.files), "detail": p.detail}
                for p in self.problems
            ],
        }

    def to_text(self, examples: int = 3) -> str:
        """Returns a table, errors first, with some examples of each kind."""
        lines = [f"{self.folder}: {pluralize(self.cases, 'image')}, {pluralize(self.masks, 'mask file')}"]
        if self.coding:
            lines.append(f"masks: {self.coding} - {self.coding_reason}")
        if self.sections:
            lines.append("list: " + ", ".join(f"{number} {name}" for name, number in self.sections.items()))
        lines += self.notes
        by_kind: dict[str, list[Problem]] = {}
        for problem in self.problems:
            by_kind.setdefault(problem.kind, []).append(problem)
        for kind, (severity, meaning) in KINDS.items():
            found = by_kind.get(kind, [])
            if found:
                lines.append(f"{severity:8}{kind:20}{len(found):>6}  {meaning}")
            lines += [f"{'':36}{': '.join(filter(None, (' = '.join(p.files), p.detail)))}" for p in found[:examples]]
            if len(found) > examples:
                lines.append(f"{'':36}... {len(found) - examples} more")
        lines.append(f"{pluralize(self.count(ERROR), 'error')}, {pluralize(self.count(WARNING), 'warning')}")
        return "\n".join(lines)


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
    datalist: str | Path = "",
    fold: int = 1,
    coding: MaskCoding | str | None = None,
    classes: str | Path = "",
) -> Report:
    """Checks the images and masks of a folder, and of the list that says which are for training, if there is one.

    Args:
        root: folder in one of the layouts of ``find_layout``, or that the datalist's paths are relative to.
        datalist: as for ``load_datalist``.
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
    path = find_json(root, datalist)
    try:
        layout = find_layout(root)
    except FileNotFoundError:
        if path is None:
            raise
        layout = _layout_of_list(root, path)
    add = _Adder(report)
    _check_names(layout, add)
    cases = {name: Case(name, path, layout.mask_files(name)) for name, path in layout.images.items()}
    _place_in_sections(cases, root, path, fold, report, add)
    class_of = read_classes(layout, classes)
    report.cases, report.masks = len(cases), sum(len(case.masks) for case in cases.values())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        declared = read_mask_coding(path) if path is not None else None
        if coding is not None:
            coding, report.coding_reason = parse_coding(coding, layout.files), "as given"
        elif declared is not None:
            coding, report.coding_reason = declared, "declared in the datalist"
        else:
            coding = _guess(cases.values(), layout.files, report, add)
        report.coding = coding
        for _, found in _in_threads(lambda case: _look_at(case, coding), list(cases.values()), "images"):
            for kind, file, detail in found:
                add(kind, [file], detail)
    _compare(cases, class_of, add)
    report.problems.sort(key=lambda problem: list(KINDS).index(problem.kind))
    return report


def guess_masks(root: Path) -> tuple[MaskCoding, str]:
    """Tells the coding of the masks of a folder, from all of them.

    Raises:
        ValueError: it is not clear, or a mask cannot be read.
    """
    layout = find_layout(root)
    masks = [path for name in sorted(layout.images) for path in layout.mask_files(name)]
    return guess_coding(_count_values(masks), layout.files)


class _Adder:
    """Adds problems to a report, with paths relative to its folder."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __call__(self, kind: str, files: Iterable[Path | str], detail: str = "") -> None:
        root = self.report.folder
        short = tuple(str(file).replace(f"{root}{os.sep}", "") for file in files)
        self.report.problems.append(Problem(kind, short, detail.replace(f"{root}{os.sep}", "")))


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


def _check_names(layout: Layout, add: _Adder) -> None:
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
    cases: Mapping[str, Case], root: Path, path: Path | None, fold: int, report: Report, add: _Adder
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


def _read_json_entries(root: Path, path: Path, add: _Adder) -> Iterator[tuple[str, Path]]:
    for section, items in read_sections(path).items():
        for item in items:
            label = item.get("label", [])
            for file in (item["image"], *(label if isinstance(label, list) else [label])):
                if not (root / file).is_file():
                    add("missing_file", [root / file], f"in {section} of {path.name}")
            if any(role in section for role in ("train", "val", "test")):
                yield (
                    f"fold {item['fold']}" if "fold" in item and section == "training" else section,
                    root / item["image"],
                )


def _read_text_entries(cases: Mapping[str, Case], root: Path, fold: int, add: _Adder) -> Iterator[tuple[str, Path]]:
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


def _guess(cases: Iterable[Case], files: str, report: Report, add: _Adder) -> MaskCoding | None:
    """Guesses the coding from all masks that can be read."""
    counts = _count_values([path for case in cases for path in case.masks], skip_unreadable=True)
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


def _count_values(masks: Sequence[Path], skip_unreadable: bool = False) -> ValueCounts:
    counts = ValueCounts()
    for _, one in _in_threads(lambda path: _count_one(path, skip_unreadable), masks, "masks"):
        counts.update(one)
    return counts


def _count_one(path: Path, skip_unreadable: bool) -> ValueCounts:
    counts = ValueCounts()
    try:
        counts.add(read_mask(path), str(path))
    except ValueError:
        if not skip_unreadable:
            raise
    return counts


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[tuple[Item, Result]]:
    """Yields items with what a function makes of them, in order; decoding images runs outside of Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        yield from zip(items, tqdm(results, desc=f"Reading {what}", total=len(items), disable=None), strict=True)


Found = list[tuple[str, Path, str]]


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


def _compare(cases: Mapping[str, Case], class_of: Mapping[str, str], add: _Adder) -> None:
    """Notes pairs of (nearly) identical images, and what is wrong with each."""
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


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum(dtype=np.int64) + second.sum(dtype=np.int64))
    return 2 * int(np.minimum(first, second).sum(dtype=np.int64)) / total if total else 1.0
