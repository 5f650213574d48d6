"""What values the options accept, as data alone: a wrong one is an error before torch and MONAI are imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "ENGINES",
    "EXPORT_FORMATS",
    "FURTHER_FORMATS",
    "MASK_FORMATS",
    "SEG_TYPES",
    "SUFFIXES",
    "WEB",
    "Formats",
    "FurtherFormat",
    "check_export",
    "check_formats",
    "parse_formats",
]

ENGINES = (
    "auto",
    "torch",
    "torch-folded",
    "torch-bf16",
    "torch-fp16",
    "onnxruntime",
    "openvino",
    "openvino-bf16",
)
"""Names for ``--engine``: ``auto``, and the keys of ``inference.engines.table.ENGINES``."""

MASK_FORMATS = ("auto", "plain")
"""``auto``: DICOM stills and series become DICOM SEG. ``plain``: they become PNG and NIfTI, as other inputs do."""


class FurtherFormat(NamedTuple):
    """A format that results are written in besides the label map.

    Attributes:
        dimensions: spatial dimensions of the bundles that it is for.
        package: that writes it; empty where this project's own packages do.
        extra: that installs the package.
        of_run: whether a run has one file of it, made from the results at its end.
        of_report: whether that file is made from the rows of the report, which every case has.
    """

    dimensions: tuple[int, ...]
    package: str = ""
    extra: str = ""
    of_run: bool = False
    of_report: bool = False


FURTHER_FORMATS = {
    "nrrd": FurtherFormat((2, 3), "nrrd", "nrrd"),
    "coco": FurtherFormat((2,), "pycocotools", "coco", of_run=True),
    "parquet": FurtherFormat((2, 3), "pyarrow", "parquet", of_run=True, of_report=True),
    "geojson": FurtherFormat((2,)),
    "rtstruct": FurtherFormat((3,)),
}
"""Name for ``--format`` -> what it needs."""


class Formats(NamedTuple):
    """What the results of a run are written in.

    Attributes:
        mask: of the label maps, one of ``MASK_FORMATS``.
        further: keys of ``FURTHER_FORMATS``, in their order.
    """

    mask: str
    further: tuple[str, ...]

    @property
    def of_cases(self) -> tuple[str, ...]:
        """Those that decide which files a case has."""
        return (self.mask, *(name for name in self.further if not FURTHER_FORMATS[name].of_run))


SEG_TYPES = ("binary", "labelmap")
"""``binary``: DICOM SEG has one frame per label and slice. ``labelmap``: one frame per slice, with segment numbers."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".ts", "executorch": ".pte"}
"""Format of an export -> how its file's name ends; the keys of ``export.formats.FORMATS``."""

END_TO_END = ("onnx", "openvino")
"""Formats of which ``export --end-to-end`` makes files that ``predict`` takes."""

END_TO_END_SUFFIXES = tuple(SUFFIXES[name] for name in END_TO_END)

WEB = "web"
"""Format of an export that is a folder with a page: ``export.web``."""

EXPORT_FORMATS = (*SUFFIXES, WEB)
"""Names for ``export --format``."""


def check_export(file_format: str, output: Path, end_to_end: bool, int8: Path | None = None) -> None:
    """Checks that a file's name, ``--end-to-end`` and ``--int8`` go with a format, and that the latter is a folder.

    Raises:
        ValueError: they do not.
    """
    suffix = SUFFIXES[file_format]
    if output.suffix != suffix:
        raise ValueError(f"--output must end in {suffix} for {file_format}, got {output}")
    if end_to_end and file_format not in END_TO_END:
        raise ValueError(f"--end-to-end is for --format {' and '.join(END_TO_END)}, not {file_format}; leave it out")
    if int8 is None:
        return
    if file_format != "openvino" or end_to_end:
        raise ValueError("--int8 is for --format openvino without --end-to-end; leave one of them out")
    if not int8.is_dir():
        raise ValueError(f"--int8 takes a folder of images, got {int8}")


def parse_formats(given: str | Sequence[str]) -> Formats:
    """Returns the formats of a text with commas between them, or of a list.

    Raises:
        ValueError: one is unknown, or both formats of label maps are there.
    """
    names = [name.strip() for name in (given.removesuffix(",").split(",") if isinstance(given, str) else given)]
    allowed = (*MASK_FORMATS, *FURTHER_FORMATS)
    if unknown := [name for name in names if name not in allowed]:
        raise ValueError(
            f"format {unknown[0]!r} is unknown; choose from {', '.join(allowed)}, with commas between them"
        )
    masks = [name for name in MASK_FORMATS if name in names]
    if len(masks) > 1:
        raise ValueError(f"formats {' and '.join(masks)} exclude each other; leave one out")
    return Formats((masks or list(MASK_FORMATS))[0], tuple(name for name in FURTHER_FORMATS if name in names))


def check_formats(formats: Formats, dimensions: int) -> None:
    """Checks that a bundle's results can be written in the further formats.

    Args:
        dimensions: spatial dimensions of the bundle.

    Raises:
        ValueError: a format is not for them, or its package is missing.
    """
    for name in formats.further:
        needs = FURTHER_FORMATS[name]
        if dimensions not in needs.dimensions:
            kinds = {2: "images", 3: "volumes"}
            is_for, taken = kinds[needs.dimensions[0]], kinds[dimensions]
            raise ValueError(f"format {name} is for {is_for}, the bundle takes {taken}; leave {name} out")
        if needs.package and importlib.util.find_spec(needs.package) is None:
            raise ValueError(f'format {name} needs a package: pip install "mobileutr-monai[{needs.extra}]"')
