"""Running a bundle over cases."""

from mobileutr_monai.inference.inferers import AutocastInferer
from mobileutr_monai.inference.quality import QualityCheck
from mobileutr_monai.inference.runner import BatchRunner, UsageError
from mobileutr_monai.inference.segmenter import Segmenter

__all__ = ["AutocastInferer", "BatchRunner", "QualityCheck", "Segmenter", "UsageError"]
