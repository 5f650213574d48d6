"""MONAI Label's tasks for bundles, where ours need more: errors that name the cause, and a rate for fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.inference.reading import check_image
from mobileutr_monai.monai_label.labels import LabelCheck, explain

__all__ = ["InferTask", "TrainTask"]

logger = logging.getLogger(__name__)

UNPROCESSABLE = 422

# Peak learning rate of fine-tuning: a quarter of what the weights were trained with from nothing.
LEARNING_RATE = 0.0005
BATCH_SIZE = 4
MAX_EPOCHS = 20
VAL_SPLIT = 0.2


class InferTask(BundleInferTask):
    """Inference with a bundle; loads weights strictly."""

    def __init__(self, bundle: str, conf: Mapping[str, str]) -> None:
        super().__init__(bundle, conf, load_strict=True)

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Any]) -> dict[str, Any]:
        """Reads the image.

        Raises:
            HTTPException: 422 and what is wrong with it, in one line.
        """
        source = str(data["image"])
        try:
            read: dict[str, Any] = super().run_pre_transforms(data, transforms)
            check_image(read["image"], self.network.in_channels, self.dimension)
        except Exception as error:  # whatever a decoder throws costs this call only
            detail = explain(Path(source), error)
            logger.warning("an image cannot be used: %s", detail.split(":")[0])
            raise HTTPException(UNPROCESSABLE, detail) from error
        return read


class TrainTask(BundleTrainTask):
    """Fine-tuning of a bundle with the labels of ``labels/final``; those that cannot be used are left out.

    A request may have ``learning_rate`` and ``batch_size`` beside MONAI Label's ``max_epochs``, ``val_split`` (from 0
    to 1: share of the labelled images that is held out) and ``pretrained``. It computes in bfloat16, as the bundles do,
    but in float32 on a CPU that only emulates that.
    """

    def __init__(self, bundle: str, conf: Mapping[str, str], check: LabelCheck) -> None:
        super().__init__(bundle, conf, load_strict=True)
        self.check = check
        self._request: Mapping[str, Any] = {}

    def config(self) -> dict[str, Any]:
        """What clients show for their users to change."""
        options: dict[str, Any] = super().config()
        defaults = {"max_epochs": MAX_EPOCHS, "val_split": VAL_SPLIT}
        return {**options, **defaults, "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "multi_gpu": False}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Trains; the best epoch's weights are those of the next inference.

        Raises:
            ValueError: there are too few labelled images, or the request has a value that cannot be used.
        """
        self._request = {"max_epochs": MAX_EPOCHS, "val_split": VAL_SPLIT, **request}
        val_split = float(self._request["val_split"])
        if not 0 < val_split < 1:
            raise ValueError(
                f"val_split is {val_split}; hold out a share between 0 and 1, the best epoch is chosen by it"
            )
        result: dict[str, Any] = super().__call__(self._request, datastore)
        return result

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Any) -> list[dict[str, Any]]:
        """Returns images and labels that can be learnt from.

        Raises:
            ValueError: there are less than two.
        """
        usable = []
        for case in super()._fetch_datalist(request, datastore):
            if problem := self.check.find_problem(Path(case["image"]), Path(case["label"])):
                logger.warning("%s is left out: %s", Path(case["label"]).name, problem)
            else:
                usable.append(case)
        if len(usable) < 2:
            raise ValueError(
                f"{pluralize(len(usable), 'labelled image')} that can be used; "
                "submit 2 at least, one to learn from and one to choose by"
            )
        return usable

    def _partition_datalist(
        self, datalist: list[dict[str, Any]], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Holds out evenly spaced images, one at least; the same ones again when images are added behind them."""
        datalist = sorted(datalist, key=lambda case: str(case["image"]))
        count = min(len(datalist) - 1, max(1, round(len(datalist) * float(request["val_split"]))))
        held_out = {int((index + 0.5) * len(datalist) / count) for index in range(count)}
        training = [case for index, case in enumerate(datalist) if index not in held_out]
        logger.info("%s to learn from, %d held out", pluralize(len(training), "image"), len(held_out))
        return training, [datalist[index] for index in sorted(held_out)]

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[dict[str, Any]]) -> None:
        if pretrained:  # MONAI Label fails without
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        rate = float(self._request.get("learning_rate", LEARNING_RATE))
        batch_size = int(self._request.get("batch_size", BATCH_SIZE))
        if rate <= 0 or batch_size < 1:
            raise ValueError(f"learning_rate {rate} and batch_size {batch_size} must be above 0")
        for key, value in overrides.items():  # MONAI's parser leaves a Path alone, and makes "::" of "#" in a text
            if key.endswith(("dataset#data", "dataset::data")):
                overrides[key] = [
                    {name: Path(path) if isinstance(path, str) else path for name, path in case.items()}
                    for case in value
                ]
        overrides |= {"learning_rate": rate, "batch_size": batch_size}
        return overrides
