"""The network rewritten for inference: equal to what it was made of, and lighter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobileutr_monai.networks import MobileUtr, fold_network
from mobileutr_monai.networks.blocks import DropPath

TOLERANCE = 1e-10


def make_network(spatial_dims: int, norm: str | tuple | None, variant: str = "base") -> MobileUtr:
    """Returns a network in float64 whose norms are far from the identity."""
    torch.manual_seed(0)
    network = MobileUtr(spatial_dims, 2, 3, variant, norm=norm).double().eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return network


@pytest.mark.parametrize(
    ("spatial_dims", "norm", "variant"),
    [
        (2, "batch", "base"),
        (2, "batch", "large"),
        (2, "instance", "base"),
        (2, ("group", {"num_groups": 4}), "base"),
        (3, "batch", "base"),
        (3, None, "base"),
    ],
)
@torch.no_grad()
def test_folded_network_gives_the_same_logits(spatial_dims: int, norm: str | tuple | None, variant: str) -> None:
    network = make_network(spatial_dims, norm, variant)
    image = torch.randn(2, 2, 48, 32, *[16] * (spatial_dims - 2), dtype=torch.float64)
    torch.testing.assert_close(fold_network(network)(image), network(image), rtol=0, atol=TOLERANCE)


def test_only_norms_before_zero_padding_are_left() -> None:
    folded = fold_network(make_network(2, "batch"))
    left = [name for name, module in folded.named_modules() if isinstance(module, _BatchNorm)]
    assert left == [f"lgl.{block}.local.norm2" for block in range(3)]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_drop_path_dropout_and_transposed_convolutions_are_gone(spatial_dims: int) -> None:
    folded = fold_network(make_network(spatial_dims, None))
    gone = (DropPath, nn.Dropout, nn.ConvTranspose2d, nn.ConvTranspose3d)
    assert not [module for module in folded.modules() if isinstance(module, gone)]
    assert isinstance(folded, MobileUtr)
    assert not [parameter for parameter in folded.parameters() if parameter.requires_grad]


def test_groups_of_several_channels_are_depthwise_in_2d() -> None:
    def find_groups(network: nn.Module) -> list[tuple[int, int]]:
        convs = [
            module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
        ]
        return [(c.in_channels // c.groups, c.out_channels // c.groups) for c in convs if c.groups > 1]

    network = make_network(2, "batch")
    assert {(1, 4), (4, 1)} < set(find_groups(network))
    assert set(find_groups(fold_network(network))) == {(1, 1)}


@torch.no_grad()
def test_the_network_itself_stays_as_it_was() -> None:
    network = make_network(2, "batch").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fold_network(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@torch.no_grad()
def test_batch_norm_without_affine_parameters_is_folded_too() -> None:
    network = make_network(2, ("batch", {"affine": False}))
    image = torch.randn(1, 2, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(fold_network(network)(image), network(image), rtol=0, atol=TOLERANCE)
