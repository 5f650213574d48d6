"""Small pictures for the report page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.inference.outputs.overlay import COLOURS, View
from mobileutr_monai.inference.report.thumbnails import LONGEST_SIDE, make_thumbnail, read_thumbnail, save_thumbnail


def make_view(rows: int, columns: int, mode: str = "RGB") -> View:
    label = np.zeros((rows, columns), np.uint8)
    label[rows // 4 : rows // 2, columns // 4 : columns // 2] = 1
    label[rows // 2 : -rows // 4, columns // 2 : -columns // 4] = 2
    return View(Image.new("RGB", (columns, rows), (90, 90, 90)).convert(mode), label, "axial")


def open_uri(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(
    ("rows", "columns", "height", "width"),
    [(64, 40, 64, 40), (LONGEST_SIDE, 20, LONGEST_SIDE, 20), (300, 3 * LONGEST_SIDE, 100, LONGEST_SIDE)],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_is_as_large_as_the_image_or_reduced(rows, columns, height, width, mode):
    thumbnail = make_thumbnail(make_view(rows, columns, mode))
    assert (thumbnail["name"], thumbnail["height"], thumbnail["width"]) == ("axial", height, width)
    for name in ("picture", "contours"):
        assert open_uri(thumbnail[name]).size == (width, height)
    assert open_uri(thumbnail["picture"]).mode == mode


def test_contours_lie_on_the_picture_and_hide_nothing_else():
    thumbnail = make_thumbnail(make_view(64, 64))
    assert np.ptp(np.asarray(open_uri(thumbnail["picture"]))) <= 2, "the picture has no contours"
    contours = np.asarray(open_uri(thumbnail["contours"]).convert("RGBA"))
    assert tuple(contours[16, 20]) == (*COLOURS[0], 255)
    assert tuple(contours[40, 32]) == (*COLOURS[1], 255)
    assert contours[24, 24, 3] == 0, "inside of a label"
    assert contours[0, 0, 3] == 0, "outside"
    assert tuple(contours[15, 20]) == (0, 0, 0, 255), "the line around a contour"


def test_what_was_saved_is_read_and_what_is_broken_is_nothing(tmp_path):
    path = tmp_path / "sub" / "a.json"
    save_thumbnail([make_view(64, 64)], path)
    assert read_thumbnail(path) == [make_thumbnail(make_view(64, 64))]
    path.write_bytes(path.read_bytes()[:100])
    assert read_thumbnail(path) == []
    assert read_thumbnail(tmp_path / "none.json") == []
