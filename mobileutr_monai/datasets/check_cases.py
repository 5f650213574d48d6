"""The check of a data set before it is split or trained on: errors stop it, warnings are logged."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.check import Case, check_folder, examine_cases
from mobileutr_monai.datasets.masks import MaskCoding
from mobileutr_monai.datasets.nifti_folders.check import check_volumes, examine_volumes
from mobileutr_monai.datasets.nifti_folders.layout import VolumeLayout
from mobileutr_monai.datasets.problems import ERROR, WARNING, ProblemAdder, Report

__all__ = ["check_to_split", "check_training", "check_volumes_to_split"]

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]


def check_to_split(
    root: Path, coding: MaskCoding | str | None = None, classes: str | Path = "", table: Path | None = None
) -> Report:
    """Checks the images and masks of a folder, or of a table, as ``check_folder`` does, without another list.

    Raises:
        ValueError: there are errors.
    """
    report = check_folder(root, datalist=table, coding=coding, classes=classes)
    known = {"undeclared_coding"}  # the new list declares it
    report.problems = [problem for problem in report.problems if problem.kind not in known]
    _stop_at_errors(report, f"mobileutr check {table or root} lists all")
    return report


def check_volumes_to_split(root: Path) -> Report:
    """Checks the volumes and labels of a folder as ``check_volumes`` does.

    Raises:
        ValueError: there are errors.
    """
    report = check_volumes(root)
    _stop_at_errors(report, f"mobileutr check {root} lists all")
    return report


def check_training(training: Sequence[Item], validation: Sequence[Item], coding: MaskCoding | None) -> None:
    """Checks the cases that a training uses, with the rules of ``mobileutr check``.

    Args:
        training, validation: cases, ``image`` and ``label`` with paths that exist.
        coding: what the values of masks stand for; None for volumes.

    Raises:
        ValueError: there are errors.
    """
    cases = [("training", item) for item in training] + [("validation", item) for item in validation]
    root = Path(os.path.commonpath([Path(_paths(item["image"])[0]).absolute().parent for _, item in cases]))
    report = Report(root, coding=coding)
    if coding is None:
        _examine_volumes(cases, report)
    else:
        _examine_images(cases, coding, report)
    if warned := report.summarise(WARNING):
        logger.warning("%s: %s", report.folder, warned)
    _stop_at_errors(
        report, "mobileutr check, given the same folder and list, shows all; --set check_data=false trains anyway"
    )


def _examine_images(cases: Sequence[tuple[str, Item]], coding: MaskCoding, report: Report) -> None:
    from mobileutr_monai.readers.dicom.header import is_dicom  # pydicom takes a while, and split does not need it
    from mobileutr_monai.readers.nifti_file import is_nifti

    add = ProblemAdder(report)
    by_name: dict[str, Case] = {}
    for section, item in cases:
        image = Path(_paths(item["image"])[0])
        if is_dicom(image) or is_nifti(image):  # what check does not know: their own readers judge them
            continue
        case = by_name.setdefault(str(image), Case(str(image), image, _paths(item.get("label", [])), section))
        if case.section != section:
            add("split_overlap", [image], f"in {case.section} and in {section}")
        if not case.masks:
            add("missing_mask", [image])
    examine_cases(by_name, coding, {}, report)


def _examine_volumes(cases: Sequence[tuple[str, Item]], report: Report) -> None:
    add = ProblemAdder(report)
    layout = VolumeLayout(report.folder, report.folder)
    section_of: dict[str, str] = {}
    for section, item in cases:
        images, labels = _paths(item["image"]), _paths(item.get("label", []))
        name = str(images[0])
        if section_of.setdefault(name, section) != section:
            add("split_overlap", [images[0]], f"in {section_of[name]} and in {section}")
        layout.images[name] = images
        if labels:
            layout.labels[name] = labels[0]
    examine_volumes(layout, report, section_of)


def _paths(value: Any) -> list[Path]:
    return [Path(path) for path in (value if isinstance(value, (list, tuple)) else [value])]


def _stop_at_errors(report: Report, where: str) -> None:
    found = [problem for problem in report.problems if problem.severity == ERROR]
    if found and all(problem.kind == "mask_coding" for problem in found):
        raise ValueError(found[0].detail)
    if found:
        raise ValueError(f"{report.folder} has {pluralize(len(found), 'error')}: {report.summarise(ERROR)}; {where}")
