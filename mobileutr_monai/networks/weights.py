"""Checkpoints of the authors' code, converted to MobileUtr's state dict.

Keys as published with FengheTan9/Mobile-U-ViT (Apache-2.0) and in U-Bench's copy of it (``adaptive_lgl_bottleneck``).
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.networks.mobileutr import VARIANTS, MobileUtr

__all__ = [
    "NetworkShape",
    "convert_official_state_dict",
    "load_weights",
    "read_official_checkpoint",
    "recognise_network",
    "save_weights",
]

_TOKENS = {"pos_embed": "position", "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_TOKENS |= {"attn.qkv": "attn.qkv", "attn.proj": "attn.proj"}
_REDUCED_TOKENS = _TOKENS | {"attn.LocalProp": "attn.spread", "attn.norm": "attn.norm"}
_LOCAL = {"pos_embed": "position", "norm1": "norm1", "conv1": "proj_in", "attn": "mix", "conv2": "proj_out"}
_LOCAL |= {"norm2": "norm2", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
_DOUBLE_CONV = {"conv.0": "0.conv", "conv.1": "0.norm", "conv.3": "1.conv", "conv.4": "1.norm"}
_UP = {"up.1": "1.conv", "up.2": "1.norm"}
_CONV_NORM = {"0": "conv", "1": "norm"}
_SPATIAL = {"0": "conv", "2": "norm"}
_CHANNEL = {"0": "fc1", "2": "norm1", "3": "fc2", "5": "norm2"}

# Official module prefix (regex) -> our prefix, and the names of the modules below it.
_RULES: tuple[tuple[str, str, dict[str, str]], ...] = (
    (r"patch_embeddings\.stem\.", "stem.", _CONV_NORM),
    *(
        rule
        for stage in range(3)
        for rule in (
            (
                rf"patch_embeddings\.layer{stage + 1}\.block\.(\d+)\.0\.fn\.",
                rf"stage{stage}.blocks.\1.spatial.",
                _SPATIAL,
            ),
            (
                rf"patch_embeddings\.layer{stage + 1}\.block\.(\d+)\.1\.fn\.",
                rf"stage{stage}.blocks.\1.channel.",
                _CHANNEL,
            ),
            (rf"patch_embeddings\.layer{stage + 1}\.up\.", f"stage{stage}.expand.", _CONV_NORM),
        )
    ),
    (r"(?:lklgl|adaptive_lgl)_bottleneck\.(\d+)\.LocalAgg\.", r"lgl.\1.local.", _LOCAL),
    (r"(?:lklgl|adaptive_lgl)_bottleneck\.(\d+)\.SelfAttn\.", r"lgl.\1.glob.", _REDUCED_TOKENS),
    (r"transformer_bottleneck\.(\d+)\.SelfAttn\.", r"transformer.\1.", _TOKENS),
    (r"expend_dims\.", "expand.", _DOUBLE_CONV),
    (r"reduce_dims\.", "reduce.", _DOUBLE_CONV),
    *((rf"Up_conv{i + 2}\.", f"fuse{i}.", _DOUBLE_CONV) for i in range(3)),
    *((rf"Up{i + 1}\.", f"up{i}.", _UP) for i in range(3)),
    (r"(?=head\.)", "", {"head": "head"}),
)
_WRAPPERS = ("state_dict", "model")
# What torch.load lets through for files that are cut off, damaged or of another kind (OSError without a file name too).
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    AssertionError,
    ValueError,
)


class NetworkShape(NamedTuple):
    """What a state dict tells about its network: the first arguments of ``MobileUtr``."""

    spatial_dims: int
    in_channels: int
    out_channels: int
    variant: str

    def __str__(self) -> str:
        return (
            f"spatial_dims {self.spatial_dims}, variant {self.variant}, in_channels {self.in_channels}, "
            f"out_channels {self.out_channels}"
        )


def recognise_network(state: Mapping[str, torch.Tensor]) -> NetworkShape:
    """Returns the network that a state dict, under our keys, is of; the shapes of all its entries are compared.

    The number of attention heads has no entry; it is taken to be the variant's.

    Raises:
        ValueError: entries are missing, unknown or of a shape that no variant has.
    """
    missing = [key for key in ("stem.conv.weight", "head.weight") if key not in state]
    if missing:
        raise ValueError(f"the network cannot be recognised without {', '.join(missing)}; pass a whole state dict")
    stem, head = state["stem.conv.weight"], state["head.weight"]
    if stem.ndim not in (4, 5) or head.ndim != stem.ndim:
        raise ValueError(
            f"stem.conv.weight has shape {tuple(stem.shape)} and head.weight {tuple(head.shape)}; both must be those "
            "of 2D or of 3D convolutions"
        )
    widths = {sizes.channels[0]: name for name, sizes in VARIANTS.items()}
    if stem.shape[0] not in widths:
        raise ValueError(f"stem.conv.weight gives {stem.shape[0]} channels, no variant does: {widths}")
    shape = NetworkShape(stem.ndim - 2, stem.shape[1], head.shape[0], widths[stem.shape[0]])
    with torch.device("meta"):
        expected = MobileUtr(*shape).state_dict()
    problems = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
        "of another shape": [k for k, v in expected.items() if k in state and state[k].shape != v.shape],
    }
    named = [f"entries {kind}: {', '.join(keys)}" for kind, keys in problems.items() if keys]
    if named:
        raise ValueError(f"recognised as {shape}, but {'; '.join(named)}")
    return shape


def convert_official_state_dict(checkpoint: Mapping) -> dict[str, torch.Tensor]:
    """Renames the entries of an official checkpoint, 2D or 3D, base or large, to those of ``MobileUtr``.

    Args:
        checkpoint: the state dict, or a dict that holds it under ``state_dict`` or ``model``; keys may start with
            ``module.``.

    Returns:
        A state dict that ``MobileUtr.load_state_dict`` takes strictly.

    Raises:
        ValueError: an entry is no tensor or has no counterpart, or two entries have the same one. What is missing is
            reported by ``load_state_dict(strict=True)``, which knows the variant.
    """
    state = _unwrap(checkpoint)
    converted: dict[str, torch.Tensor] = {}
    unmapped = []
    for key, value in state.items():
        name = _convert_key(str(key).removeprefix("module."))
        if name is None:
            unmapped.append(str(key))
            continue
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"entry {key!r} is a {type(value).__name__}, not a tensor; pass the model's state dict")
        if name in converted:
            raise ValueError(f"entries of both dialects of the LGL keys map to {name!r}; keep one of them")
        converted[name] = value
    if unmapped or not converted:
        foreign = len(unmapped) >= len(converted)
        if foreign and "stem.conv.weight" in unmapped:
            raise ValueError("not an official state dict but one under MobileUtr's own keys; use it as it is")
        shown = [*unmapped[:5], "..."] if foreign and len(unmapped) > 5 else unmapped
        raise ValueError(
            f"not an official MobileUtr state dict: no counterpart for {len(unmapped)} of {len(state)} entries "
            f"({', '.join(shown)})"
        )
    return converted


def read_official_checkpoint(path: Path) -> tuple[MobileUtr, NetworkShape]:
    """Reads a checkpoint file of the authors' code; returns the network with its weights and its shape.

    Only tensors are unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no official checkpoint; names every entry that is unknown, missing or of a wrong shape.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    checkpoint = _read(path)
    try:
        state = convert_official_state_dict(checkpoint)
        shape = recognise_network(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    network = MobileUtr(*shape)
    network.load_state_dict(state)
    return network, shape


def save_weights(network: nn.Module, path: Path) -> None:
    """Writes the network's state dict atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: torch.save(dict(network.state_dict()), file))


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Loads a state dict file into the network, strictly.

    The file holds a plain state dict, or one under ``model`` or ``state_dict``. Only tensors are unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no state dict, or its entries are not those of the network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; train the bundle or copy a model.pt there")
    checkpoint = _read(path)
    try:
        state = _unwrap(checkpoint)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    problem = _mismatch(network.state_dict(), state)
    if problem:
        raise ValueError(f"{path} does not fit the network: {problem}")
    network.load_state_dict(dict(state))


def _read(path: Path) -> Mapping:
    try:
        checkpoint: Mapping = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} is not a state dict that torch can read without executing it ({type(error).__name__}); "
            "save the model's state dict alone"
        ) from error
    return checkpoint


def _mismatch(expected: Mapping, state: Mapping) -> str | None:
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    if missing or unexpected:
        example = (missing or unexpected)[0]
        hint = f"check variant and spatial_dims{_describe(state)}"
        if any(str(key).removeprefix("module.").startswith("patch_embeddings.") for key in unexpected):
            hint = "it is a checkpoint of the authors' code; convert it with mobileutr convert"
        counts = f"entries missing: {len(missing)}, unknown: {len(unexpected)}"
        return f"{counts}, for example {example!r}; {hint}"
    for key, value in expected.items():
        found = tuple(state[key].shape) if isinstance(state[key], torch.Tensor) else type(state[key]).__name__
        if found != tuple(value.shape):
            return (
                f"{key!r} has shape {found}, the network has {tuple(value.shape)}; "
                f"check variant, in_channels and out_channels{_describe(state)}"
            )
    return None


def _describe(state: Mapping) -> str:
    """Returns of which network weights are, as far as they tell."""
    try:
        return f": the weights are of {recognise_network(state)}"
    except (ValueError, AttributeError, TypeError):
        return ""


def _unwrap(checkpoint: Mapping) -> Mapping:
    while isinstance(checkpoint, Mapping):
        inner = next((checkpoint[k] for k in _WRAPPERS if isinstance(checkpoint.get(k), Mapping)), None)
        if inner is None:
            return checkpoint
        checkpoint = inner
    raise ValueError(f"checkpoint is a {type(checkpoint).__name__}, not a state dict; pass a dict of tensors")


def _convert_key(key: str) -> str | None:
    for pattern, prefix, names in _RULES:
        match = re.match(pattern, key)
        if match is None:
            continue
        module, _, parameter = key[match.end() :].rpartition(".")
        if module in names:
            return f"{match.expand(prefix)}{names[module]}.{parameter}"
    return None
