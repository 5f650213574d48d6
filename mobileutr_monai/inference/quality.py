"""How far a result can be relied on: a calibrated confidence, and flags in fixed words."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch

from mobileutr_monai.inference.domain import TrainingDomain
from mobileutr_monai.inference.measure import Assessment, Measurement

__all__ = ["Flag", "Judge", "LabelQuality", "QualityCheck"]

logger = logging.getLogger(__name__)

SIZE_UNITS = ("percent", "ml")


class Flag(str, Enum):
    """Why somebody should look at a result, in the order in which they are listed."""

    NOTHING = "nothing found"
    LOW_CONFIDENCE = "low confidence"
    PIECES = "many pieces"
    SIZE = "unusual size"
    OUTSIDE = "outside of the stated regions"
    JUMPS = "jumps between frames"
    UNLIKE = "unlike the training images"


@dataclass(frozen=True)
class LabelQuality:
    """What was fitted for one label.

    Attributes:
        raw, dice: knots of the line from the network's own estimate to the Dice to expect; constant outside of them.
        min_confidence: a lower one is flagged.
        max_components: more components are flagged.
        size_range: smallest and largest size that is not flagged.
        size_unit: ``percent`` of the image, or ``ml``, which is checked only where the file says how large a voxel is.
        min_component_percent: a smaller component, in percent of the label, is a speck that the flag does not count.
    """

    raw: Sequence[float]
    dice: Sequence[float]
    min_confidence: float
    max_components: int
    size_range: Sequence[float]
    size_unit: str
    min_component_percent: float = 0.0

    def __post_init__(self) -> None:
        if len(self.raw) != len(self.dice) or not self.raw:
            raise ValueError(f"raw and dice must have as many knots, got {len(self.raw)} and {len(self.dice)}")
        if any(np.diff(self.raw) <= 0) or any(np.diff(self.dice) < 0):
            raise ValueError(f"knots must rise, got raw {list(self.raw)} and dice {list(self.dice)}")
        if not 0 <= self.dice[0] <= self.dice[-1] <= 1:
            raise ValueError(f"dice must be from 0 to 1, got {list(self.dice)}")
        if self.size_unit not in SIZE_UNITS:
            raise ValueError(f"size_unit must be one of {', '.join(SIZE_UNITS)}, got {self.size_unit!r}")
        if not 0 <= self.min_component_percent <= 100:
            raise ValueError(f"min_component_percent must be from 0 to 100, got {self.min_component_percent}")

    def calibrate(self, raw: float) -> float:
        """Returns the Dice to expect."""
        return float(np.interp(raw, self.raw, self.dice))

    def count_components(self, measurement: Measurement) -> int:
        """Returns how many components the label has, without specks."""
        if not measurement.component_pixels:
            return measurement.components or 0
        least = self.min_component_percent / 100 * measurement.pixels
        return sum(pixels >= least for pixels in measurement.component_pixels)


class QualityCheck:
    """Gives results a confidence, which is the Dice to expect, and flags.

    Both hold for the weights and settings that they were fitted with by ``scripts/calibrate_bundle.py``: ask
    ``for_weights`` first. Without a calibration the confidence is None, and flags are those that need none.

    Args:
        calibration: ``weights_sha256`` and ``settings`` that it was fitted with; ``labels``, index -> what
            ``LabelQuality`` takes; ``domain``, what ``TrainingDomain`` takes, or none. Empty for a bundle without one.
        settings: that the results are made with.
        max_area_change: change of the area from one frame of a cine to the next that is not flagged, as a share of the
            median area over the frames that have the label.
        max_outside_percent: percent of a label outside of the regions of tissue that an ultrasound states that are not
            flagged: a mask may reach over their border by a pixel. It is not cut off there, since regions are stated
            wrongly at times.

    Example:
        >>> QualityCheck().assess(1, 0.9, Measurement("lesion", pixels=120, percent=2.0, components=1))
        Assessment(confidence=None, flags=[])
    """

    def __init__(
        self,
        calibration: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        max_area_change: float = 0.5,
        max_outside_percent: float = 1.0,
    ) -> None:
        if not 0 <= max_outside_percent <= 100:
            raise ValueError(f"max_outside_percent must be from 0 to 100 percent, got {max_outside_percent}")
        if max_area_change <= 0:
            raise ValueError(f"max_area_change must be more than 0, got {max_area_change}")
        self.calibration, self.settings = dict(calibration or {}), dict(settings or {})
        self.max_area_change, self.max_outside_percent = max_area_change, max_outside_percent
        self.labels = {int(i): LabelQuality(**values) for i, values in self.calibration.get("labels", {}).items()}
        domain = self.calibration.get("domain")
        self.domain = TrainingDomain(**domain) if domain else None

    def for_weights(self, sha256: str) -> QualityCheck:
        """Returns what may be used with these weights: this, or one without calibration, which is said in the log."""
        problem = self._find_problem(sha256)
        if problem is None:
            return self
        logger.warning("confidence stays empty: %s; fit it with scripts/calibrate_bundle.py", problem)
        return QualityCheck({}, self.settings, self.max_area_change, self.max_outside_percent)

    def without_calibration(self) -> QualityCheck:
        """Returns what may be used with results of another kind than was fitted, such as means of several networks."""
        domain = self.calibration.get("domain")
        rest = {"domain": domain} if domain else {}
        return QualityCheck(rest, self.settings, self.max_area_change, self.max_outside_percent)

    def measure_distance(self, image: torch.Tensor) -> float | None:
        """Returns how far an image, as the network sees it, is from the training images; None if that was not fitted.

        Shape:
            - image: (channels, rows, columns) or (channels, x, y, z).
        """
        return None if self.domain is None else self.domain.measure_distance(image)

    def assess(
        self,
        index: int,
        raw: float | None,
        measurement: Measurement,
        frame_pixels: Sequence[int] | None = None,
        distance: float | None = None,
    ) -> Assessment:
        """Returns the Dice to expect of one label, None if it is not known, and the values of its flags.

        Args:
            index: of the label.
            raw: what ``Segmenter.measure_confidence`` says of it, over a cine its mean; None if the label is nowhere on
                the grid of the network.
            frame_pixels: of a cine, the label's pixels in each frame.
            distance: what ``measure_distance`` says of the image, over a cine its median.
        """
        unlike = self.domain is not None and distance is not None and distance > self.domain.max_distance
        if not measurement.pixels:
            return Assessment(None, [Flag.NOTHING.value, *([Flag.UNLIKE.value] if unlike else [])])
        fitted = self.labels.get(index)
        confidence = None if fitted is None else fitted.calibrate(0.0 if raw is None else raw)
        raised = {
            Flag.OUTSIDE: (measurement.outside_percent or 0.0) > self.max_outside_percent,
            Flag.JUMPS: frame_pixels is not None and self._jumps(frame_pixels),
            Flag.UNLIKE: unlike,
        }
        if fitted is not None and confidence is not None:
            size = _measure_size(measurement, fitted.size_unit, frame_pixels)
            raised |= {
                Flag.LOW_CONFIDENCE: confidence < fitted.min_confidence,
                Flag.PIECES: fitted.count_components(measurement) > fitted.max_components,
                Flag.SIZE: size is not None and not fitted.size_range[0] <= size <= fitted.size_range[1],
            }
        return Assessment(confidence, [flag.value for flag in Flag if raised.get(flag)])

    def _find_problem(self, sha256: str) -> str | None:
        if not self.labels:
            return "the bundle has no calibration"
        fitted = str(self.calibration.get("weights_sha256"))
        if fitted != sha256:
            return f"the calibration is of weights {fitted[:12]}, these are {sha256[:12]}"
        current = _to_plain(self.settings)
        for name, value in self.calibration.get("settings", {}).items():
            if current.get(name) != value:
                return f"the calibration is for {name} {value}, not {current.get(name)}"
        return None

    def _jumps(self, frame_pixels: Sequence[int]) -> bool:
        pixels = np.asarray(frame_pixels, dtype=float)
        return bool((np.abs(np.diff(pixels)) > self.max_area_change * np.median(pixels[pixels > 0])).any())


@dataclass(frozen=True)
class Judge:
    """A quality check with what the network says of one case, for whoever has its measurements.

    Attributes:
        raw: of each label, what ``Segmenter.measure_confidence`` says.
        distance: what ``QualityCheck.measure_distance`` says of the image.
    """

    quality: QualityCheck
    raw: Mapping[int, float]
    distance: float | None

    def assess(
        self, measurements: Mapping[int, Measurement], frame_pixels: Mapping[int, Sequence[int]] | None = None
    ) -> list[Assessment]:
        """Returns ``QualityCheck.assess`` of each label; index -> what is measured."""
        return [
            self.quality.assess(
                index, self.raw.get(index), found, None if frame_pixels is None else frame_pixels[index], self.distance
            )
            for index, found in measurements.items()
        ]


def _measure_size(measurement: Measurement, unit: str, frame_pixels: Sequence[int] | None) -> float | None:
    """Returns the label's size, of a cine the mean over the frames that have it."""
    if unit == "ml":
        return measurement.volume_ml
    if frame_pixels is None:
        return measurement.percent
    return measurement.percent * len(frame_pixels) / sum(pixels > 0 for pixels in frame_pixels)


def _to_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values as a JSON file has them."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain
