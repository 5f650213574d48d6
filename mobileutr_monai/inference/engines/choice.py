"""Which engine a run may use: what was measured of its masks, and what is fastest on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.inference.engines.table import cache_dir, start_engine, why_unavailable
from mobileutr_monai.networks import MobileUtr

__all__ = [
    "AUTO",
    "DEFAULT_ENGINE",
    "LARGEST_DICE_CHANGE",
    "choose_fastest",
    "find_versions",
    "why_not_allowed",
]

logger = logging.getLogger(__name__)

AUTO = "auto"
DEFAULT_ENGINE = "torch"

LARGEST_DICE_CHANGE = 0.002
"""Change of the mean Dice on that list from which an engine is refused."""

_PACKAGES = ("mobileutr-monai", "torch", "onnxruntime", "openvino")
_RUNS = 5


def why_not_allowed(
    name: str, verdicts: Mapping[str, Any], weights_sha256: str, settings: Mapping[str, Any]
) -> str | None:
    """Returns why an engine may not be used, None if it may. ``torch`` always may.

    Args:
        verdicts: what ``scripts/compare_engines.py`` measured, the id ``engine_parity`` of a bundle's config.
        weights_sha256: of the run's weights.
        settings: of the run; verdicts with other weights or settings do not count.
    """
    if name == DEFAULT_ENGINE:
        return None
    own = (verdicts.get("weights_sha256"), _plain(verdicts.get("settings"))) == (weights_sha256, _plain(settings))
    known = verdicts["engines"] if own else {}
    if name not in known:
        return (
            f"engine {name} was not compared with {DEFAULT_ENGINE} for these weights and settings; use "
            f"{DEFAULT_ENGINE}, or compare it with scripts/compare_engines.py of this project's repository"
        )
    verdict = known[name]
    if not verdict["accepted"]:
        return (
            f"engine {name} is refused for this bundle: {verdict['percent_differing']} % of the pixels differ from "
            f"{DEFAULT_ENGINE}'s, the mean Dice changes by {verdict['dice_change']} (at most "
            f"{MAX_MISMATCH_PERCENT} % and under {LARGEST_DICE_CHANGE}); use another"
        )
    return None


def choose_fastest(
    network: MobileUtr, device: torch.device, allowed: Sequence[str], shape: tuple[int, ...], weights_sha256: str
) -> str:
    """Returns the fastest of engines on this machine, measured once and then remembered in ``cache_dir``.

    Args:
        allowed: names of engines; what cannot be used here is left out.
        shape: of a batch: (B, C, sides...).
    """
    obstacles = {name: why_unavailable(name, device) for name in allowed}
    candidates = [name for name, obstacle in obstacles.items() if obstacle is None]
    facts = {
        "machine": _describe_machine(device),
        "weights_sha256": weights_sha256,
        "shape": list(shape),
        "threads": torch.get_num_threads(),
        "versions": find_versions(),
        "candidates": candidates,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_dir() / f"engine-{key}.json"
    seconds = _read_seconds(path, candidates)
    if seconds is None:
        others = [f"{name}: {obstacle}" for name, obstacle in obstacles.items() if obstacle is not None]
        left_out = f" ({'; '.join(others)})" if others else ""
        logger.warning("measuring %s on this machine, once%s", ", ".join(candidates), left_out)
        seconds = _measure(network, device, candidates, shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**facts, "seconds": seconds}, indent=1) + "\n")
    chosen = min(seconds, key=lambda name: seconds[name])
    times = ", ".join(
        f"{name} {1000 * seconds[name] / shape[0]:.0f}" for name in sorted(seconds, key=seconds.__getitem__)
    )
    logger.warning("engine %s is the fastest here (ms an image of a batch of %d: %s)", chosen, shape[0], times)
    return chosen


def _measure(
    network: MobileUtr, device: torch.device, candidates: Sequence[str], shape: tuple[int, ...]
) -> dict[str, float]:
    """Returns the median seconds of a batch; the engines take turns."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    predictors = {name: start_engine(name, network, device, shape[0]) for name in candidates}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.inference_mode():
        for turn in range(_RUNS + 1):
            for name, predict in predictors.items():
                started = time.perf_counter()
                predict(images).cpu()
                if turn:  # the first is for warming up
                    seconds[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(values), 6) for name, values in seconds.items()}


def _read_seconds(path: Path, candidates: Sequence[str]) -> dict[str, float] | None:
    try:
        seconds: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError):
        return None
    return seconds if set(seconds) == set(candidates) else None


def _describe_machine(device: torch.device) -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = {line for line in lines if line.startswith(("model name", "flags"))} or {platform.processor()}
    gpu = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    return [*sorted(names), str(os.cpu_count()), *gpu]


def find_versions() -> dict[str, str]:
    """Returns the versions of what engines compute with, empty for what is not installed."""
    versions = dict.fromkeys(_PACKAGES, "")
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _plain(settings: Mapping[str, Any] | None) -> Any:
    """Returns settings as JSON gives them back."""
    return json.loads(json.dumps(dict(settings or {}), default=str))
