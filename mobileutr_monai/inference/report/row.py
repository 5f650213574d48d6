"""A row of ``report.csv``, and what its columns mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["FLAG_SEPARATOR", "Row", "describe_columns"]

FLAG_SEPARATOR = "; "
"""Between the flags in a cell of ``report.csv``."""


def _column(meaning: str, default: Any = None) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass
class Row:
    """One label of one case in ``report.csv``, or one component of it; a case without a result has one row."""

    case: str = field(metadata={"meaning": "the file, relative to the input folder; of a series its first file"})
    input_id: str = _column("hash of the content of its files", "")
    input_stat: str = _column("hash of their sizes, times and inode numbers", "")
    kind: str = _column("image, NIfTI, DICOM still, DICOM cine, DICOM series or video", "")
    status: str = _column("`ok`, `failed` or `skipped`", "ok")
    reason: str = _column("why it failed or was skipped, of a fixed set", "")
    detail: str = _column("what was found, and what was changed in reading", "")
    study_uid: str = _column("StudyInstanceUID of DICOM", "")
    series_uid: str = _column("SeriesInstanceUID of DICOM", "")
    output: str = _column("file of the label map, relative to the output folder", "")
    files: str = _column("every file of the case: how its name ends, and its SHA-256", "")
    shape: str = _column("of the label map: rows x columns, of cines and videos x frames; x, y and z of volumes", "")
    label: str = _column("name of the label", "")
    component: int | None = _column("number of the component, the largest is 1; empty for the whole label")
    pixels: int | None = _column("pixels of the label; voxels of volumes, pixels of all frames of cines and videos")
    percent: float | None = _column("share of the image, volume, cine or video")
    area_mm2: float | None = _column("area; of an ultrasound the part within its regions of tissue")
    volume_ml: float | None = _column("volume")
    diameter_px: float | None = _column("of images: the largest distance between the centres of two pixels")
    diameter_mm: float | None = _column("the same in mm, of images and volumes")
    short_diameter_px: float | None = _column(
        "of images: the largest extent perpendicular to the longest diameter (the short axis of RECIST 1.1)"
    )
    short_diameter_mm: float | None = _column("the same in mm")
    slice_diameter_mm: float | None = _column(
        "of volumes: the longest diameter within one slice (of the file's third axis), as RECIST 1.1 measures it"
    )
    slice_short_diameter_mm: float | None = _column("of volumes: the short diameter in that slice")
    circumference_px: float | None = _column("of images: length of the border, with that of holes (Crofton's formula)")
    circumference_mm: float | None = _column("the same in mm")
    height_width_ratio: float | None = _column(
        "of images: height over width of the upright rectangle around the label; above 1 it is taller than wide"
    )
    centroid_x_px: float | None = _column("mean column of images, mean first index of volumes, from 0")
    centroid_y_px: float | None = _column("mean row of images, mean second index of volumes, from 0")
    centroid_z_px: float | None = _column("of volumes: mean third index, from 0")
    centroid_left_mm: float | None = _column("of volumes: centroid in DICOM's patient coordinates, towards the left")
    centroid_posterior_mm: float | None = _column("the same, towards the back")
    centroid_superior_mm: float | None = _column("the same, towards the head")
    components: int | None = _column("pieces that do not touch; corners do not count as touch")
    frames: int | None = _column("of a cine or video: frames with the label")
    outside_percent: float | None = _column(
        "how much of the label is outside of the regions of tissue that an ultrasound file defines; empty if it "
        "defines none"
    )
    confidence: float | None = _column(
        "the Dice to expect, calibrated on the bundle's selection list; empty where the weights are others, and for "
        "means of several networks (`--weights A B`) or of mirror images (`--tta`), for which it was not calibrated: "
        "`detail` says so. See [reliability](reliability.md)"
    )
    flag: str = _column(
        "why somebody should look: `nothing found`, `low confidence`, `many pieces`, `unusual size`, `outside of the "
        "stated regions`, `jumps between frames`, `unlike the training images`, `input is gone`, joined by `; `",
        "",
    )
    seconds: float = _column("spent on the case; of a batch, its share", 0.0)
    versions: str = _column("of this package and the libraries that made the result", "")


def describe_columns() -> Iterator[tuple[str, str]]:
    """Yields name and meaning of each column, in their order."""
    for column in fields(Row):
        yield column.name, column.metadata["meaning"]
