"""Depthwise 3D convolutions get right gradients under bfloat16 autocast."""

import pytest
import torch
from torch import nn

from mobileutr_monai.networks.blocks import DepthwiseConv3d

SIZES = [(2, 2, 2), (4, 4, 4), (8, 4, 4), (8, 8, 8)]
"""Sides of feature maps. With torch 2.13 and avx512_bf16, ``nn.Conv3d`` fails in all of them."""


def find_gradients(conv: nn.Module, images: torch.Tensor, autocast: bool) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = conv(images)
    result.float().square().sum().backward()
    return [images.grad, *(parameter.grad.clone() for parameter in conv.parameters())]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=["plain", "last"])
def test_gradients_under_autocast_are_those_of_float32(size, memory_format):
    torch.manual_seed(0)
    conv = DepthwiseConv3d(64, 64, 9, padding=4, groups=64).train()
    images = torch.randn(2, 64, *size).to(memory_format=memory_format)
    for given, expected in zip(find_gradients(conv, images, True), find_gradients(conv, images, False), strict=True):
        torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
