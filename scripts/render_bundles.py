"""Renders the bundles' JSON configs from the YAML sources in ``bundles/_shared`` and each ``bundle.yaml``.

Layers, later ones win, by MONAI's own merge (``--config_file "['a','b']"``): workflow, family, bundle. In family and
bundle files the sections ``common``, ``train``, ``inference`` say which configs they go to, those named like an overlay
go to it; a nested id such as ``train#trainer#max_epochs`` replaces one value. A bundle of one's own, made by
``mobileutr new-bundle``, is rendered by naming its folder. The ids ``calibration`` and
``engine_parity`` come from ``results/calibration.json`` and ``results/engines.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
WORKFLOWS = {"train": ("common", "train"), "inference": ("common", "inference")}
RESULTS = (("calibration", "calibration"), ("engines", "engine_parity"))
"""Files in ``results`` that scripts write, and their ids."""
OVERLAYS = ("evaluate", "paper_recipe", "gpu_train", "multi_gpu_train", "multi_gpu_evaluate")


def render_config(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Merges layers into one flat config."""
    parser = ConfigParser(config={})
    for layer in layers:
        for key, value in layer.items():
            merge_kv(parser, key, value)
    config: dict[str, Any] = parser.get()
    _reject_merge_keys(config, "")
    return config


def render_bundle(bundle: Path, shared: Path = BUNDLES / "_shared") -> dict[Path, str]:
    """Returns the text of every rendered config of a bundle, which may lie anywhere."""
    own = _read(bundle / "bundle.yaml")
    family = _read(shared / "families" / f"{own['family']}.yaml")
    rendered = {}
    for name, sections in WORKFLOWS.items():
        layers = [_read(shared / "workflows" / f"{section}.yaml") for section in sections]
        layers += [source.get(section, {}) for source in (family, own) for section in sections]
        if name == "inference":
            layers += [
                _read_result(bundle, "calibration", "calibration"),
                _read_result(bundle, "engines", "engine_parity"),
            ]
        rendered[bundle / "configs" / f"{name}.json"] = render_config(layers)
    for name in OVERLAYS:  # merged by MONAI when they are used, so their nested ids and top-level "+" stay as they are
        workflow = shared / "workflows" / f"{name}.yaml"
        overlay = (_read(workflow) if workflow.is_file() else {}) | family.get(name, {}) | own.get(name, {})
        if overlay:
            rendered[bundle / "configs" / f"{name}.json"] = overlay
    texts = {path: json.dumps(config, indent=4) + "\n" for path, config in rendered.items()}
    return texts | {bundle / "configs" / "logging.conf": (shared / "logging.conf").read_text(encoding="utf-8")}


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return content


def _read_result(bundle: Path, name: str, key: str) -> dict[str, Any]:
    """Returns an id that a script has measured, nothing where it was not run."""
    path = bundle / "results" / f"{name}.json"
    return {key: json.loads(path.read_text(encoding="utf-8"))[key]} if path.is_file() else {}


def _reject_merge_keys(config: Any, where: str) -> None:
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        if str(key).startswith("+"):
            raise ValueError(f"{where}{key}: MONAI merges '+' at the top level only; give the value an id of its own")
        _reject_merge_keys(value, f"{where}{key}#")


def find_bundles() -> list[Path]:
    """Returns the folders that have a ``bundle.yaml``, sorted."""
    return sorted(path.parent for path in BUNDLES.glob("*/bundle.yaml"))


def main() -> int:
    """Writes what has changed; with ``--check``, returns 1 if anything would."""
    parser = argparse.ArgumentParser(description="Render the bundles' configs from their sources.")
    parser.add_argument(
        "bundles", nargs="*", type=Path, metavar="BUNDLE", help="folders with a bundle.yaml (default: all of bundles/)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a committed config is stale")
    arguments = parser.parse_args()
    for bundle in arguments.bundles:
        if not (bundle / "bundle.yaml").is_file():
            parser.error(f"{bundle} has no bundle.yaml; mobileutr new-bundle writes one")
    stale = []
    for bundle in arguments.bundles or find_bundles():
        for path, text in render_bundle(bundle).items():
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            stale.append(path)
            if not arguments.check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if arguments.check else 'wrote'}: {path}")
    return int(bool(stale) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
