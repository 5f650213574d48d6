"""The course of a training as a picture."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from PIL import Image, ImageDraw

__all__ = ["draw_curve"]

SIZE, MARGIN = (760, 420), 56
_COLOURS = {"loss": "#b04a3a", "score": "#2a6fb0", "axis": "#888888", "text": "#222222"}
_TICKS = 5

Points = list[tuple[int, float]]


def draw_curve(log_file: Path, metric: str, output: Path) -> None:
    """Draws the loss and a metric of a training log over its epochs, as PNG.

    Args:
        log_file: CSV file that ``EpochLog`` has written.
        metric: column of it; its axis goes from 0 to 1.
    """
    with log_file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses, scores = (_read(rows, name) for name in ("loss", metric))
    last = max((epoch for epoch, _ in losses), default=1)
    highest = max((value for _, value in losses), default=1.0) or 1.0
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = MARGIN, MARGIN, SIZE[0] - MARGIN, SIZE[1] - MARGIN

    def place(epoch: float, share: float) -> tuple[float, float]:
        return left + (right - left) * (epoch - 1) / max(1, last - 1), bottom - (bottom - top) * share

    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        y = place(1, share)[1]
        draw.line([(left, y), (right, y)], fill="#eeeeee")
        draw.text((6, y - 6), f"{highest * share:.3g}", fill=_COLOURS["loss"])
        draw.text((right + 8, y - 6), f"{share:.1f}", fill=_COLOURS["score"])
    draw.rectangle([left, top, right, bottom], outline=_COLOURS["axis"])
    for epoch in sorted({1, (1 + last) // 2, last}):
        draw.text((place(epoch, 0)[0] - 6, bottom + 8), str(epoch), fill=_COLOURS["text"])
    draw.text(((left + right) / 2 - 18, bottom + 26), "epoch", fill=_COLOURS["text"])
    draw.text((left, 20), "loss (left)", fill=_COLOURS["loss"])
    draw.text((left + 110, 20), f"{metric} (right)", fill=_COLOURS["score"])
    for points, top_value, colour in ((losses, highest, "loss"), (scores, 1.0, "score")):
        line = [place(epoch, value / top_value) for epoch, value in points]
        if len(line) > 1:
            draw.line(line, fill=_COLOURS[colour], width=2)
        for x, y in line if len(line) < SIZE[0] // 20 else ():
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=_COLOURS[colour])
    picture.save(output)


def _read(rows: list[dict[str, str]], column: str) -> Points:
    """Returns epoch and value of the rows that have one."""
    found = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
    return [(epoch, value) for epoch, value in found if math.isfinite(value)]
