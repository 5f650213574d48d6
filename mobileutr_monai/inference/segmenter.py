"""A bundle's objects applied to images: what every consumer's pixels come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import Inferer
from monai.transforms import Compose, LoadImaged, SaveImaged
from monai.utils import ImageMetaKey

from mobileutr_monai.data.dicom import DicomReader
from mobileutr_monai.networks import MobileUtr

__all__ = ["Segmenter"]


class Segmenter:
    """Reads an image, runs the network, makes the label map, each by the bundle's own object.

    Args:
        network: a ``MobileUtr`` on ``device``, in eval mode when it is used.
        device: where the network is.
        preprocessing: gives ``image`` from a path; ``LoadImaged`` first.
        inferer: runs the network.
        postprocessing: gives ``pred``, a label map of the image's size and axes (2D: column, row); ``SaveImaged`` in it
            is left out, as MONAI Label does.
        to_probabilities: gives ``pred`` as probabilities, one channel or background first.
        frame_reader: reads the frames of cines; a bundle without one takes none.
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
    ) -> None:
        self.network, self.device = network, torch.device(device)
        self.preprocessing, self.inferer = preprocessing, inferer
        self.postprocessing = Compose([t for t in postprocessing.transforms if not isinstance(t, SaveImaged)])
        self.to_probabilities = to_probabilities
        self.frame_reader = frame_reader
        self._after_loading = Compose([t for t in preprocessing.transforms if not isinstance(t, LoadImaged)])

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return int(self.network.spatial_dims)

    def read(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Returns a dictionary with the preprocessed ``image`` of a file, or of the files of a series.

        Raises:
            ValueError: the file has another number of dimensions or channels than the network takes, or has NaN.
        """
        source = [str(path) for path in paths]
        return self._checked(self.preprocessing({"image": source if len(source) > 1 else source[0]}))

    def read_frames(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yields what ``read`` returns for each frame of a cine, decoding one at a time."""
        if self.frame_reader is None:
            raise ValueError("the bundle has no frame_reader for cines")
        for array, meta in self.frame_reader.iter_data(path):
            meta[ImageMetaKey.FILENAME_OR_OBJ] = str(path)  # as LoadImaged does
            image = MetaTensor.ensure_torch_and_prune_meta(array.astype(np.float32), meta)
            yield self._checked(self._after_loading({"image": image}))

    def _checked(self, data: dict[str, Any]) -> dict[str, Any]:
        shape = tuple(data["image"].shape)
        channels, dims = self.network.in_channels, self.spatial_dims
        if (shape[0], len(shape) - 1) != (channels, dims):
            raise ValueError(
                f"has {shape[0]} channels and {len(shape) - 1} dimensions, the network takes {channels} and {dims}"
            )
        if not torch.isfinite(data["image"]).all():
            raise ValueError("has values that are no numbers (NaN or infinite); replace them")
        return data

    @torch.inference_mode()
    def infer(self, data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Adds the logits ``pred`` to images of one size, which go through the network together."""
        batch = list_data_collate(data)
        batch["pred"] = self.inferer(batch["image"].to(self.device), self.network).cpu()
        results: list[dict[str, Any]] = decollate_batch(batch)
        return results

    def make_label_map(self, result: Mapping[str, Any]) -> np.ndarray:
        """Returns the label map of one result of ``infer``, at the image's own size.

        Shape:
            - output: (rows, columns) of an image, (x, y, z) in the file's order of a volume.
        """
        label = np.asarray(self.postprocessing(result)["pred"])
        # MONAI reads images as (column, row); files and people have rows first. A volume still has its channel.
        return label.T if self.spatial_dims == 2 else label[0]

    def measure_confidence(self, result: Mapping[str, Any], threshold: float = 0.5) -> dict[int, float]:
        """Returns label index -> mean probability of the label over its pixels, without labels that are nowhere."""
        probabilities = np.asarray(self.to_probabilities({"pred": result["pred"]})["pred"])
        if len(probabilities) == 1:
            regions = {1: probabilities[0] >= threshold}
            values = {1: probabilities[0]}
        else:
            winner = probabilities.argmax(axis=0)
            regions = {index: winner == index for index in range(1, len(probabilities))}
            values = {index: probabilities[index] for index in regions}
        return {index: float(values[index][region].mean()) for index, region in regions.items() if region.any()}
