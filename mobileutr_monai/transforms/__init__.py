"""Transforms that MONAI lacks."""

from mobileutr_monai.transforms.bars import CropAliked, CropBarsd
from mobileutr_monai.transforms.batch_augmentation import BatchAugmentation
from mobileutr_monai.transforms.intensity import (
    RandDarkCorners,
    RandDarkCornersd,
    RandDepthGain,
    RandDepthGaind,
    RandGainField,
    RandGainFieldd,
    RandMarks,
    RandMarksd,
)
from mobileutr_monai.transforms.label_map import ProbabilitiesToLabelMap, ProbabilitiesToLabelMapd
from mobileutr_monai.transforms.letterbox import RandLetterbox, RandLetterboxd
from mobileutr_monai.transforms.region import CropToRegiond
from mobileutr_monai.transforms.same_grid import CheckSameGridd
from mobileutr_monai.transforms.spacing import ResampleToSpacingd

__all__ = [
    "BatchAugmentation",
    "CheckSameGridd",
    "CropAliked",
    "CropBarsd",
    "CropToRegiond",
    "ProbabilitiesToLabelMap",
    "ProbabilitiesToLabelMapd",
    "RandDarkCorners",
    "RandDarkCornersd",
    "RandDepthGain",
    "RandDepthGaind",
    "RandGainField",
    "RandGainFieldd",
    "RandLetterbox",
    "RandLetterboxd",
    "RandMarks",
    "RandMarksd",
    "ResampleToSpacingd",
]
