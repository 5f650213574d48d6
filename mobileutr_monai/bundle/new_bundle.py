"""A bundle of the user's own, made from a shipped one."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from monai.bundle import ConfigParser
from torch import nn

from mobileutr_monai.core.folders import require_configs
from mobileutr_monai.core.model_settings import read_settings
from mobileutr_monai.networks.weights import load_weights, save_weights

__all__ = ["NewBundle", "make_bundle"]

VERSION = "0.1.0"
WORKFLOWS = ("train", "inference")
SOURCE = "bundle.yaml"
HEAD_SEED = 0
MAX_LABELS = 254
_OF_WEIGHTS: dict[str, Any] = {"calibration": {}, "engine_parity": {}, "min_peak": 0.0, "largest_piece": False}
"""Ids that were chosen for the parent's labels and weights -> what a new bundle has instead."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _-]*[A-Za-z0-9])?")
_INTENDED_USE = (
    "Research only. Not a medical device, not cleared or approved by any authority, and not for diagnosis or "
    "treatment. Not evaluated yet."
)
_CODE_LICENSE = """The code of this bundle is licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0).
"""
_SOURCE_HEAD = """# Made by mobileutr new-bundle from "{parent}" {version}: its family, and what differs from it.
# In a clone of the project, `python scripts/render_bundles.py FOLDER` writes the configs of this folder from it.
"""
_CARD = """# {title}

MobileUtr that outlines {labels}.

Made by `mobileutr new-bundle` from the bundle "{parent}" {parent_version}; not trained or evaluated on own data yet.

**Research only. Not a medical device; not cleared or approved by any authority; not for diagnosis or treatment.**

## Weights

{weights}

## Next

1. Train, in this folder; `DATA` is a folder with a `datalist.json` by `mobileutr split`. The best epoch becomes
   `models/model.pt` if there were no weights or if its score on the same cases is not lower.

   ```bash
   mobileutr train . DATA{pretrained}
   ```

   MONAI's own command leaves the weights in `runs/train/model.pt` unless `--install better` is given:

   ```bash
   python -m monai.bundle run --config_file configs/train.json --dataset_dir DATA{monai_pretrained}
   ```

2. Evaluate, once:

   ```bash
   mobileutr evaluate . DATA --section testing --output OUT
   ```

3. Use: `mobileutr predict . IMAGES --output OUT`
4. Write here and in `configs/metadata.json` what it was trained on, its scores, limits and known failures, and whose it
   is (`authors`, `copyright`, `data_source`, `intended_use`, `modalities`, `image_classes`).

## Output

A label map: {classes}. {channels}
"""


class NewBundle(NamedTuple):
    """A bundle that was made: its folder, and in a sentence what its weights are."""

    folder: Path
    weights: str


def make_bundle(
    name: str,
    parent: Path,
    labels: Sequence[str],
    output: Path,
    *,
    pretrained: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> NewBundle:
    """Makes ``output / name`` from another bundle; it is verified before it gets its name, or is not there at all.

    Copied are configs and, with the weights, their licences. Ids and metadata follow from the labels: one label has one
    output channel (sigmoid), n labels have n + 1 (softmax). Configs are code: only start from bundles that you trust.

    Args:
        name: of the folder; lower case, digits and single underscores.
        labels: names of the labels 1, 2 ..., without background.
        output: folder that the bundle is made in.
        pretrained: start from the parent's weights; if the number of output channels differs, the output layer is
            re-initialised with a fixed seed.
        settings: config id -> value, of ``variant``, ``in_channels``, ``image_size``, ``roi_size`` and ``spacing``.

    Raises:
        FileExistsError: there is something of this name.
        FileNotFoundError: the parent is no bundle, or has no weights.
        ValueError: the name or a label cannot be used, or the result does not work.
    """
    _check_names(name, labels)
    require_configs(parent, ("metadata", *WORKFLOWS))
    if pretrained and not (parent / "models" / "model.pt").is_file():
        raise FileNotFoundError(f"{str(parent)!r} has no models/model.pt to start from; give --weights none")
    target = output / name
    if target.exists():
        raise FileExistsError(f"{str(target)!r} exists already; choose another name or --output")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=output) as temporary:
        bundle = Path(temporary) / name
        metadata = _copy_bundle(bundle, parent, labels, pretrained)
        _set(bundle, parent, settings or {})
        weights = "none: random until it is trained"
        if pretrained:
            weights = _write_weights(bundle, parent, labels)
        _write_source(bundle, parent, metadata, labels, settings or {})
        described = _describe(metadata, name, labels, pretrained)
        described = described | {"network_data_format": _describe_data(described, settings or {})}
        _write_json(bundle / "configs" / "metadata.json", described)
        _write_card(bundle, metadata, labels, weights, pretrained)
        _verify(bundle, pretrained)
        bundle.rename(target)
    return NewBundle(target, weights)


