"""The networks of a run: their weights, and the engine that computes them."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.model_settings import compare_settings
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.engines.choice import AUTO, choose_fastest, why_not_allowed
from mobileutr_monai.inference.engines.table import ENGINES, start_engine
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.networks.mobileutr import MobileUtr
from mobileutr_monai.networks.weights import load_weights

__all__ = ["load_networks", "start_engines"]

logger = logging.getLogger(__name__)


def load_networks(
    network: MobileUtr, weights: Sequence[Path], model_settings: Mapping[str, Any], bundle_name: str
) -> list[MobileUtr]:
    """Loads the first weights into a network, which is switched to evaluation, and the others into copies of it.

    Args:
        model_settings: config id -> value that weights are trained with; other weights are refused.
        bundle_name: weights of another bundle are used with a warning.

    Returns:
        the copies.

    Raises:
        UsageError: weights do not exist, cannot be read or do not fit.
    """
    try:
        for path in weights:
            compare_settings(path, model_settings)
        load_weights(network, weights[0])
        members = [copy.deepcopy(network) for _ in weights[1:]]
        for member, path in zip(members, weights[1:], strict=True):
            load_weights(member, path)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    network.eval()
    other = find_other_bundle(weights[0], bundle_name)
    if other is not None:
        logger.warning(
            "the weights %s are those of another bundle, %r: masks of this one, %r, may mean nothing",
            *(weights[0], other, bundle_name),
        )
    return members


def start_engines(
    engine: str,
    segmenter: Segmenter,
    members: Sequence[MobileUtr],
    weights: Sequence[Path],
    parity: Mapping[str, Any],
    settings: Mapping[str, Any],
    batch_size: int,
) -> str:
    """Has a segmenter and the members of its ensemble use an engine, after the weights are loaded.

    Args:
        engine: a name in ``ENGINES``, or ``auto``.
        parity: which engines give the masks of ``torch`` with these weights; others are refused.
        settings: of the run, with ``image_size`` or ``roi_size``.

    Returns:
        the name of the engine, which ``auto`` has chosen.

    Raises:
        UsageError: the engine is refused for these weights, not installed or not for the device.
    """
    hashes = [hash_file(path) for path in weights]

    def find_reason(name: str) -> str | None:
        reasons = (why_not_allowed(name, parity, each, settings) for each in hashes)
        return next((reason for reason in reasons if reason is not None), None)

    batch_size = int(getattr(segmenter.inferer, "sw_batch_size", batch_size))
    size = settings.get("roi_size", settings.get("image_size"))
    sides = None if size is None else [int(side) for side in size]
    if engine == AUTO:
        if sides is None:
            raise UsageError("engine auto needs the size of images, image_size or roi_size in settings; name one")
        allowed = [name for name in ENGINES if find_reason(name) is None]
        if others := [name for name in ENGINES if name not in allowed]:
            logger.warning(
                "auto leaves out %s: not accepted for these weights and settings; scripts/compare_engines.py of "
                "this project's repository compares them",
                ", ".join(others),
            )
        shape = (batch_size, segmenter.network.in_channels, *sides)
        engine = choose_fastest(segmenter.network, segmenter.device, allowed, shape, hashes[0])
    refusal = find_reason(engine)
    if refusal is not None:
        raise UsageError(refusal)
    try:
        segmenter.predictor, *segmenter.further_predictors = [
            start_engine(engine, network, segmenter.device, batch_size, sides)
            for network in (segmenter.network, *members)
        ]
    except ValueError as error:
        raise UsageError(str(error)) from error
    return engine


def find_other_bundle(weights: Path, name: str) -> str | None:
    """Returns the name of the bundle in whose ``models`` folder weights lie, None if that is ``name`` or no bundle."""
    try:
        metadata = json.loads((weights.resolve().parents[1] / "configs" / "metadata.json").read_text(encoding="utf-8"))
        found = str(metadata["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if found != name else None
