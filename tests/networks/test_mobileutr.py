"""MobileUtr: agreement with the authors' logits, arguments, training, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import Vector, load_vectors, make_input, make_weights
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mobileutr_monai.networks import MobileUtr, convert_official_state_dict

# The authors' networks, as arguments of ours; then parameters and state-dict entries as their code has them.
NETWORKS: dict[str, dict[str, Any]] = {
    "mobileutr": {"spatial_dims": 2, "in_channels": 3, "out_channels": 1, "variant": "base"},
    "mobileutr_l": {"spatial_dims": 2, "in_channels": 3, "out_channels": 1, "variant": "large"},
    "mobileutr_9class": {"spatial_dims": 2, "in_channels": 3, "out_channels": 9, "variant": "base"},
    "mobileutr_3d": {"spatial_dims": 3, "in_channels": 1, "out_channels": 14, "variant": "base"},
    "mobileutr_l_3d": {"spatial_dims": 3, "in_channels": 1, "out_channels": 14, "variant": "large"},
}
SIZES = {
    "mobileutr": (1_390_305, 388),
    "mobileutr_l": (6_209_217, 402),
    "mobileutr_3d": (2_758_270, 198),
    "mobileutr_l_3d": (11_060_206, 212),
}
VECTORS = load_vectors()

# The LGL gates amplify float32 round-off: threads and convolution backends alone move these logits by up to 1.6e-4.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 5e-4}
# Exported networks run the same float32 arithmetic, partly through other kernels: ONNX Runtime differs by some 5e-6.
EXPORT_TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
EXPORT_SIZES = [(2, 3, 64, 64), (1, 3, 96, 64)]
# Norm of the error over norm of the logits. Rounding to bfloat16 (4e-3) grows through the normalised layers of an
# untrained network to 0.05 to 0.14, depending on the seed; unrelated logits would give 1.4.
BFLOAT16_TOLERANCE = 0.2

TINY: dict[str, Any] = {"channels": (4, 4, 8, 8), "depths": (1, 1, 1, 1, 1), "num_heads": 2}


def make_reference_network(name: str, dtype: torch.dtype = torch.float32) -> MobileUtr:
    network = MobileUtr(**NETWORKS[name])
    network.load_state_dict(convert_official_state_dict(make_weights(name)), strict=True)
    return network.to(dtype).eval()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.key)
@torch.no_grad()
def test_agrees_with_the_authors_logits(vector: Vector, dtype: torch.dtype) -> None:
    network = make_reference_network(vector.network, dtype)
    logits = network(make_input(vector).to(dtype)).numpy()
    np.testing.assert_allclose(logits[vector.subsample], VECTORS[vector], rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize("name", SIZES)
def test_has_the_authors_number_of_parameters_and_entries(name: str) -> None:
    network = MobileUtr(**NETWORKS[name])
    assert (sum(p.numel() for p in network.parameters()), len(network.state_dict())) == SIZES[name]


@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 1), (3, 2), (5, 9)])
@pytest.mark.parametrize("sides", [(16, 48), (16, 32, 16)])
def test_takes_and_gives_any_number_of_channels(sides: tuple[int, ...], in_channels: int, out_channels: int) -> None:
    network = MobileUtr(len(sides), in_channels, out_channels, **TINY).eval()
    assert network(torch.rand(2, in_channels, *sides)).shape == (2, out_channels, *sides)


@pytest.mark.parametrize("sides", [(32, 32), (32, 32, 32)])
def test_gradients_reach_every_parameter(sides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = MobileUtr(len(sides), 2, 3, drop_path=0.0).double().train()
    logits = network(torch.randn(2, 2, *sides, dtype=torch.float64))
    (logits * torch.randn_like(logits)).sum().backward()

    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert gradients.keys() == dict(network.named_parameters()).keys()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    zero = {name for name, gradient in gradients.items() if gradient.abs().max() < 1e-10}
    assert zero == _biases_before_a_norm(network)


def _biases_before_a_norm(network: nn.Module) -> set[str]:
    # The norm subtracts each channel's mean and with it the bias, whose gradient is therefore zero up to round-off.
    sequences = {name: m for name, m in network.named_modules() if isinstance(m, nn.Sequential)}
    return {
        f"{name}.conv.bias"
        for name, m in sequences.items()
        if [k for k, _ in m.named_children()][:2] == ["conv", "norm"]
    }


@pytest.mark.parametrize("sides", [(64, 64), (32, 32, 32)])
def test_trains_under_bfloat16_autocast_close_to_float32(sides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = MobileUtr(len(sides), 2, 1, drop_path=0.0).train()
    image = torch.randn(2, 2, *sides)
    expected = network(image).detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()

    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert (logits.float() - expected).norm() < BFLOAT16_TOLERANCE * expected.norm()


@pytest.mark.parametrize("rate", ["dropout", "drop_path"])
@pytest.mark.parametrize("sides", [(32, 32), (32, 32, 32)])
@torch.no_grad()
def test_dropout_acts_in_training_only_and_fits_the_same_weights(sides: tuple[int, ...], rate: str) -> None:
    torch.manual_seed(0)
    rates: dict[str, Any] = {"dropout": 0.0, "drop_path": 0.0}
    plain = MobileUtr(len(sides), 1, 1, **TINY, **rates)
    dropping = MobileUtr(len(sides), 1, 1, **TINY, **(rates | {rate: 0.5}))
    assert dropping.state_dict().keys() == plain.state_dict().keys()
    dropping.load_state_dict(plain.state_dict())
    image = torch.randn(4, 1, *sides)

    assert torch.equal(dropping.eval()(image), plain.eval()(image))
    assert torch.equal(plain.train()(image), plain(image))
    assert not torch.equal(dropping.train()(image), dropping(image))


# Arguments that replace good ones, and what the message says: name, value, what to do.
BAD_ARGUMENTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"variant": "small"}, ["variant", "'small'", "'base', 'large'"]),
    ({"kernel_size": (3, 3, 4)}, ["kernel_size", "(3, 3, 4)", "odd"]),
    ({"channels": (16, 32, 64)}, ["channels", "(16, 32, 64)", "4 positive integers"]),
    ({"channels": (16, 32, 64, -1)}, ["channels", "(16, 32, 64, -1)", "4 positive integers"]),
    ({"depths": (1, 1, 3)}, ["depths", "(1, 1, 3)", "5 positive integers"]),
    ({"num_heads": 3}, ["num_heads=3", "(64, 128)", "common divisor"]),
    ({"num_heads": 0}, ["num_heads=0", "(64, 128)", "common divisor"]),
    ({"spatial_dims": 4}, ["spatial_dims", "got 4", "2 or 3"]),
    ({"in_channels": 0}, ["in_channels", "got 0", "positive integer"]),
    ({"out_channels": 1.5}, ["out_channels", "got 1.5", "positive integer"]),
    ({"drop_path": 1.0}, ["drop_path", "got 1.0", "[0, 1)"]),
    ({"dropout": -0.1}, ["dropout", "got -0.1", "[0, 1)"]),
    ({"dropout": float("nan")}, ["dropout", "got nan", "[0, 1)"]),
]


@pytest.mark.parametrize(("bad", "said"), BAD_ARGUMENTS, ids=[str(bad) for bad, _ in BAD_ARGUMENTS])
def test_rejects_bad_arguments_with_name_value_and_remedy(bad: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        MobileUtr(**({"spatial_dims": 2, "in_channels": 3, "out_channels": 1} | bad))
    assert [part for part in said if part not in str(caught.value)] == []


# Shape of the image, and the message.
BAD_IMAGES: list[tuple[tuple[int, ...], str]] = [
    ((1, 3, 250, 250), "sides must be divisible by 16, got (250, 250); pad to (256, 256)"),
    ((1, 3, 64, 65), "sides must be divisible by 16, got (64, 65); pad to (64, 80)"),
    ((1, 3, 32, 32, 24), "sides must be divisible by 16, got (32, 32, 24); pad to (32, 32, 32)"),
    ((1, 1, 32, 32), "image must have in_channels=3, got shape (1, 1, 32, 32); convert the image"),
    ((1, 4, 32, 32, 32), "image must have in_channels=3, got shape (1, 4, 32, 32, 32); convert the image"),
]


@pytest.mark.parametrize(("shape", "message"), BAD_IMAGES, ids=[str(shape) for shape, _ in BAD_IMAGES])
def test_rejects_sides_not_divisible_by_16_and_other_channels(shape: tuple[int, ...], message: str) -> None:
    network = MobileUtr(len(shape) - 2, 3, 1, **TINY)
    with pytest.raises(ValueError) as caught:
        network(torch.zeros(shape))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spatial_dims", "shape", "message"),
    [
        (2, (3, 32, 32), "rank 4 (batch, channel, sides), got shape (3, 32, 32)"),
        (2, (1, 3, 32, 32, 32), "rank 4 (batch, channel, sides), got shape (1, 3, 32, 32, 32)"),
        (3, (1, 3, 32, 32), "rank 5 (batch, channel, sides), got shape (1, 3, 32, 32)"),
    ],
)
def test_rejects_images_of_another_rank(spatial_dims: int, shape: tuple[int, ...], message: str) -> None:
    network = MobileUtr(spatial_dims, 3, 1, **TINY)
    with pytest.raises(ValueError) as caught:
        network(torch.zeros(shape))
    assert message in str(caught.value)


class MaxRank(TorchDispatchMode):
    """Records the highest rank among the outputs of all operators."""

    rank = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.rank = max([self.rank, *(leaf.ndim for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))])
        return out


@pytest.mark.parametrize("variant", ["base", "large"])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_makes_no_tensor_above_rank_4_in_2d(variant: str, training: bool) -> None:
    network = MobileUtr(2, 3, 1, variant).train(training)
    # The math backend shows the products inside attention too, which exporters decompose it into.
    with sdpa_kernel(SDPBackend.MATH), MaxRank() as recorded:
        network(torch.zeros(2, 3, 32, 32))
    assert recorded.rank == 4


@pytest.fixture(scope="module")
def network() -> MobileUtr:
    """The 2D base network with the reference weights, whose running statistics and biases are not trivial."""
    return make_reference_network("mobileutr")


@pytest.fixture(scope="module")
def exported(network: MobileUtr) -> ExportedProgram:
    """The network through ``torch.export``, for any batch and any sides that are multiples of 16."""
    dynamic = {0: Dim("batch"), 2: 16 * Dim("rows"), 3: 16 * Dim("columns")}
    return torch.export.export(network, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=(dynamic,))


def assert_agrees(network: MobileUtr, run: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in EXPORT_SIZES:
        image = torch.rand(shape, generator=generator) * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(run(image), network(image), **EXPORT_TOLERANCE)


def test_torch_export_agrees_at_every_size(network: MobileUtr, exported: ExportedProgram, tmp_path: Path) -> None:
    torch.export.save(exported, tmp_path / "network.pt2")
    assert_agrees(network, torch.export.load(tmp_path / "network.pt2").module())


def test_onnx_agrees_at_every_size(network: MobileUtr, exported: ExportedProgram, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "network.onnx"
    torch.onnx.export(exported, (), path, dynamo=True, input_names=["image"], output_names=["logits"], verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert_agrees(network, lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0]))


# The checks of the input's shape are meant to be fixed at tracing; TorchScript itself is deprecated but still in use.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_torchscript_trace_agrees_at_every_size(network: MobileUtr, tmp_path: Path) -> None:
    path = str(tmp_path / "network.ts")
    torch.jit.trace(network, torch.zeros(2, 3, 64, 64), check_trace=False).save(path)
    assert_agrees(network, torch.jit.load(path))
