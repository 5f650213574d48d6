"""Checkpoints of the authors' code, converted to MobileUtr's state dict.

Keys as published with FengheTan9/Mobile-U-ViT (Apache-2.0) and in U-Bench's copy of it (``adaptive_lgl_bottleneck``).
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

__all__ = ["convert_official_state_dict", "load_weights"]

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
        shown = ", ".join(unmapped[:5]) or "none"
        raise ValueError(
            f"not an official MobileUtr state dict: {len(unmapped)} of {len(state)} entries have no counterpart "
            f"({shown}{', ...' if len(unmapped) > 5 else ''})"
        )
    return converted


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
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(f"{path} is not a state dict that torch can read ({type(error).__name__})") from error
    try:
        state = _unwrap(checkpoint)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    problem = _mismatch(network.state_dict(), state)
    if problem:
        raise ValueError(f"{path} does not fit the network: {problem}")
    network.load_state_dict(dict(state))


def _mismatch(expected: Mapping, state: Mapping) -> str | None:
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    if missing or unexpected:
        example = (missing or unexpected)[0]
        hint = "check variant and spatial_dims"
        if any(str(key).removeprefix("module.").startswith("patch_embeddings.") for key in unexpected):
            hint = "it is a checkpoint of the authors' code; convert it with convert_official_state_dict"
        counts = f"{len(missing)} entries are missing and {len(unexpected)} are unknown"
        return f"{counts}, for example {example!r}; {hint}"
    for key, value in expected.items():
        found = tuple(state[key].shape) if isinstance(state[key], torch.Tensor) else type(state[key]).__name__
        if found != tuple(value.shape):
            return (
                f"{key!r} has shape {found}, the network has {tuple(value.shape)}; "
                "check variant, in_channels and out_channels"
            )
    return None


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
