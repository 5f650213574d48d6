"""The cases with the lowest scores in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["CaseResult", "draw_contact_sheet", "make_tile"]

SIDE, COLUMNS, CAPTION = 256, 4, 18
LABEL_COLOUR, PRED_COLOUR = (40, 200, 90), (230, 60, 60)
"""Outlines where there is one label: of what is labelled, and of what the network found."""

COLOURS = ((80, 255, 80), (255, 80, 255), (255, 220, 64), (64, 220, 255), (255, 150, 60), (255, 64, 64))
"""Outlines of labels 1, 2 ... where there are several, as in overlays; repeated when there are more."""


class CaseResult(NamedTuple):
    """A validated case: its name, its mean Dice over the labels (NaN without any), and its picture."""

    name: str
    dice: float
    tile: Image.Image


def make_tile(image: np.ndarray, label: np.ndarray, pred: np.ndarray, several: bool = False) -> Image.Image:
    """Returns an image with the outlines of label and prediction; of a volume, the slice with most of the label.

    One label: both outlines in one picture, in two colours. Several labels: two pictures side by side, label and
    prediction, with a colour per label.

    Shape:
        - image: (C, H, W) or (C, X, Y, Z); label, pred: label numbers, (H, W) or (X, Y, Z).
    """
    if label.ndim == 3:
        areas = (label if label.any() else pred).astype(bool).sum(axis=(0, 1))
        middle = int(areas.argmax()) if areas.any() else label.shape[2] // 2
        # Rows from front to back, columns from right to left of the patient, as radiologists look at slices.
        image, label, pred = (np.swapaxes(part[..., middle], -1, -2)[..., ::-1, ::-1] for part in (image, label, pred))
    grey = image[:3] if len(image) == 3 else image[:1].repeat(3, axis=0)
    low, high = np.percentile(grey, (1, 99))
    pixels = np.clip((grey - low) / max(high - low, 1e-6), 0, 1).transpose(1, 2, 0)
    scale = SIDE / max(label.shape)
    size = tuple(max(1, round(side * scale)) for side in label.shape[::-1])
    tile = np.asarray(Image.fromarray((255 * pixels).astype(np.uint8)).resize(size))
    if several:
        numbers = np.union1d(label, pred)
        colours = {int(number): COLOURS[(int(number) - 1) % len(COLOURS)] for number in numbers if number}
        panels = [_draw(tile, [(mask == number, colours[number]) for number in colours]) for mask in (label, pred)]
        return Image.fromarray(np.hstack(panels))
    return Image.fromarray(_draw(tile, [(label > 0, LABEL_COLOUR), (pred > 0, PRED_COLOUR)]))


def draw_contact_sheet(cases: Sequence[CaseResult], output: Path, labels: Sequence[str] = ()) -> None:
    """Draws tiles in rows, each with the case's Dice and name, over a legend of the colours, as PNG."""
    several = len(labels) > 1
    width, most = (2 * SIDE, COLUMNS // 2) if several else (SIDE, COLUMNS)
    columns = min(most, max(1, len(cases)))
    rows = max(1, -(-len(cases) // columns))
    height = rows * (SIDE + CAPTION + 4)
    sheet = Image.new("RGB", (columns * (width + 4), height + CAPTION), "black")
    draw = ImageDraw.Draw(sheet)
    for place, case in enumerate(cases):
        x, y = place % columns * (width + 4), place // columns * (SIDE + CAPTION + 4)
        sheet.paste(case.tile, (x, y + CAPTION))
        name = case.name if len(case.name) <= 30 else f"...{case.name[-27:]}"
        draw.text((x + 2, y + 3), _to_ascii(f"{case.dice:.3f} {name}"), fill="white")
    x, y = 2, height + 3
    if several:
        draw.text((x, y), intro := "left: label, right: prediction", fill="white")
        x += round(draw.textlength(intro)) + 14
    legend = [("label", LABEL_COLOUR), ("prediction", PRED_COLOUR)]
    for text, colour in zip(labels, cycle(COLOURS), strict=False) if several else legend:
        draw.rectangle((x, y + 2, x + 8, y + 10), fill=colour)
        draw.text((x + 13, y), _to_ascii(text), fill="white")
        x += round(draw.textlength(_to_ascii(text))) + 27
    sheet.save(output)


def _draw(tile: np.ndarray, masks: Sequence[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """Returns a picture with the outlines of masks, which are enlarged to its size."""
    drawn = tile.copy()
    for mask, colour in masks:
        large = Image.fromarray(mask.astype(np.uint8) * 255).resize(tile.shape[1::-1], Image.Resampling.NEAREST)
        drawn[_outline(np.asarray(large) > 0)] = colour
    return drawn


def _to_ascii(text: str) -> str:
    """Returns a text in the characters of Pillow's own font."""
    return text.encode("ascii", "replace").decode()


def _outline(mask: np.ndarray) -> np.ndarray:
    inner = np.pad(mask, 1)
    inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    outline: np.ndarray = mask & ~inner
    return outline
