"""A bundle's objects applied to images: what every consumer's pixels come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import decollate_batch, list_data_collate
from monai.inferers import Inferer
from monai.transforms import Compose, SaveImaged

from mobileutr_monai.networks import MobileUtr

__all__ = ["Segmenter"]


class Segmenter:
    """Reads an image, runs the network, makes the label map, each by the bundle's own object.

    Args:
        network: a ``MobileUtr`` on ``device``, in eval mode when it is used.
        device: where the network is.
        preprocessing: gives ``image`` from a path.
        inferer: runs the network.
        postprocessing: gives ``pred``, a label map of the image's size and axes (2D: column, row); ``SaveImaged`` in it
            is left out, as MONAI Label does.
    """

    def __init__(
        self,
        network: MobileUtr,
        device: torch.device | str,
        preprocessing: Callable[[Mapping], Any],
        inferer: Inferer,
        postprocessing: Compose,
    ) -> None:
        self.network, self.device = network, torch.device(device)
        self.preprocessing, self.inferer = preprocessing, inferer
        self.postprocessing = Compose([t for t in postprocessing.transforms if not isinstance(t, SaveImaged)])

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return int(self.network.spatial_dims)

    def read(self, path: str | Path) -> dict[str, Any]:
        """Returns a dictionary with the preprocessed ``image``.

        Raises:
            ValueError: the file has another number of dimensions or channels than the network takes.
        """
        data: dict[str, Any] = self.preprocessing({"image": str(path)})
        shape = tuple(data["image"].shape)
        expected = (self.network.in_channels, self.spatial_dims)
        if (shape[0], len(shape) - 1) != expected:
            raise ValueError(
                f"has {shape[0]} channels and {len(shape) - 1} dimensions, the network takes {expected[0]} and "
                f"{expected[1]}"
            )
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
