"""``mobileutr convert-labels``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_verb"]


def add_verb(verbs: Any) -> None:
    """Adds the verb to the command's parser."""
    convert = verbs.add_parser("convert-labels", help="draw masks from annotations of COCO, labelme, VIA, CVAT or YOLO")
    convert.add_argument("source", type=Path, metavar="ANNOTATIONS", help="file, or folder of labelme or YOLO files")
    convert.add_argument("--images", type=Path, required=True, metavar="DIR", help="images that were annotated")
    convert.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for images/ and masks/")
    convert.add_argument(
        "--format",
        choices=("coco", "labelme", "via", "cvat", "yolo"),
        default="",
        help="format of the annotations (default: recognised by content)",
    )
    convert.add_argument("--labels", default="", help="names of the values 1, 2 ... (default: all, sorted by name)")
    convert.set_defaults(verb=_convert_labels)


def _convert_labels(options: argparse.Namespace) -> int:
    from mobileutr_monai.datasets.annotations.convert import convert_labels, describe

    if not options.source.exists():
        raise FileNotFoundError(f"no annotations at {options.source}")
    if not options.images.is_dir():
        raise NotADirectoryError(f"{str(options.images)!r} is not a folder; give the folder of the images")
    labels = [label.strip() for label in options.labels.split(",") if label.strip()]
    made = convert_labels(options.source, options.images, options.output, options.format, labels)
    print(describe(made, options.output))
    print(f"mobileutr check {options.output} --masks indices")
    return 1 if made.missing else 0
