"""The settings that weights were trained with, in ``NAME.json`` next to ``NAME.pt``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobileutr_monai.core.atomic import hash_file, write_text

__all__ = ["compare_settings", "read_settings", "settings_path", "write_settings"]


def settings_path(weights: str | Path) -> Path:
    """Returns where the settings of a file of weights are."""
    return Path(weights).with_suffix(".json")


def write_settings(weights: Path, settings: Mapping[str, Any], **facts: Any) -> None:
    """Writes config ids and their values next to the weights, with the hash of the weights.

    Args:
        facts: what else is to be known of the weights, such as their score.
    """
    content = {"weights_sha256": hash_file(weights), "settings": dict(settings), **facts}
    write_text(settings_path(weights), json.dumps(content, indent=1, default=str) + "\n")


def read_settings(weights: str | Path) -> dict[str, Any]:
    """Returns config id -> value that weights were trained with; nothing for weights without such a file.

    Raises:
        ValueError: the file next to the weights cannot be read, or belongs to other weights.
    """
    path = settings_path(weights)
    if not path.is_file() or not Path(weights).is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings, digest = dict(content["settings"]), content["weights_sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} does not hold the settings of {Path(weights).name} ({type(error).__name__}); copy it again from "
            "the training's folder"
        ) from None
    if digest != hash_file(Path(weights)):
        raise ValueError(
            f"{path} belongs to other weights than {Path(weights).name}; copy both files from the training's folder"
        )
    return settings


def compare_settings(weights: str | Path, settings: Mapping[str, Any]) -> None:
    """Checks that a config has the settings that weights were trained with.

    Args:
        settings: config id -> value. Ids that the weights' file lacks are not compared.

    Raises:
        ValueError: a value differs.
    """
    current = json.loads(json.dumps(dict(settings), default=str))
    trained = read_settings(weights)
    different = {name: value for name, value in trained.items() if name in current and current[name] != value}
    if different:
        name, value = next(iter(different.items()))
        options = " ".join(f"--{name} {json.dumps(value, separators=(',', ':'))}" for name, value in different.items())
        raise ValueError(
            f"{weights} was trained with {name} {value}, the config has {current[name]}; set {options}, or "
            "check_settings to false to use the config's"
        )
