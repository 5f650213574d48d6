"""Inferers that MONAI lacks."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from mobileutr_monai.inference import inferers
from mobileutr_monai.inference.inferers import AutocastInferer


class Recorder(nn.Module):
    """A convolution that remembers the precision it was computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.seen: torch.dtype | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        self.seen = out.dtype
        return out


@pytest.fixture
def network() -> Recorder:
    torch.manual_seed(0)
    return Recorder()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dtype", "inside"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_computes_in_the_precision_and_returns_float32(
    dtype: str, inside: torch.dtype, network: Recorder, image: torch.Tensor
) -> None:
    logits = AutocastInferer(dtype)(image, network)
    assert network.seen == inside
    assert logits.dtype == torch.float32


def test_bfloat16_is_close_and_float32_exact(network: Recorder, image: torch.Tensor) -> None:
    expected = network(image)
    assert torch.equal(AutocastInferer()(image, network), expected)
    rounded = AutocastInferer("bfloat16")(image, network)
    assert not torch.equal(rounded, expected)
    torch.testing.assert_close(rounded, expected, rtol=0.02, atol=0.02)  # bfloat16 has 8 bits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_leaves_the_precision_outside_as_it_was(dtype: str, network: Recorder, image: torch.Tensor) -> None:
    AutocastInferer(dtype)(image, network)
    assert network(image).dtype == torch.float32 == network.conv.weight.dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_reach_the_weights_in_float32(dtype: str, network: Recorder, image: torch.Tensor) -> None:
    AutocastInferer(dtype)(image, network).sum().backward()
    gradient = network.conv.weight.grad
    assert gradient is not None and gradient.dtype == torch.float32 and gradient.abs().sum() > 0


@pytest.mark.parametrize("has_bfloat16", [False, True])
@pytest.mark.parametrize("bundle", ["breast_ultrasound", "hippocampus_mri"])
def test_bundles_train_in_bfloat16_where_a_cpu_has_it(
    bundle: str, has_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inferers, "computes_bfloat16", lambda device: device.type != "cpu" or has_bfloat16)
    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}_segmentation/configs/train.json")
    expected = {"cpu": "bfloat16" if has_bfloat16 else "float32", "cuda": "bfloat16"}
    for device, precision in expected.items():
        parser["device"] = device
        parser.parse(reset=True)
        assert parser.get_parsed_content("precision") == precision


@pytest.mark.parametrize("dtype", ["bf16", "float16", "", None])
def test_rejects_an_unknown_precision(dtype: str | None) -> None:
    with pytest.raises(ValueError, match=rf"dtype {dtype!r} is unknown; choose one of \['bfloat16', 'float32'\]"):
        AutocastInferer(dtype)  # type: ignore[arg-type]
