"""What values the options accept, as data alone: a wrong one is an error before torch and MONAI are imported."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ENGINES", "OUTPUT_FORMATS", "SUFFIXES", "check_export"]

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

OUTPUT_FORMATS = ("auto", "plain")
"""``auto``: DICOM stills and series become DICOM SEG. ``plain``: they become PNG and NIfTI, as other inputs do."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".ts", "executorch": ".pte"}
"""Format of an export -> how its file's name ends; the keys of ``export.formats.FORMATS``."""


def check_export(file_format: str, output: Path, end_to_end: bool) -> None:
    """Checks that a file's name and ``--end-to-end`` go with a format.

    Raises:
        ValueError: they do not.
    """
    suffix = SUFFIXES[file_format]
    if output.suffix != suffix:
        raise ValueError(f"--output must end in {suffix} for {file_format}, got {output}")
    if end_to_end and file_format != "onnx":
        raise ValueError(f"--end-to-end is for --format onnx, not {file_format}; leave it out")
