"""A row of ``report.csv``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLAG_SEPARATOR", "Row"]

FLAG_SEPARATOR = "; "
"""Between the flags in a cell of ``report.csv``."""


@dataclass
class Row:
    """One label of one case in ``report.csv``; a case without a result has one row."""

    case: str
    input_id: str = ""
    input_stat: str = ""
    kind: str = ""
    status: str = "ok"
    reason: str = ""
    detail: str = ""
    study_uid: str = ""
    series_uid: str = ""
    output: str = ""
    files: str = ""
    shape: str = ""
    label: str = ""
    pixels: int | None = None
    percent: float | None = None
    area_mm2: float | None = None
    volume_ml: float | None = None
    diameter_px: float | None = None
    diameter_mm: float | None = None
    components: int | None = None
    frames: int | None = None
    outside_percent: float | None = None
    confidence: float | None = None
    flag: str = ""
    seconds: float = 0.0
    versions: str = ""
