"""Kinds of problems of a data set, and the report that lists them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.masks import MaskCoding

__all__ = ["ERROR", "KINDS", "WARNING", "Problem", "ProblemAdder", "Report"]

ERROR, WARNING = "error", "warning"

NEARLY_FULL = 0.95
"""Share of the pixels from which a mask covers nearly all of its image."""

TINY, HUGE = 64, 4096
"""Sides in pixels: shorter below TINY, longer above HUGE."""

CONFLICT_DICE = 0.5
"""Dice of two nearly identical images' masks under which they contradict each other."""

KINDS: dict[str, tuple[str, str]] = {
    "mask_coding": (ERROR, "what the masks' values stand for is not clear"),
    "undeclared_coding": (ERROR, "the list lacks mask_coding, without which training accepts masks of two values only"),
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
    "alpha": (
        WARNING,
        "images whose fourth channel is dropped as transparency: keep other data in files of their own",
    ),
    "exif_rotation": (
        WARNING,
        "images that EXIF rotates: they are read rotated; masks drawn on the stored pixels do not match",
    ),
    "several_frames": (ERROR, "files of several images: save each as a file of its own"),
    "tiny_image": (WARNING, f"images with a side under {TINY} px"),
    "huge_image": (WARNING, f"images with a side over {HUGE} px: slow to read; resize them once"),
    "blank_image": (WARNING, "images in which all pixels have the same value"),
    "lower_case_name": (WARNING, "names that differ in capitals only: other systems cannot tell them apart"),
    "exact_duplicate": (WARNING, "identical images"),
    "near_duplicate": (WARNING, "nearly identical images: keep them in one section, as mobileutr split does"),
    "class_conflict": (WARNING, "(nearly) identical images of different classes"),
    "mask_conflict": (WARNING, f"nearly identical images whose masks disagree (Dice under {CONFLICT_DICE})"),
    "not_in_list": (WARNING, "images that are in no section of the list"),
    "left_out": (WARNING, "files that are not read: another format, or too deep a folder"),
    "not_searched": (WARNING, "links to folders, broken links and others, which are not searched"),
}
"""Kind of problem -> severity, and what it means."""


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
    """What was found in a folder; ``pairs`` are cases that are nearly the same, with their correlation."""

    folder: Path
    cases: int = 0
    masks: int = 0
    coding: MaskCoding | None = None
    coding_reason: str = ""
    sections: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str, float]] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """Returns the number of problems of a severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def summarise(self, severity: str) -> str:
        """Returns the kinds of problems of a severity in one line, with the first file of each."""
        parts = []
        for kind, (of, meaning) in KINDS.items():
            found = [problem for problem in self.problems if problem.kind == kind and of == severity]
            if found:
                example = ": ".join(filter(None, (" = ".join(found[0].files), found[0].detail)))
                parts.append(f"{len(found)} {kind} ({meaning})" + (f", such as {example}" if example else ""))
        return "; ".join(parts)

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


class ProblemAdder:
    """Adds problems to a report, with paths relative to its folder."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __call__(self, kind: str, files: Iterable[Path | str], detail: str = "") -> None:
        root = self.report.folder
        short = tuple(str(file).replace(f"{root}{os.sep}", "") for file in files)
        self.report.problems.append(Problem(kind, short, detail.replace(f"{root}{os.sep}", "")))
