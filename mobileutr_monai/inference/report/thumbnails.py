"""Small pictures of a case for the report page, kept next to its results so that they outlast the run."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.output_folder import WORK_DIR
from mobileutr_monai.inference.outputs.overlay import View, draw_contour_layer
from mobileutr_monai.readers.pillow_io import to_mode

__all__ = ["clear_thumbnails", "make_thumbnail", "read_thumbnail", "save_thumbnail", "thumbnail_path"]

FOLDER = f"{WORK_DIR}/thumbnails"
"""Hidden, so that they are not taken for results, nor for inputs of another run."""

LONGEST_SIDE = 384
"""In pixels; larger pictures are reduced."""

JPEG_QUALITY = 80

LINE_WIDTH = 2
"""Of contours, in pixels: one is lost where the page shows the picture smaller than it is."""

Thumbnail = dict[str, str | int]


def thumbnail_path(folder: Path, output: str) -> Path:
    """Returns where the thumbnails of a case are.

    Args:
        folder: the output folder.
        output: where the case's results go, as in ``InputCase.output``.
    """
    return folder / FOLDER / f"{output}.json"


def clear_thumbnails(folder: Path) -> None:
    """Removes the thumbnails of an output folder."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def make_thumbnail(view: View) -> Thumbnail:
    """Returns a view for a page: its ``name``, ``width`` and ``height`` in pixels, and two data URIs of that size.

    ``picture`` is a JPEG without contours, ``contours`` a PNG that lies on it, so that a page can take them away.
    """
    small = _reduce(view)
    picture, contours = io.BytesIO(), io.BytesIO()
    mode = "L" if small.picture.mode == "L" else "RGB"
    to_mode(small.picture, mode).save(picture, format="JPEG", quality=JPEG_QUALITY)
    draw_contour_layer(small.label, LINE_WIDTH).save(contours, format="PNG", transparency=0)
    return {
        "name": view.name,
        "width": small.picture.width,
        "height": small.picture.height,
        "picture": _to_uri(picture, "image/jpeg"),
        "contours": _to_uri(contours, "image/png"),
    }


def save_thumbnail(views: Sequence[View], path: Path) -> None:
    """Writes the thumbnails of a case as JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps([make_thumbnail(view) for view in views]))


def read_thumbnail(path: Path) -> list[Thumbnail]:
    """Returns what ``save_thumbnail`` wrote; nothing where there is none, or it cannot be read."""
    try:
        thumbnails: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return thumbnails if isinstance(thumbnails, list) else []


def _reduce(view: View) -> View:
    scale = LONGEST_SIDE / max(view.picture.size)
    if scale >= 1.0:
        return view
    size = (max(1, round(view.picture.width * scale)), max(1, round(view.picture.height * scale)))
    label = Image.fromarray(view.label.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return View(view.picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0), np.asarray(label), view.name)


def _to_uri(file: io.BytesIO, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(file.getvalue()).decode()}"
