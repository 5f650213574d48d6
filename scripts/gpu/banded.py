"""Grouped convolutions of small images as products of banded matrices.

cuDNN computes depthwise 7 x 7 and 9 x 9 convolutions and their gradients slowly. Along the columns such a convolution
is a product with a banded matrix, and its rows are stacked into the same product, which tensor cores compute: same
weights, same result up to rounding. On an H200 a training step of batch 32 took 36.3 ms instead of 43.0, and with four
networks side by side 27.3 instead of 34.1 (``choose.py``).
"""

from __future__ import annotations

import types

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["banded_conv2d", "use_banded"]

LARGEST_SIDE = 64


def banded_conv2d(
    image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int, bands: torch.Tensor
) -> torch.Tensor:
    """Convolves (B, C, H, W) with an odd kernel, stride 1, zero padding. ``bands`` is that of ``make_bands``."""
    count, _, rows, columns = image.shape
    out_channels, per_group, size, _ = weight.shape
    each, pad = out_channels // groups, size // 2
    stacked = F.pad(image.contiguous(), (0, 0, pad, pad)).reshape(count, groups, per_group, rows + 2 * pad, columns)
    stacked = stacked.unfold(3, size, 1).permute(1, 0, 3, 2, 5, 4)  # G, B, H, m, k, W
    stacked = stacked.reshape(groups, count * rows, per_group * size * columns)
    kernels = weight.reshape(groups, each, per_group, size, size)
    matrix = torch.einsum("gnmyx,xji->gmyjni", kernels, bands).reshape(groups, per_group * size * columns, -1)
    out = torch.bmm(stacked, matrix.to(stacked.dtype))  # G, B H, n W
    out = out.reshape(groups, count, rows, each, columns).permute(1, 0, 3, 2, 4)
    out = out.reshape(count, out_channels, rows, columns)
    return out if bias is None else out + bias.to(out.dtype).view(1, -1, 1, 1)


def make_bands(size: int, columns: int, device: torch.device) -> torch.Tensor:
    """Returns 1 where column j of the image meets column i of the result under tap x of the kernel: (k, W, W)."""
    i = torch.arange(columns, device=device)
    x = torch.arange(size, device=device)
    return (i[None, :, None] == i[None, None, :] + x[:, None, None] - size // 2).float()


def use_banded(network: nn.Module) -> None:
    """Lets the grouped convolutions of a network compute small images this way, in training and evaluation."""
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups > 1
            and module.stride == (1, 1)
            and module.padding == (module.kernel_size[0] // 2,) * 2
            and (module.kernel_size[0] >= 7 or module.weight.shape[1] > 1)
        ):
            module.forward = types.MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(self: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
    if max(image.shape[2:]) > LARGEST_SIDE or image.shape[2] != image.shape[3]:
        plain: torch.Tensor = self._conv_forward(image, self.weight, self.bias)
        return plain
    bands: torch.Tensor | None = self.__dict__.get("bands")
    if bands is None or bands.shape[1] != image.shape[3] or bands.device != image.device:
        bands = make_bands(self.kernel_size[0], image.shape[3], image.device)
        self.__dict__["bands"] = bands
    if torch.is_autocast_enabled(image.device.type):
        image = image.to(torch.get_autocast_dtype(image.device.type))
    out = banded_conv2d(image, self.weight, self.bias, self.groups, bands)
    return out.contiguous(memory_format=torch.channels_last)
