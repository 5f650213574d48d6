"""Opening a bundle: its folder, weights, engine and device."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mobileutr_monai.api.inputs import TemporaryFolder
from mobileutr_monai.api.segmentation import BundleSegmenter
from mobileutr_monai.bundle.find import find_bundle
from mobileutr_monai.bundle.running import find_cause, find_weights, open_workflow
from mobileutr_monai.inference.batch.runner import BatchRunner
from mobileutr_monai.inference.engines.choice import DEFAULT_ENGINE
from mobileutr_monai.readers.archives import unpack_archive

__all__ = ["load_bundle"]


def load_bundle(
    bundle: str | Path,
    *,
    device: str | torch.device | None = None,
    engine: str = DEFAULT_ENGINE,
    weights: str | Path | Sequence[str | Path] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> BundleSegmenter:
    """Opens a bundle and loads its weights.

    The configs of a bundle are code: open only bundles that you trust.

    Args:
        bundle: a name such as ``breast_ultrasound_segmentation``, a folder, or a zip of ``scripts/pack_bundle.py``.
        device: ``cpu``, ``cuda`` or ``cuda:1``; the GPU if there is one by default.
        engine: what computes, as ``mobileutr predict --engine``.
        weights: a file, or several whose probabilities are averaged; the bundle's ``models/model.pt`` by default.
        settings: id of the bundle's ``configs/inference.json`` -> value, as ``mobileutr predict --set``.

    Raises:
        FileNotFoundError: there is no such bundle, or it has no weights.
        ValueError: an id is unknown, the weights do not fit, or the engine or device cannot be used.

    Example::

        segment = load_bundle("breast_ultrasound_segmentation")
        result = segment("image.png")
    """
    folder, unpacked = find_bundle(bundle), None
    if folder.is_file():
        folder, unpacked = _unpack_bundle(folder)
    values: dict[str, Any] = dict(settings or {})
    if weights is not None:
        several = [weights] if isinstance(weights, (str, Path)) else weights
        files = [Path(path).absolute() for path in several]
        values["weights"] = files[0] if len(files) == 1 else files
    if device is not None:
        values["device"] = _check_device(device)
    values["engine"] = engine
    try:
        with _without_warnings_of_monai():
            workflow = open_workflow(folder, ("inference",), values, settings_of=find_weights(folder, values))
            workflow.initialize()
            runner: BatchRunner = workflow.parser.get_parsed_content("runner")
    except RuntimeError as error:  # MONAI's, around what an object of the config says of its arguments
        cause = find_cause(error)
        if isinstance(cause, (ValueError, FileNotFoundError)):
            raise type(cause)(" ".join(str(cause).split())) from error
        raise
    return BundleSegmenter(runner, unpacked)


@contextmanager
def _without_warnings_of_monai() -> Iterator[None]:
    """Hides what MONAI says of optional packages that this project does not use."""
    logger = logging.getLogger("monai")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is unknown; use cpu, cuda or cuda:1") from error
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device {str(device)!r} is not there; use cpu")
    return found


def _unpack_bundle(archive: Path) -> tuple[Path, TemporaryFolder]:
    """Unpacks a zip of ``scripts/pack_bundle.py``; the package in it stays out, since this one is running."""
    folder = TemporaryFolder()
    paths, problems = unpack_archive(archive, folder.path / "unpacked")
    if problems:
        raise ValueError(f"{archive}: {problems[0].reason}: {problems[0].detail}")
    for path in paths:
        if path.parts[-2:] == ("configs", "inference.json"):
            root = path.parents[1]
            shutil.rmtree(root / "mobileutr_monai", ignore_errors=True)
            return root, folder
    raise FileNotFoundError(f"{str(archive)!r} is no packed bundle: it has no configs/inference.json")
