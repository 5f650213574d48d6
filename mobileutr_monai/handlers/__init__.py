"""Ignite handlers that MONAI lacks."""

from mobileutr_monai.handlers.checkpoint import TrainingCheckpoint
from mobileutr_monai.handlers.early_stop import EarlyStop
from mobileutr_monai.handlers.finite_gradients import FiniteGradients
from mobileutr_monai.handlers.log import EpochLog, ProgressBar
from mobileutr_monai.handlers.precision_recall import FalsePositive, Precision, Recall
from mobileutr_monai.handlers.run_folder import RunFolder
from mobileutr_monai.handlers.seed import EpochSeed
from mobileutr_monai.handlers.training_data import TrainingData
from mobileutr_monai.handlers.weight_average import WeightAverage

__all__ = [
    "EarlyStop",
    "EpochLog",
    "EpochSeed",
    "FalsePositive",
    "FiniteGradients",
    "Precision",
    "ProgressBar",
    "Recall",
    "RunFolder",
    "TrainingCheckpoint",
    "TrainingData",
    "WeightAverage",
]
