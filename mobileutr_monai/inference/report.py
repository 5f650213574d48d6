"""What a run says of its cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

__all__ = ["NOTICE", "Row", "measure_labels"]

NOTICE = "Research only. Not a medical device; not for diagnosis or treatment."


@dataclass
class Row:
    """One label of one case in ``report.csv``.

    ``pixels`` are those of the image, voxels of a volume. ``volume_ml`` is given where the file says how large a voxel
    is.
    """

    case: str
    status: str = "ok"
    reason: str = ""
    mask: str = ""
    shape: str = ""
    label: str = ""
    pixels: int = 0
    percent: float = 0.0
    volume_ml: float | None = None
    components: int = 0
    seconds: float = 0.0


def measure_labels(
    label: np.ndarray, names: Mapping[int, str], case: str, mask: str, voxel_ml: float | None
) -> list[Row]:
    """Returns a row a label, also for those that are not in the label map.

    Args:
        names: index -> name.
        voxel_ml: volume of a voxel in ml, or None if it is not known.
    """
    rows = []
    for index, name in names.items():
        region = label == index
        pixels = int(region.sum())
        rows.append(
            Row(
                case=case,
                mask=mask,
                shape=" x ".join(map(str, label.shape)),
                label=name,
                pixels=pixels,
                percent=round(100 * pixels / label.size, 3),
                volume_ml=None if voxel_ml is None else round(pixels * voxel_ml, 4),
                components=int(ndimage.label(region)[1]),
            )
        )
    return rows
