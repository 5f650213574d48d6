"""The values of a structured report: what was measured of a label, its unit, and the lines of its axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.measure import Assessment, Measurement
from mobileutr_monai.readers.dicom.series import DicomCase

if TYPE_CHECKING:
    from highdicom import sr

__all__ = ["EXPECTED_DICE", "SCHEME", "list_values"]

SCHEME = "99MOBILEUTR"
EXPECTED_DICE = Code("expected-dice", SCHEME, "Expected Dice coefficient of the segmentation")

_PIXELS = Code("{pixels}", "UCUM", "pixels")
_RATIO = Code("1", "UCUM", "no units")
_MILLILITRE = Code("ml", "UCUM", "ml")

# Centre of a pixel in the coordinates of an SR, in which the first pixel begins at 0.
_CENTRE = 0.5


def list_values(
    case: DicomCase, found: Measurement, assessment: Assessment, *, is_region: bool
) -> tuple[list[sr.Measurement], list[sr.Measurement]]:
    """Returns what a label's group has, and what is in a group of its own: the axes, where the first is of a region."""
    from highdicom import sr

    values = list(_measure(case, found)) if found.pixels else []
    axes = [value for value in values if value.name in (codes.SCT.LongAxis, codes.SCT.ShortAxis)] if is_region else []
    values = [value for value in values if value not in axes]
    if assessment.confidence is not None:
        values.append(sr.Measurement(name=EXPECTED_DICE, value=round(assessment.confidence, 4), unit=_RATIO))
    return values, axes


def _measure(case: DicomCase, found: Measurement) -> Iterator[sr.Measurement]:
    """Yields what is measured of a label, in mm where that is known."""
    from highdicom import sr

    def make(name: Code, value: float | None, unit: Code, line: int | None = None) -> Iterator[sr.Measurement]:
        if value is not None:
            lines = None if line is None else _draw_line(case, found.ends[2 * line : 2 * line + 2])
            yield sr.Measurement(name=name, value=value, unit=unit, referenced_coordinates=lines)

    mm = codes.UCUM.Millimeter
    if found.volume_ml is not None:
        yield from make(codes.SCT.Volume, found.volume_ml, _MILLILITRE)
        yield from make(codes.IBSI.Maximum3DDiameterOfAMesh, found.diameter_mm, mm)
        yield from make(codes.SCT.LongAxis, found.slice_diameter_mm, mm, 0)
        yield from make(codes.SCT.ShortAxis, found.slice_short_diameter_mm, mm, 1)
    elif found.area_mm2 is not None:
        yield from make(codes.SCT.Area, found.area_mm2, codes.UCUM.SquareMillimeter)
        yield from make(codes.SCT.LongAxis, found.diameter_mm, mm, 0)
        yield from make(codes.SCT.ShortAxis, found.short_diameter_mm, mm, 1)
        yield from make(codes.SCT.Perimeter, found.circumference_mm, mm)
    else:
        is_plane = found.diameter_px is not None
        yield from make(codes.SCT.Area if is_plane else codes.SCT.Volume, found.pixels, _PIXELS)
        yield from make(codes.SCT.LongAxis, found.diameter_px, _PIXELS, 0)
        yield from make(codes.SCT.ShortAxis, found.short_diameter_px, _PIXELS, 1)
        yield from make(codes.SCT.Perimeter, found.circumference_px, _PIXELS)


def _draw_line(case: DicomCase, ends: Sequence[tuple[int, ...]]) -> list[sr.CoordinatesForMeasurement] | None:
    """Returns a line between two pixels of an image, or of a volume's slice; None where it would be a point."""
    from highdicom import sr

    if len(ends) != 2 or ends[0] == ends[1]:
        return None
    if case.kind is CaseKind.STILL:
        place, points = 0, [(column, row) for row, column in ends]
    else:
        place, points = ends[0][2], [(end[0], end[1]) for end in ends]
    frames = [case.frame_order[place] + 1] if case.frame_order else None
    uid = case.sop_uids[0] if case.frame_order else case.sop_uids[place]
    return [
        sr.CoordinatesForMeasurement(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=np.array(points, np.float64) + _CENTRE,
            source_image=sr.SourceImageForRegion(case.sop_class_uid, uid, frames),
        )
    ]
