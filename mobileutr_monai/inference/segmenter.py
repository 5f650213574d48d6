"""A bundle's objects applied to images: what every consumer's pixels come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import decollate_batch, list_data_collate
from monai.inferers import Inferer
from monai.transforms import Compose, SaveImaged
from monai.utils import convert_to_tensor

from mobileutr_monai.inference.engines.table import Predictor
from mobileutr_monai.inference.ensemble import average_probabilities, flip_combinations
from mobileutr_monai.inference.reading import CaseReader
from mobileutr_monai.networks import MobileUtr
from mobileutr_monai.readers.dicom.reader import DicomReader
from mobileutr_monai.readers.video.reader import VideoReader
from mobileutr_monai.transforms import ProbabilitiesToLabelMapd

__all__ = ["Segmenter"]

# Between the threshold and the two around it, in logits.
_STEP = math.log(0.7 / 0.3)
# Logits of a volume that are made probabilities at a time.
_VALUES_AT_ONCE = 2**22

_CERTAIN = 20.0
"""Logit of a probability that is 1 to eight digits."""


class Segmenter:
    """Reads an image, runs the network, makes the label map, each by the bundle's own object.

    Args:
        network: a ``MobileUtr`` on ``device``; with weights and in eval mode when it is used.
        device: where the network is.
        preprocessing: gives ``image`` from a path; ``LoadImaged`` first.
        inferer: runs the network.
        postprocessing: gives ``pred``, a label map of the image's size and axes (2D: column, row); ``SaveImaged`` in it
            is left out, as MONAI Label does.
        to_probabilities: gives ``pred`` as probabilities, one channel or background first.
        frame_reader: reads the frames of cines; a bundle without one takes none.
        video_reader: likewise, of videos.
        flip_axes: spatial axes that images are flipped along, too, in every combination; the results are averaged.
        threshold: probability at and above which ``postprocessing`` takes a pixel for the label, of one channel.

    Attributes:
        predictor: computes the logits; the network itself, unless an engine takes its place.
        further_predictors: other networks whose probabilities are averaged with those of ``predictor``.
        reader: reads cases with ``preprocessing``, up to what ``infer`` takes.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(
        self,
        network: MobileUtr,
        device: torch.device | str,
        preprocessing: Compose,
        inferer: Inferer,
        postprocessing: Compose,
        to_probabilities: Callable[[Mapping], Mapping],
        frame_reader: DicomReader | None = None,
        threshold: float = 0.5,
        flip_axes: Sequence[int] = (),
        video_reader: VideoReader | None = None,
    ) -> None:
        self.network, self.device = network, torch.device(device)
        self.predictor: Predictor = network
        self.further_predictors: list[Predictor] = []
        self.flip_axes, self._flips = tuple(flip_axes), list(flip_combinations(flip_axes))
        self.inferer = inferer
        self.postprocessing = Compose([t for t in postprocessing.transforms if not isinstance(t, SaveImaged)])
        self.to_probabilities = to_probabilities
        self.threshold, self.spatial_dims = threshold, int(network.spatial_dims)
        self.reader = CaseReader(preprocessing, network.in_channels, self.spatial_dims, frame_reader, video_reader)

    @torch.inference_mode()
    def infer(self, data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Adds the logits ``pred`` to images of one size, which go through the network together.

        Raises:
            ValueError: the network's weights are random, or it is in train mode.
        """
        if not self.network.weights_loaded:
            raise ValueError(
                "no weights have been loaded, so the network's are random; load them with "
                "mobileutr_monai.networks.load_weights(segmenter.network, 'models/model.pt')"
            )
        if self.network.training:
            raise ValueError("the network is in train mode; call segmenter.network.eval() first")
        batch = list_data_collate(data)
        batch["pred"] = _clear_blank(self._compute_logits(batch["image"].to(self.device)).cpu(), batch["image"])
        results: list[dict[str, Any]] = decollate_batch(batch)
        return results

    def _compute_logits(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits: of one network as they are, of several or of flips those of the mean probability."""
        logits = []
        for predictor in (self.predictor, *self.further_predictors):
            for axes in self._flips:
                dims = [axis + 2 for axis in axes]
                pred = self.inferer(image.flip(dims) if dims else image, predictor)
                logits.append(pred.flip(dims) if dims else pred)
        return logits[0] if len(logits) == 1 else average_probabilities(logits)

    def make_label_map(self, result: Mapping[str, Any]) -> np.ndarray:
        """Returns the label map of one result of ``infer``, at the image's own size.

        Shape:
            - output: (rows, columns) of an image, (x, y, z) in the file's order of a volume.
        """
        return self._reorder(self.postprocessing(result))

    def make_label_map_and_probabilities(self, result: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Returns what ``make_label_map`` does, and the probabilities of the labels that it is made of.

        Shape:
            - output: the label map; (labels, rows, columns) or (labels, x, y, z), uint8, where 255 is 1.

        Raises:
            ValueError: ``postprocessing`` has no ``ProbabilitiesToLabelMapd``.
        """
        place = self._find_probabilities()
        data = self.postprocessing(result, end=place)
        values = convert_to_tensor(data["pred"], track_meta=False)
        values = values if len(values) == 1 else values[1:]
        probabilities = np.stack([(plane * 255).round().to(torch.uint8).cpu().numpy() for plane in values])
        label = self._reorder(self.postprocessing(data, start=place))
        return label, probabilities.swapaxes(1, 2) if self.spatial_dims == 2 else probabilities

    def make_probabilities(self, result: Mapping[str, Any]) -> np.ndarray:
        """Returns the probabilities that ``make_label_map`` makes the label map of, at the image's own size.

        Shape:
            - output: (1 + labels, rows, columns) of an image, (1 + labels, x, y, z) of a volume; float32, background
              first.

        Raises:
            ValueError: the bundle's postprocessing has no ``ProbabilitiesToLabelMapd``.
        """
        data = self.postprocessing(result, end=self._find_probabilities())
        pred = np.asarray(data["pred"], dtype=np.float32)
        if self.spatial_dims == 2:
            pred = pred.swapaxes(1, 2)
        return np.concatenate((1 - pred, pred)) if len(pred) == 1 else pred

    def _find_probabilities(self) -> int:
        """Returns how many steps of ``postprocessing`` come before the label map."""
        for place, step in enumerate(self.postprocessing.transforms):
            if isinstance(step, ProbabilitiesToLabelMapd):
                return place
        raise ValueError("the bundle's postprocessing has no ProbabilitiesToLabelMapd, so it has no probabilities")

    def _reorder(self, data: Mapping[str, Any]) -> np.ndarray:
        label = np.asarray(data["pred"])
        # MONAI reads images as (column, row); files and people have rows first. A volume still has its channel.
        return label.T if self.spatial_dims == 2 else label[0]

    def measure_confidence(self, result: Mapping[str, Any]) -> dict[int, float]:
        """Returns label index -> how stable the label's area is, from 0 to 1, without labels that are nowhere.

        That is the Dice of the areas above a higher and a lower probability, 0.7 and 0.3 around a threshold of 0.5,
        after the stability score of Segment Anything (Kirillov et al., arXiv 2304.02643), which takes their IoU. It is
        no confidence yet: ``QualityCheck`` makes it one. Pixels are those of the network's grid.
        """
        logits = convert_to_tensor(result["pred"], track_meta=False)
        one = len(logits) == 1
        low, high = _thresholds_around(self.threshold if one else 0.5)
        # Of each label: its own area, the larger and the smaller one.
        areas = np.zeros((1 if one else len(logits) - 1, 3), dtype=np.int64)
        planes = max(1, _VALUES_AT_ONCE // max(1, logits[:, 0].numel()))
        for part in torch.split(logits, planes, dim=1):
            probabilities = convert_to_tensor(self.to_probabilities({"pred": part})["pred"], track_meta=False)
            winner = None if one else probabilities.argmax(dim=0).numpy()
            for index, values in enumerate((probabilities if one else probabilities[1:]).numpy(), start=1):
                region = values >= self.threshold if winner is None else winner == index
                # Counted by NumPy, which takes a tenth of torch's time for it.
                areas[index - 1] += [np.count_nonzero(mask) for mask in (region, values >= low, values >= high)]
        return {
            index: float(2 * smaller / max(1, smaller + larger))
            for index, (own, larger, smaller) in enumerate(areas.tolist(), start=1)
            if own
        }


def _thresholds_around(threshold: float) -> tuple[float, float]:
    """Returns the probabilities 0.3 and 0.7 for a threshold of 0.5, for others as far from it in logits."""
    middle = math.log(threshold / (1 - threshold))
    low, high = (1 / (1 + math.exp(-middle - step)) for step in (-_STEP, _STEP))
    return low, high


def _clear_blank(logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Makes background of images in which all values are the same, such as black frames of a cine: a network may find
    something in them."""
    planes = convert_to_tensor(image, track_meta=False).flatten(1)
    blank = planes.amin(1) == planes.amax(1)
    if not bool(blank.any()):
        return logits
    logits = logits.clone()
    logits[blank.to(logits.device)] = -_CERTAIN
    if logits.shape[1] > 1:
        logits[blank.to(logits.device), 0] = _CERTAIN
    return logits
