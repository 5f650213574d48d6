"""The cases with the lowest scores on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["CaseResult", "draw_contact_sheet", "make_tile"]

SIDE, COLUMNS, CAPTION = 256, 4, 18
LABEL_COLOUR, PRED_COLOUR = (40, 200, 90), (230, 60, 60)
"""Outline of what is labelled, and of what the network found."""


class CaseResult(NamedTuple):
    """A validated case: its name, its mean Dice over the labels (NaN without any), and its picture."""

    name: str
    dice: float
    tile: Image.Image


def make_tile(image: np.ndarray, label: np.ndarray, pred: np.ndarray) -> Image.Image:
    """Returns an image with the outlines of label and prediction; of a volume, the slice with most of the label.

    Shape:
        - image: (C, H, W) or (C, X, Y, Z); label, pred: bool, (H, W) or (X, Y, Z).
    """
    if label.ndim == 3:
        areas = (label if label.any() else pred).sum(axis=(0, 1))
        middle = int(areas.argmax()) if areas.any() else label.shape[2] // 2
        # Rows from front to back, columns from right to left of the patient, as radiologists look at slices.
        image, label, pred = (np.swapaxes(part[..., middle], -1, -2)[..., ::-1, ::-1] for part in (image, label, pred))
    grey = image[:3] if len(image) == 3 else image[:1].repeat(3, axis=0)
    low, high = np.percentile(grey, (1, 99))
    pixels = np.clip((grey - low) / max(high - low, 1e-6), 0, 1).transpose(1, 2, 0)
    scale = SIDE / max(label.shape)
    size = tuple(max(1, round(side * scale)) for side in label.shape[::-1])
    tile = Image.fromarray((255 * pixels).astype(np.uint8)).resize(size)
    drawn = np.array(tile)
    for mask, colour in ((label, LABEL_COLOUR), (pred, PRED_COLOUR)):
        large = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0
        drawn[_outline(large)] = colour
    return Image.fromarray(drawn)


def draw_contact_sheet(cases: Sequence[CaseResult], output: Path) -> None:
    """Draws tiles in rows, each with the case's name and Dice, as PNG; label green, prediction red."""
    columns = min(COLUMNS, max(1, len(cases)))
    rows = -(-len(cases) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + 4), max(1, rows) * (SIDE + CAPTION + 4)), "black")
    draw = ImageDraw.Draw(sheet)
    for place, case in enumerate(cases):
        x, y = place % columns * (SIDE + 4), place // columns * (SIDE + CAPTION + 4)
        sheet.paste(case.tile, (x, y + CAPTION))
        name = case.name if len(case.name) <= 30 else f"...{case.name[-27:]}"
        draw.text((x + 2, y + 3), f"{case.dice:.3f} {name}".encode("ascii", "replace").decode(), fill="white")
    sheet.save(output)


def _outline(mask: np.ndarray) -> np.ndarray:
    inner = np.pad(mask, 1)
    inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    outline: np.ndarray = mask & ~inner
    return outline
