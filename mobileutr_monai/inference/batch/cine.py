"""What is measured of a cine or video while its frames go by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mobileutr_monai.inference.measure import Assessment, Measurement, measure_frames
from mobileutr_monai.inference.outputs.result import FrameTable
from mobileutr_monai.inference.quality import Judge, QualityCheck
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import mask_outside_tissue

__all__ = ["CineMeter"]


class CineMeter:
    """Counts the pixels of a cine's labels frame by frame, and what the network says of them.

    Args:
        case: the cine, whose file may define regions of tissue.
        labels: index -> name.

    Attributes:
        shape: (rows, columns, frames) of the frames that went by.
    """

    def __init__(self, segmenter: Segmenter, quality: QualityCheck, labels: Mapping[int, str], case: InputCase) -> None:
        self.segmenter, self.quality, self.labels, self.case = segmenter, quality, labels, case
        self.shape: tuple[int, ...] = ()
        self._pixels: dict[int, list[int]] = {index: [] for index in labels}
        self._beyond: dict[int, int] | None = None
        self._confidence: dict[int, list[float]] = {}
        self._distances: list[float] = []
        self._seconds: list[float] = []

    def watch(self, results: Iterable[dict[str, Any]]) -> Iterator[np.ndarray]:
        """Yields the label map of each frame's result.

        Shape:
            - output: (rows, columns) each.

        Raises:
            ValueError: the file's regions of tissue cannot be read.
        """
        outside = mask_outside_tissue(self.case.paths[0])
        self._beyond = None if outside is None else dict.fromkeys(self.labels, 0)
        for count, result in enumerate(results, start=1):
            label = self.segmenter.make_label_map(result)
            self.shape = (*label.shape, count)
            for index, counts in self._pixels.items():
                region = label == index
                counts.append(int(region.sum()))
                if self._beyond is not None:
                    self._beyond[index] += int((region & outside).sum())
            for index, value in self.segmenter.measure_confidence(result).items():
                self._confidence.setdefault(index, []).append(value)
            if (distance := self.quality.measure_distance(result["image"])) is not None:
                self._distances.append(distance)
            self._seconds.append(float(result.get("seconds", math.nan)))
            yield label

    @property
    def frames(self) -> FrameTable:
        """What was counted of each frame, and when it is shown."""
        return FrameTable(self._seconds, {self.labels[index]: counts for index, counts in self._pixels.items()})

    def measure(self) -> list[Measurement]:
        """Returns the measurements of each label over all frames."""
        counted = {self.labels[index]: counts for index, counts in self._pixels.items()}
        outside = None if self._beyond is None else {self.labels[index]: count for index, count in self._beyond.items()}
        return measure_frames(counted, self.shape[0] * self.shape[1], outside)

    def assess(self, measurements: Iterable[Measurement]) -> list[Assessment]:
        """Returns confidence and flags of each label: of the means over frames, and the median distance."""
        means = {index: float(np.mean(values)) for index, values in self._confidence.items()}
        judge = Judge(self.quality, means, float(np.median(self._distances)) if self._distances else None)
        return judge.assess(dict(zip(self.labels, measurements, strict=True)), self._pixels)
