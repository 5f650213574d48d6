"""The picture of the worst cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mobileutr_monai.handlers.contact_sheet import (
    COLOURS,
    LABEL_COLOUR,
    PRED_COLOUR,
    CaseResult,
    draw_contact_sheet,
    make_tile,
)

GREY = np.full((1, 64, 64), 0.5, np.float32)


def colours_of(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}


def square(number: int, start: int) -> np.ndarray:
    mask = np.zeros((64, 64), int)
    mask[start : start + 20, start : start + 20] = number
    return mask


def test_several_labels_have_a_colour_each_on_both_sides_and_in_the_legend(tmp_path: Path) -> None:
    tile = make_tile(GREY, square(1, 4) + square(2, 40), square(2, 4), several=True)
    left, right = tile.crop((0, 0, 256, 256)), tile.crop((256, 0, 512, 256))
    assert {COLOURS[0], COLOURS[1]} <= colours_of(left)
    assert COLOURS[1] in colours_of(right) and COLOURS[0] not in colours_of(right)
    draw_contact_sheet([CaseResult("a.png", 0.5, tile)], tmp_path / "sheet.png", ["anterior", "posterior"])
    sheet = Image.open(tmp_path / "sheet.png")
    assert {COLOURS[0], COLOURS[1]} <= colours_of(sheet.crop((0, sheet.height - 18, sheet.width, sheet.height)))


def test_one_label_has_two_outlines_and_a_legend(tmp_path: Path) -> None:
    tile = make_tile(GREY, square(1, 4), square(1, 40))
    assert tile.size == (256, 256) and {LABEL_COLOUR, PRED_COLOUR} <= colours_of(tile)
    draw_contact_sheet([CaseResult("a.png", 0.5, tile)], tmp_path / "sheet.png", ["lesion"])
    sheet = Image.open(tmp_path / "sheet.png")
    assert {LABEL_COLOUR, PRED_COLOUR} <= colours_of(sheet.crop((0, sheet.height - 18, sheet.width, sheet.height)))
