"""``mobileutr check`` and ``mobileutr split``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mobileutr_monai.verbs.files import keep_existing, write_json
from mobileutr_monai.verbs.options import fraction, positive, separate_table

__all__ = ["add_verbs"]


def add_verbs(verbs: Any) -> None:
    """Adds the verbs to the command's parser."""
    masks = (
        "meaning of the mask values: two-valued, indices, 0/1, 0/255, threshold=100, or pairs such as 0=0,128=1 "
        "and #000000=0,#ff0000=1 (default: the datalist's mask_coding, else guessed from all masks)"
    )
    classes = (
        "class of an image: folder, prefix (the first letters of its name), none, or a CSV file with the columns "
        "image and class (default: folder, if the folders are few and large)"
    )
    layouts = (
        "folder with images/ and masks/0/ (masks/1/ ...) or masks/, or with NAME.png and NAME_mask.png; or a CSV table "
        "with the columns image and mask, and perhaps group, class and split"
    )

    check = verbs.add_parser("check", help="find faults in a folder of images and masks before training")
    check.add_argument("folder", type=Path, metavar="DIR", help=layouts)
    check.add_argument("--json", type=Path, metavar="FILE", help="write all problems to a file")
    check.add_argument("--datalist", metavar="FILE", default="", help="list to check (default: the folder's)")
    check.add_argument("--fold", type=int, default=1, help="number of the text list to check (default 1)")
    check.add_argument("--masks", metavar="CODING", help=masks)
    check.add_argument("--classes", metavar="RULE", default="", help=classes)
    check.set_defaults(verb=_check)

    split = verbs.add_parser("split", help="make a datalist with a seeded split that keeps near-duplicates together")
    split.add_argument("folder", type=Path, metavar="DIR", help=layouts)
    split.add_argument("--output", type=Path, required=True, help="datalist (JSON) to write")
    split.add_argument(
        "--validation", type=fraction, help="share of the cases for validation (default 0.2; none with --folds)"
    )
    split.add_argument("--test", type=fraction, default=0.0, help="share of the cases for testing (default 0)")
    split.add_argument(
        "--folds",
        type=positive,
        default=0,
        metavar="N",
        help="assign training cases to N cross-validation folds instead",
    )
    split.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    split.add_argument("--classes", metavar="RULE", default="", help=f"keep the shares of the classes; {classes}")
    split.add_argument(
        "--groups",
        metavar="RULE",
        default="",
        help="keep images together, such as those of a patient: folder, or a CSV file with the columns image and group "
        "(default: folder, if the folders are many and small)",
    )
    split.add_argument("--masks", metavar="CODING", help=masks)
    split.add_argument("--overwrite", action="store_true", help="replace an existing datalist")
    split.set_defaults(verb=_split)


def _check(options: argparse.Namespace) -> int:
    from mobileutr_monai.datasets.check import ERROR, check_folder
    from mobileutr_monai.datasets.nifti_folders.layout import has_volumes

    folder, table = separate_table(options.folder)
    if table is None and has_volumes(folder):
        from mobileutr_monai.datasets.nifti_folders.check import check_volumes

        report = check_volumes(options.folder)
    else:
        report = check_folder(
            folder,
            datalist=options.datalist or table or "",
            fold=options.fold,
            coding=options.masks,
            classes=options.classes,
        )
    if options.json is not None:
        write_json(options.json, report.to_json())
    print(report.to_text())
    return 1 if report.count(ERROR) else 0


def _split(options: argparse.Namespace) -> int:
    keep_existing(options.output, options.overwrite)
    from mobileutr_monai.datasets.check_cases import check_to_split, check_volumes_to_split
    from mobileutr_monai.datasets.layout import find_layout
    from mobileutr_monai.datasets.nifti_folders.layout import has_volumes, make_volume_datalist
    from mobileutr_monai.datasets.split import make_datalist

    if options.folds and options.validation is not None:
        raise ValueError("--folds and --validation exclude each other; each fold is validated on in its turn")
    validation = 0.2 if options.validation is None else options.validation
    shares = {"testing": options.test} if options.folds else {"validation": validation, "testing": options.test}
    folder, table = separate_table(options.folder)
    if table is None and has_volumes(folder):
        if options.masks or options.classes:
            raise ValueError(f"{options.folder} has volumes; leave out --masks and --classes, which are for images")
        report = check_volumes_to_split(options.folder)
        volumes = make_volume_datalist(
            options.folder, shares, options.seed, folds=options.folds, groups=options.groups, pairs=report.pairs
        )
        write_json(options.output, volumes)
        counts = ", ".join(f"{len(items)} {name}" for name, items in volumes.items() if isinstance(items, list))
        print(f"{options.output}: {counts}")
        print(volumes["description"])
        _print_warnings(report.summarise("warning"))
        return 0
    report = check_to_split(folder, options.masks, options.classes, table)
    datalist = make_datalist(
        folder,
        shares,
        options.seed,
        folds=options.folds,
        classes=options.classes,
        groups=options.groups,
        coding=report.coding,
        pairs=report.pairs,
        table=table,
    )
    write_json(options.output, datalist)
    for ignored in find_layout(folder).ignored if table is None else ():
        print(f"not used: {ignored.path}: {ignored.reason}, {ignored.detail}", file=sys.stderr)
    counts = ", ".join(f"{len(items)} {name}" for name, items in datalist.items() if isinstance(items, list))
    print(f"{options.output}: {counts}")
    print(datalist["description"])
    print(f"masks: {report.coding} - {report.coding_reason}")
    _print_warnings(report.summarise("warning"))
    return 0


def _print_warnings(warned: str) -> None:
    if warned:
        print(f"warning: {warned}; mobileutr check lists all", file=sys.stderr)