def _check_names(name: str, labels: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r} must be lower case letters, digits and single underscores, as in my_lesions")
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"there must be 1 to {MAX_LABELS} labels, got {len(labels)}")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"label {label!r} must be letters, digits, '_', '-' and spaces; separate labels by commas")
    lowered = [label.lower() for label in labels]
    if "background" in lowered or len(set(lowered)) < len(lowered):
        raise ValueError(f"labels {list(labels)} must differ, and background is not one: it is added")


def _output_channels(labels: Sequence[str]) -> int:
    return 1 if len(labels) == 1 else len(labels) + 1


def _copy_bundle(bundle: Path, parent: Path, labels: Sequence[str], pretrained: bool) -> dict[str, Any]:
    """Copies what a new bundle keeps, sets ``out_channels``, and returns the parent's metadata."""
    for folder in ("configs", "docs", "models"):
        (bundle / folder).mkdir(parents=True)
    files = [path.relative_to(parent) for path in sorted((parent / "configs").iterdir()) if path.is_file()]
    if pretrained:
        files += [Path("LICENSE"), Path("docs/data_license.txt")]
    else:
        (bundle / "LICENSE").write_text(_CODE_LICENSE, encoding="utf-8")
    for file in files:
        if (parent / file).is_file():
            shutil.copyfile(parent / file, bundle / file)
    for workflow in WORKFLOWS:
        path = bundle / "configs" / f"{workflow}.json"
        config = _read_json(path)
        if not isinstance(config.get("out_channels"), int):
            raise ValueError(
                f"{str(parent)!r} has no id out_channels in configs/{path.name}; start from another bundle"
            )
        config["out_channels"] = _output_channels(labels)
        config |= {key: value for key, value in _OF_WEIGHTS.items() if key in config}
        _write_json(path, config)
    return _read_json(parent / "configs" / "metadata.json")


