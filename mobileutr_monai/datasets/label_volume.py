"""Label maps of volumes, checked for what a network can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobileutr_monai.readers.nifti import NiftiVolumeReader

__all__ = ["LabelVolumeReader", "to_labels"]

TOLERANCE = 1e-3
"""By which a value may miss a whole number: some programs store labels with a slope, and 1 is read as 0.9999999."""


def to_labels(values: np.ndarray, labels: int, name: str | Path) -> np.ndarray:
    """Returns values as label indices.

    Args:
        labels: number of labels other than background; 0 for any number.
        name: of the file, for the message.

    Raises:
        ValueError: a value is no whole number, negative, or above the number of labels.
    """
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):
        whole = np.abs(values - rounded) <= TOLERANCE
    if not whole.all():
        raise ValueError(
            f"{name}: has the value {values[~whole].flat[0]:g}, which is no whole number; save it as a label map"
        )
    low, high = float(rounded.min()), float(rounded.max())
    if low < 0:
        raise ValueError(f"{name}: has the value {low:g}; labels are 0 for background, 1, 2 and so on")
    if labels and high > labels:
        raise ValueError(
            f"{name}: has the value {high:g}, but the network has the labels 0 to {labels}; give it more output "
            "channels, or merge labels"
        )
    label: np.ndarray = rounded.astype(np.float32)
    return label


class LabelVolumeReader(NiftiVolumeReader):
    """Reads a NIfTI label map, for ``LoadImaged``; values are whole numbers of labels that the network has.

    Args:
        labels: number of labels other than background that the network has; 0: any number.

    Shape:
        the file's own.

    Raises:
        ValueError: when the data are taken, in one line with the file.
    """

    def __init__(self, labels: int = 0) -> None:
        super().__init__()
        self.labels = labels

    def verify_suffix(self, filename: Any) -> bool:
        """Takes all files, so that no other reader guesses what is not NIfTI."""
        return True

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the label map and its meta data.

        Raises:
            ValueError: something is wrong with the file or its values.
        """
        data, meta = super().get_data(img)
        return to_labels(np.asarray(data), self.labels, img[0]), meta
