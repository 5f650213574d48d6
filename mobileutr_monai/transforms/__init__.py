"""Transforms that MONAI lacks."""

from mobileutr_monai.transforms.label_map import (
    MasksToLabelMap,
    MasksToLabelMapd,
    ProbabilitiesToLabelMap,
    ProbabilitiesToLabelMapd,
)

__all__ = ["MasksToLabelMap", "MasksToLabelMapd", "ProbabilitiesToLabelMap", "ProbabilitiesToLabelMapd"]