def _write_source(
    bundle: Path, parent: Path, metadata: dict[str, Any], labels: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Writes the ``bundle.yaml`` that the configs can be rendered from, if the parent has one."""
    if not (parent / SOURCE).is_file():
        return
    source = yaml.safe_load((parent / SOURCE).read_text(encoding="utf-8"))
    common = {key: value for key, value in (source.get("common") or {}).items() if key not in _OF_WEIGHTS}
    source["common"] = common | _inherit(parent, settings)
    source["common"]["out_channels"] = _output_channels(labels)
    text = _SOURCE_HEAD.format(parent=metadata["name"], version=metadata["version"])
    (bundle / SOURCE).write_text(text + yaml.safe_dump(source, sort_keys=False), encoding="utf-8")


def _inherit(parent: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a new bundle: those of the parent's weights, and over them those that are given."""
    values = {**read_settings(parent / "models" / "model.pt"), **settings}
    values.pop("out_channels", None)  # follows from the labels
    return values


def _set(bundle: Path, parent: Path, settings: Mapping[str, Any]) -> None:
    """Writes settings into the new bundle's configs, over those that the parent's weights were trained with.

    Raises:
        ValueError: the configs have no such id, or its value has another length.
    """
    values = _inherit(parent, settings)
    for workflow in WORKFLOWS:
        path = bundle / "configs" / f"{workflow}.json"
        config = _read_json(path)
        for name, value in values.items():
            if name not in config:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{str(parent)!r} has no id {name} in configs/{path.name}; leave {option} out")
            before = config[name]
            if isinstance(before, list) and len(value) != len(before):
                raise ValueError(f"{name} must be {len(before)} numbers, as in {before}, got {list(value)}")
            config[name] = value
        if values:
            _write_json(path, config)


def _describe_data(metadata: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata's ``network_data_format`` with the channels and sides of the settings."""
    image = dict(metadata["network_data_format"]["inputs"]["image"])
    channels = settings.get("in_channels", image["num_channels"])
    if channels != image["num_channels"]:
        names = {1: ["image"], 3: ["red", "green", "blue"]}.get(channels, [f"image {i}" for i in range(channels)])
        image |= {"num_channels": channels, "channel_def": {str(i): name for i, name in enumerate(names)}}
    size = settings.get("image_size", settings.get("roi_size"))
    if size is not None:
        image["spatial_shape"] = list(size)
    return {**metadata["network_data_format"], "inputs": {"image": image}}


def _write_weights(bundle: Path, parent: Path, labels: Sequence[str]) -> str:
    """Writes the parent's weights, with a new head where its output channels differ; returns what they are."""
    source, target, origin = parent / "models" / "model.pt", bundle / "models" / "model.pt", parent.resolve().name
    before, made = _network(parent), _network(bundle)
    load_weights(before, source)
    if _body_shapes(before) != _body_shapes(made):
        raise ValueError(
            f"the weights of {origin} do not fit the new bundle's variant or channels; give --weights none"
        )
    channels, parent_channels = _output_channels(labels), _count_outputs(before)
    if channels == parent_channels:
        shutil.copyfile(source, target)
        return f"those of {origin}, the head included, as the number of output channels is the same ({channels})"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        network = _network(bundle)
    body = {key: value for key, value in before.state_dict().items() if not key.startswith("head.")}
    network.load_state_dict(network.state_dict() | body)
    save_weights(network, target)
    return (
        f"those of {origin} but for the head, which is re-initialised (seed {HEAD_SEED}): {channels} output channels "
        f"instead of {parent_channels}; train before use"
    )


def _describe(parent: dict[str, Any], name: str, labels: Sequence[str], pretrained: bool) -> dict[str, Any]:
    """Returns the metadata of the new bundle; nothing that was measured on the parent stays."""
    metadata = {key: value for key, value in parent.items() if key != "testing_list"}
    classes = dict(enumerate(("background", *labels)))
    listed = ", ".join(f"{index}: {label}" for index, label in classes.items())
    origin = f"{parent['name']} {parent['version']}"
    pred = {key: v for key, v in parent["network_data_format"]["outputs"]["pred"].items() if key != "segment_codes"}
    pred |= {"num_channels": _output_channels(labels), "channel_def": {str(i): label for i, label in classes.items()}}
    metadata |= {
        "version": VERSION,
        "changelog": {VERSION: f"made from {origin}, {'with its weights' if pretrained else 'without weights'}"},
        "name": _title(name),
        "task": f"Segmentation of {', '.join(labels)}",
        "description": f"MobileUtr that outlines {', '.join(labels)}; made from {origin}. Research only.",
        "label_classes": listed,
        "pred_classes": listed,
        "intended_use": _INTENDED_USE,
        "network_data_format": parent["network_data_format"] | {"outputs": {"pred": pred}},
    }
    if pretrained:
        metadata["data_source"] = f"weights to start from: {parent['data_source']}"
    else:
        metadata |= {"data_source": "none yet", "weights_use": "no weights yet"}
        metadata["copyright"] = "Code: Apache-2.0"
    return metadata


def _write_card(bundle: Path, parent: dict[str, Any], labels: Sequence[str], weights: str, pretrained: bool) -> None:
    paragraphs = [f"`models/model.pt`: {weights}."]
    if pretrained:
        use = parent.get("weights_use", "see LICENSE")
        paragraphs.append(
            f"They were trained on {parent['data_source']}. They may be used for: {use}; what is trained from them "
            "inherits that. See `LICENSE` and `docs/data_license.txt`."
        )
    several = "Background and labels exclude each other (softmax)."
    text = _CARD.format(
        title=_title(bundle.name),
        labels=", ".join(labels),
        parent=parent["name"],
        parent_version=parent["version"],
        weights="\n\n".join(textwrap.fill(paragraph, 120) for paragraph in paragraphs),
        pretrained=" --pretrained" if pretrained else "",
        monai_pretrained=" --pretrained models/model.pt" if pretrained else "",
        classes=", ".join(f"{index} {label}" for index, label in enumerate(("background", *labels))),
        channels="A pixel is labelled if its probability is at least 0.5 (sigmoid)." if len(labels) == 1 else several,
    )
    (bundle / "docs" / "README.md").write_text(text, encoding="utf-8")


def _verify(bundle: Path, pretrained: bool) -> None:
    """Raises a ``ValueError`` unless configs, metadata and weights fit each other."""
    pred = _read_json(bundle / "configs" / "metadata.json")["network_data_format"]["outputs"]["pred"]
    for workflow in WORKFLOWS:
        network = _network(bundle, workflow)
        if pretrained:
            load_weights(network, bundle / "models" / "model.pt")
        found = _count_outputs(network)
        if found != pred["num_channels"]:
            raise ValueError(
                f"configs/{workflow}.json builds a network of {found} output channels, the labels need "
                f"{pred['num_channels']}: its network_def must take @out_channels"
            )


def _body_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Returns the shapes of all weights but those of the head."""
    return {name: value.shape for name, value in network.state_dict().items() if not name.startswith("head.")}


def _count_outputs(network: nn.Module) -> int:
    return len(network.get_submodule("head").weight)  # type: ignore[arg-type]  # of a convolution


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _network(bundle: Path, workflow: str = "inference") -> nn.Module:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{workflow}.json"))
    parser["bundle_root"] = bundle
    settings = read_settings(bundle / "models" / "model.pt")
    parser.update({name: value for name, value in settings.items() if name in parser})
    parser.parse()
    network: nn.Module = parser.get_parsed_content("network_def")
    return network


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
