"""Transforms that MONAI lacks."""

from mobileutr_monai.transforms.label_map import (
    MasksToLabelMap,
    MasksToLabelMapd,
    ProbabilitiesToLabelMap,
    ProbabilitiesToLabelMapd,
)
from mobileutr_monai.transforms.spacing import ResampleToSpacingd

__all__ = [
    "MasksToLabelMap",
    "MasksToLabelMapd",
    "ProbabilitiesToLabelMap",
    "ProbabilitiesToLabelMapd",
    "ResampleToSpacingd",
]
