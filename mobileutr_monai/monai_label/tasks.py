"""MONAI Label's tasks for bundles: no mask without weights, errors that name the cause, a rate for fine-tuning."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import device_list
from torch import nn

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.inference.reading import check_image
from mobileutr_monai.monai_label.labels import LabelCheck, explain
from mobileutr_monai.monai_label.web.parameters import InferParameters, TrainParameters, parse_parameters
from mobileutr_monai.networks import load_weights

__all__ = ["InferTask", "TrainTask"]

logger = logging.getLogger(__name__)

UNPROCESSABLE, UNAVAILABLE = 422, 503


def _check_weights(weights: Path) -> None:
    """Says whether a bundle can be used.

    Raises:
        HTTPException: 503, it has no weights.
    """
    if not weights.is_file():
        remedy = "start the server again with --restore for the bundle's own, or copy one of models/previous/ there"
        raise HTTPException(UNAVAILABLE, f"{weights.parents[1].name} has no models/{weights.name}: {remedy}")


class InferTask(BundleInferTask):
    """Inference with a bundle; loads weights strictly, and never computes without them."""

    def __init__(self, bundle: str, conf: Mapping[str, str]) -> None:
        super().__init__(bundle, conf, load_strict=True)
        self.weights = Path(bundle) / "models" / "model.pt"
        self._config.pop("model_filename", None)  # a request chooses no weights

    def check_weights(self) -> None:
        """Raises 503 if there are no weights."""
        _check_weights(self.weights)

    def read_parameters(self, text: str) -> dict[str, Any]:
        """Reads the parameters of a call.

        Those that the bundle displays may have values of the kind of their defaults.

        Raises:
            HTTPException: 422 and what is wrong with them, in one line.
            JSONDecodeError: the text is not JSON.
        """
        values = json.loads(text) if text else {}
        displayed = {}
        for name, default in getattr(self, "displayable_configs", {}).items():
            if isinstance(values, dict) and name in values and name not in InferParameters.model_fields:
                displayed[name] = _check_kind(name, values.pop(name), default)
        chosen = parse_parameters(InferParameters, values)
        if chosen.result_extension == ".png" and self.dimension != 2:
            raise HTTPException(UNPROCESSABLE, "result_extension: a volume's mask is no PNG; take .nii.gz or .nrrd")
        return {**displayed, **chosen.chosen()}

    def replace_weights(self, sent: Path) -> None:
        """Puts other weights in the place of those that are there, atomically.

        Raises:
            HTTPException: 422, they do not fit the network.
        """
        try:
            load_weights(copy.deepcopy(self.network), sent)
        except ValueError as error:
            raise HTTPException(UNPROCESSABLE, str(error).replace(f"{sent.parent}/", "")) from None
        part = self.weights.with_name(".model.pt.sent")
        shutil.copyfile(sent, part)
        part.replace(self.weights)

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

    def _get_network(self, device: str, data: Any) -> nn.Module:
        """Returns the network with the weights that are there now. MONAI Label's has random ones where there are none.

        Raises:
            HTTPException: 503, there are none.
        """
        self.check_weights()
        status = self.weights.stat()
        version = (status.st_mtime_ns, status.st_ino)
        known = self._networks.get(device)
        if known is None or known[1] != version:
            network = copy.deepcopy(self.network)
            load_weights(network, self.weights)
            known = (network.to(device).eval(), version)
            self._networks[device] = known
        found: nn.Module = known[0]
        return found


def _check_kind(name: str, value: Any, default: Any) -> Any:
    """Returns a value that is a number or a choice as its default is; text is no way into a configuration."""
    choices = default if isinstance(default, list) else [default]
    is_number = not isinstance(default, bool) and isinstance(default, int | float)
    if is_number and not isinstance(value, bool) and isinstance(value, int | float):
        return value
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if value != default and value not in choices:
        raise HTTPException(UNPROCESSABLE, f"{name}: must be like {default!r}")
    return value


class TrainTask(BundleTrainTask):
    """Fine-tuning of a bundle with the labels of ``labels/final``; those that cannot be used are left out.

    A request has what ``TrainParameters`` has. It computes in bfloat16, as the bundles do, but in float32 on a CPU that
    only emulates that. The new weights are installed if they are not worse on the held-out images than those that were
    there, or with ``force``.
    """

    def __init__(self, bundle: str, conf: Mapping[str, str], check: LabelCheck) -> None:
        super().__init__(bundle, conf, load_strict=True)
        self.check = check
        self.weights = Path(bundle) / "models" / "model.pt"
        self._parameters = TrainParameters()

    def check_weights(self) -> None:
        """Raises 503 if there are no weights."""
        _check_weights(self.weights)

    def config(self) -> dict[str, Any]:
        """What clients show for their users to change."""
        defaults = TrainParameters().model_dump(exclude={"client_id"})
        return {**defaults, "device": device_list()}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Trains; the best epoch's weights are those of the next inference.

        Raises:
            ValueError: there are too few labelled images, or the request has a value that cannot be used.
            HTTPException: 503, there are no weights to train from.
        """
        known = TrainParameters.model_fields
        self._parameters = TrainParameters(**{name: value for name, value in request.items() if name in known})
        if self._parameters.pretrained:
            self.check_weights()
        checked = {**self._parameters.model_dump(exclude={"client_id"}), "model": request["model"]}
        result: dict[str, Any] = super().__call__({**checked, "multi_gpu": False, "tracking": ""}, datastore)
        return result

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Any) -> list[dict[str, Any]]:
        """Returns images and labels that can be learnt from.

        Raises:
            ValueError: there are less than two.
        """
        usable = []
        for case in datastore.labels_of(str(request["model"])):
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
        chosen = self._parameters
        for key, value in overrides.items():  # MONAI's parser leaves a Path alone, and makes "::" of "#" in a text
            if key.endswith(("dataset#data", "dataset::data")):
                overrides[key] = [
                    {name: Path(path) if isinstance(path, str) else path for name, path in case.items()}
                    for case in value
                ]
        overrides |= {"learning_rate": chosen.learning_rate, "batch_size": chosen.batch_size}
        for handler in overrides["train#handlers"]:
            if handler["_target_"].endswith(".TrainingCheckpoint"):
                handler |= {"score_installed": True, "only_better": not chosen.force}
        overrides["ckpt_dir"] = Path(self.bundle_path) / "models"  # where inference looks for them
        # Labels were checked when they came in. Near-duplicates, such as two exports of one still, may be on both
        # sides: nobody has split the studies.
        overrides["check_data"] = False
        return overrides
