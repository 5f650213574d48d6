"""Conversion of the authors' checkpoints, and loading of weight files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import SHAPES, make_weights

from mobileutr_monai.networks import MobileUtr, convert_official_state_dict, load_weights
from mobileutr_monai.networks.weights import read_official_checkpoint, recognise_network

Weights = dict[str, torch.Tensor]
Wrap = Callable[[Weights], dict[str, Any]]

NETWORKS: dict[str, tuple[int, int, int, str]] = {
    "mobileutr": (2, 3, 1, "base"),
    "mobileutr_l": (2, 3, 1, "large"),
    "mobileutr_9class": (2, 3, 9, "base"),
    "mobileutr_3d": (3, 1, 14, "base"),
    "mobileutr_l_3d": (3, 1, 14, "large"),
}


def to_copy_dialect(weights: Weights) -> Weights:
    return {key.replace("lklgl_bottleneck", "adaptive_lgl_bottleneck"): value for key, value in weights.items()}


def to_parallel(weights: Weights) -> Weights:
    return {f"module.{key}": value for key, value in weights.items()}


# How official checkpoints occur.
WRAPS: dict[str, Wrap] = {
    "other dialect": to_copy_dialect,
    "data parallel": to_parallel,
    "under state_dict": lambda weights: {"epoch": 3, "state_dict": weights},
    "under model": lambda weights: {"model": weights, "optimizer": {"state": {}}},
    "under both": lambda weights: {"model": {"state_dict": weights}},
    "all at once": lambda weights: {"state_dict": to_parallel(to_copy_dialect(weights))},
}


@pytest.fixture(scope="module")
def official() -> Weights:
    return make_weights("mobileutr")


@pytest.fixture
def network() -> MobileUtr:
    return MobileUtr(2, 3, 1)


@pytest.mark.parametrize("name", SHAPES)
def test_every_official_entry_has_its_counterpart(name: str) -> None:
    weights = make_weights(name)
    converted = convert_official_state_dict(weights)
    assert len(converted) == len(weights)
    MobileUtr(*NETWORKS[name]).load_state_dict(converted, strict=True)


@pytest.mark.parametrize("name", SHAPES)
def test_recognises_the_network_by_its_shapes(name: str) -> None:
    assert recognise_network(convert_official_state_dict(make_weights(name))) == NETWORKS[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.weight": None}, "cannot be recognised without head.weight"),
        ({"head.weight": torch.zeros(1, 16, 1, 1, 1)}, "both must be those of 2D or of 3D"),
        ({"stem.conv.weight": torch.zeros(24, 3, 3, 3)}, "gives 24 channels, no variant does"),
    ],
)
def test_says_why_a_network_is_not_recognised(changes: Weights, message: str, network: MobileUtr) -> None:
    state = {key: value for key, value in (network.state_dict() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        recognise_network(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (16, 32, 64, 192)}, r"of another shape: expand\.0\.conv\.weight"),
        ({"depths": (1, 1, 3, 3, 4)}, r"unknown: transformer\.3\."),
        ({"kernel_size": (3, 3, 5)}, r"of another shape: stage2\."),
        ({"norm": ("group", {"num_groups": 8})}, r"missing: stem\.norm\.running_mean"),
    ],
)
def test_a_network_of_other_sizes_is_not_taken_for_a_variant_with_its_stem(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recognise_network(MobileUtr(2, 3, 1, **arguments).state_dict())


def test_names_every_entry_that_an_official_checkpoint_lacks(official: Weights, tmp_path: Path) -> None:
    for key in ("head.bias", "Up1.up.1.bias"):
        official = {name: value for name, value in official.items() if name != key}
    torch.save(official | {"head.weight": torch.zeros(2, 16, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(ValueError) as caught:
        read_official_checkpoint(tmp_path / "part.pth")
    assert "entries missing: up0.1.conv.bias, head.bias" in str(caught.value)
    assert "entries of another shape: head.weight" in str(caught.value)
    assert "recognised as spatial_dims 2, variant base, in_channels 3, out_channels 2" in str(caught.value)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_converts_every_form_alike(wrap: Wrap, official: Weights) -> None:
    converted, expected = convert_official_state_dict(wrap(official)), convert_official_state_dict(official)
    assert converted.keys() == expected.keys()
    assert all(converted[key] is expected[key] for key in expected)


def test_leaves_the_checkpoint_as_it_was(official: Weights) -> None:
    inner = to_parallel(official)
    checkpoint = {"state_dict": inner}
    copies = {key: value.clone() for key, value in inner.items()}
    convert_official_state_dict(checkpoint)
    assert list(checkpoint) == ["state_dict"] and checkpoint["state_dict"] is inner
    assert list(inner) == list(copies) and all(torch.equal(inner[key], copies[key]) for key in copies)


@pytest.mark.parametrize(
    "key",
    [
        "aux_head.weight",
        "head.0.weight",
        "stem.conv.weight",
        "lklgl_bottleneck.0.LocalAgg.conv3.weight",
        "transformer_bottleneck.0.SelfAttn.attn.LocalProp.weight",
        "module.module.head.weight",
    ],
)
def test_names_an_entry_without_counterpart(key: str, official: Weights) -> None:
    with pytest.raises(ValueError, match=f"no counterpart for 1 of 389 entries .*{key}"):
        convert_official_state_dict(official | {key: torch.zeros(1)})


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"head.weight": [1.0]}, "'head.weight' is a list, not a tensor"),
        ({"head.weight": torch.zeros(1), "epoch": 3}, r"no counterpart for 1 of 2 entries \(epoch\)"),
        ({}, "not an official MobileUtr state dict"),
        ([torch.zeros(1)], "checkpoint is a list, not a state dict"),
        (torch.zeros(1), "checkpoint is a Tensor, not a state dict"),
        (None, "checkpoint is a NoneType, not a state dict"),
    ],
)
def test_rejects_what_is_no_state_dict(checkpoint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_official_state_dict(checkpoint)


@pytest.mark.parametrize("other", [to_copy_dialect, to_parallel])
def test_rejects_two_entries_for_one_weight(other: Wrap, official: Weights) -> None:
    key = "lklgl_bottleneck.0.LocalAgg.pos_embed.weight"
    with pytest.raises(ValueError, match=r"map to 'lgl\.0\.local\.position\.weight'"):
        convert_official_state_dict({key: official[key]} | other({key: official[key]}))


def test_strict_load_names_a_missing_entry(official: Weights, network: MobileUtr) -> None:
    without_head = {key: value for key, value in official.items() if key != "head.bias"}
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        network.load_state_dict(convert_official_state_dict(without_head), strict=True)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_loads_a_state_dict_plain_or_wrapped(wrapper: str | None, network: MobileUtr, tmp_path: Path) -> None:
    saved = MobileUtr(2, 3, 1).state_dict()
    torch.save({wrapper: saved, "epoch": 3} if wrapper else saved, tmp_path / "model.pt")
    load_weights(network, tmp_path / "model.pt")
    assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())


def test_names_a_missing_file(network: MobileUtr, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no weights at {tmp_path / 'model.pt'}; train"):
        load_weights(network, tmp_path / "model.pt")


# Cut early, torch reports an OSError, cut late a RuntimeError; the old format gives EOFError, IndexError, struct.error.
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("zipped", [True, False])
def test_names_a_truncated_file(zipped: bool, share: float, network: MobileUtr, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{path} is not a state dict"):
        load_weights(network, path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04",
        b"<html></html>",
        b"hello\n",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_names_a_file_that_torch_did_not_write(content: bytes, network: MobileUtr, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is not a state dict"):
        load_weights(network, path)


@pytest.mark.parametrize("saved", [[1, 2], torch.zeros(2), None])
def test_names_a_file_that_holds_something_else(saved: Any, network: MobileUtr, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(saved, path)
    with pytest.raises(ValueError, match=f"{path}: checkpoint is a {type(saved).__name__}, not a state dict"):
        load_weights(network, path)


# Another network's weights, and how the message says what differs.
MISFITS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "large": (
        lambda: MobileUtr(2, 3, 1, "large").state_dict(),
        "entries missing: 0, unknown: 14, for example 'transformer.3.position.weight'; check variant",
    ),
    "two classes": (
        lambda: MobileUtr(2, 3, 2).state_dict(),
        "'head.weight' has shape (2, 16, 1, 1), the network has (1, 16, 1, 1); check variant, in_channels and",
    ),
    "one channel": (
        lambda: MobileUtr(2, 1, 1).state_dict(),
        "'stem.conv.weight' has shape (16, 1, 3, 3), the network has (16, 3, 3, 3)",
    ),
    "official keys": (lambda: dict(make_weights("mobileutr")), "convert it with mobileutr convert"),
    "no tensor": (lambda: MobileUtr(2, 3, 1).state_dict() | {"head.bias": 0.0}, "'head.bias' has shape float"),
    "empty": (dict, "entries missing: 388, unknown: 0"),
}


@pytest.mark.parametrize(("make", "message"), MISFITS.values(), ids=MISFITS)
def test_names_the_file_and_the_difference_to_another_network(
    make: Callable[[], dict[str, Any]], message: str, network: MobileUtr, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.save(make(), path)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_weights(network, path)
    assert f"{path} does not fit the network" in str(caught.value) and message in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class MakesFolder:
    """Makes a folder when it is unpickled, in place of an attack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_refuses_a_pickled_object_without_executing_it(network: MobileUtr, tmp_path: Path) -> None:
    path, folder = tmp_path / "model.pt", tmp_path / "made"
    torch.save(network.state_dict() | {"extra": MakesFolder(folder)}, path)
    with pytest.raises(ValueError, match=f"{path} is not a state dict"):
        load_weights(network, path)
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists(), "the object does nothing, so the test proves nothing"
