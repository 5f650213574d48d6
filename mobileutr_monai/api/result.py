"""What a bundle says of one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from mobileutr_monai.core.reasons import CaseError
from mobileutr_monai.inference.measure import Measurement
from mobileutr_monai.inference.outputs.result import CaseResult, OutputOptions
from mobileutr_monai.inference.outputs.table import draw_overlay
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import explain_missing_tissue

__all__ = ["SegmentationResult", "SegmentedCase"]


@dataclass(frozen=True)
class SegmentedCase:
    """What a result is made of.

    Attributes:
        case: its files, which must stay while pictures are drawn.
        label: (rows, columns), (x, y, z), or (rows, columns, frames) of a cine or video.
        compute_probabilities: called once, if at all.
        options: what a run would ask of its outputs, for pictures.
        keep: what has to stay for that, such as the temporary folder of the files.
    """

    case: InputCase
    label: np.ndarray
    compute_probabilities: Callable[[], np.ndarray]
    options: OutputOptions
    keep: object = None


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The label map of one image, with what ``mobileutr predict`` writes into ``report.csv``.

    Values that belong to a label are by its name, as in ``result.confidence["lesion"]``.

    Attributes:
        name: of the file; of objects in memory ``image.png`` and the like, in ``many``
            with their index, ``image_0.png``.
        labels: index in the label map -> name, from 1 on.
        confidence: the Dice to expect, from 0 to 1; None where nothing was found, or where it is not calibrated for the
            weights and settings.
        measurements: sizes in pixels and percent, and in mm, mm2 and ml where the file defines how large a pixel is.
        flags: why somebody should look at the result; empty if there is nothing.
        notes: what reading the file changed or assumed.
        affine: of a volume, (4, 4), from indices of the label map to RAS in mm; None for anything else, or where the
            file defines none.
        frame_times: of a video, seconds of each frame since the first; NaN where the file does not say. None of others.
        error: why there is no result, with ``reason`` and ``detail``; None if there is one.

    Example::

        result = load_bundle("breast_ultrasound_segmentation")("image.png")
        result.measurements["lesion"].percent
    """

    name: str
    labels: Mapping[int, str]
    confidence: Mapping[str, float | None] = field(default_factory=dict)
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    affine: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    error: CaseError | None = None
    segmented: SegmentedCase | None = None

    @property
    def label(self) -> np.ndarray:
        """The label map: 0 is background.

        Shape:
            (rows, columns) of an image, (x, y, z) in the file's order of a volume, (rows, columns, frames) of a cine or
            video; uint8, of the image's own size.

        Raises:
            ValueError: the image has no result.
        """
        return self._segmented.label

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The probabilities that the label map was made of, background first; computed when they are first asked for.

        Shape:
            (1 + labels, rows, columns) or (1 + labels, x, y, z), float32, of the image's own size.

        Raises:
            ValueError: the image has no result, or is a cine or video, whose probabilities are not kept.
        """
        return self._segmented.compute_probabilities()

    def plot(self, whole: bool = False) -> Image.Image:
        """Returns a picture of the contours: on the image, on three planes of a volume, on a frame of a cine or video.

        An ultrasound DICOM is drawn within its regions of tissue, since a name may be burned in elsewhere.

        Args:
            whole: draw all of it.

        Raises:
            ValueError: the image has no result, or its file defines no regions of tissue and ``whole`` is not set.
        """
        segmented = self._segmented
        options = segmented.options._replace(whole_overlays=whole)
        if not options.may_show(segmented.case):
            why = explain_missing_tissue(segmented.case.paths[0])
            raise ValueError(f"{self.name}: {why}, so a burned-in name cannot be ruled out; plot(whole=True) draws it")
        case, label = segmented.case, segmented.label
        return draw_overlay(CaseResult(case, label, tuple(self.measurements.values()), options))

    @property
    def _segmented(self) -> SegmentedCase:
        if self.segmented is None:
            raise ValueError(f"{self.name}: {self.error}")
        return self.segmented

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<SegmentationResult {self.name}: {self.error}>"
        found = ", ".join(
            f"{name} {measured.percent:g} %"
            + ("" if self.confidence[name] is None else f" (confidence {self.confidence[name]:.2f})")
            for name, measured in self.measurements.items()
        )
        return f"<SegmentationResult {self.name}: {found}>"
