"""The network rewritten for inference: the same function with less to compute, still a ``MobileUtr``.

What is rewritten, exactly, in evaluation mode:

- batch norm behind a convolution goes into that convolution (stem, expansions, double convolutions, ups);
- batch norm whose only reader is a 1x1 convolution goes into that one: behind the first GELU of a ConvUtr block's MLP,
  and before the projection of an LGL block's second branch;
- batch norm behind the last GELU of a residual branch keeps its scale; of a ConvUtr block's first branch the shift goes
  on into the MLP, whose 1x1 convolution and last norm take it up;
- the transposed depthwise convolution of token reduction is a grouped 1x1 convolution and a pixel shuffle;
- in 2D the two grouped convolutions of an LGL block's third branch, which widen each channel to four and narrow it
  again, are depthwise ones on four copies, whose results are added: CPU libraries compute groups of four slowly;
- drop path and dropout are gone.

What is not: batch norm before a zero-padded convolution (the third branch of an LGL block), because at the border the
padding is not shifted with the image; instance and group norm, whose statistics are the image's own.
"""

from __future__ import annotations

import copy
from typing import TypeAlias, cast

import torch
from monai.networks.layers.factories import Conv
from monai.networks.utils import pixelshuffle
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mobileutr_monai.networks.blocks import ConvUtrBlock, DropPath, LocalHalf, ReducedAttention
from mobileutr_monai.networks.mobileutr import MobileUtr

__all__ = ["fold_network"]

Convolution: TypeAlias = nn.Conv2d | nn.Conv3d


def fold_network(network: MobileUtr) -> MobileUtr:
    """Returns a copy of the network for inference, on its device, that computes the same logits with less work.

    Equal to 1e-10 in float64; in float32 up to round-off. Its state dict is its own: weights are loaded before folding.

    Example::

        fast = fold_network(network.eval())
    """
    folded = copy.deepcopy(network).eval()
    for parent in list(folded.modules()):
        if isinstance(parent, ConvUtrBlock):
            _fold_conv_utr(parent)
        elif isinstance(parent, LocalHalf):
            _fold_before(parent, "norm1", cast(Convolution, parent.proj_in))
            if isinstance(parent.fc1, nn.Conv2d):  # no faster in 3D
                parent.fc1, parent.fc2 = _Widen(parent.fc1), _Narrow(cast(nn.Conv2d, parent.fc2))
        elif isinstance(parent, nn.Sequential) and [name for name, _ in parent.named_children()][:2] == [
            "conv",
            "norm",
        ]:
            _fold_behind(parent)
        elif isinstance(parent, ReducedAttention):
            parent.spread = _Spread(cast(nn.ConvTranspose2d | nn.ConvTranspose3d, parent.spread))
        for name, child in parent.named_children():
            if isinstance(child, (DropPath, nn.Dropout)):
                setattr(parent, name, nn.Identity())
    return folded.requires_grad_(False)


class _Affine(nn.Module):
    """A scale, and a shift if there is one, for each channel."""

    scale: torch.Tensor
    shift: torch.Tensor | None

    def __init__(self, ndim: int, scale: torch.Tensor, shift: torch.Tensor | None = None) -> None:
        super().__init__()
        shape = [1, -1, *[1] * (ndim - 2)]
        self.register_buffer("scale", scale.reshape(shape))
        self.register_buffer("shift", None if shift is None else shift.reshape(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale if self.shift is None else torch.addcmul(self.shift, x, self.scale)


class _Spread(nn.Module):
    """The transposed depthwise convolution of kernel and stride 2, as a grouped 1x1 convolution and a pixel shuffle."""

    def __init__(self, transposed: nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
        super().__init__()
        assert transposed.bias is not None
        self.spatial_dims = transposed.weight.ndim - 2
        channels, copies = transposed.in_channels, 2**self.spatial_dims
        factory = Conv[Conv.CONV, self.spatial_dims]
        self.conv = factory(channels, channels * copies, 1, groups=channels).to(transposed.weight)
        self.conv.weight.data = transposed.weight.data.reshape(self.conv.weight.shape)
        self.conv.bias.data = transposed.bias.data.repeat_interleave(copies)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return F.pixel_shuffle(x, 2) if self.spatial_dims == 2 else pixelshuffle(x, self.spatial_dims, 2)


class _Widen(nn.Module):
    """A convolution of each channel to several, as a depthwise one on copies of the image.

    Its channels come copy by copy, as ``_Narrow`` takes them, and not channel by channel.
    """

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        assert grouped.bias is not None
        self.copies = grouped.out_channels // grouped.in_channels
        each = (grouped.in_channels, self.copies)
        weight, bias = grouped.weight.data.unflatten(0, each), grouped.bias.data.unflatten(0, each)
        self.conv = _make_depthwise(_by_copy(weight), _by_copy(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(torch.cat([x] * self.copies, dim=1))
        return out


class _Narrow(nn.Module):
    """A convolution of several channels to each one, as a depthwise one whose copies are added."""

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        assert grouped.bias is not None
        self.copies = grouped.in_channels // grouped.out_channels
        bias = F.pad(grouped.bias.data, (0, grouped.in_channels - grouped.out_channels))  # in the first copy alone
        self.conv = _make_depthwise(_by_copy(grouped.weight.data.unsqueeze(2)), bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copies: tuple[torch.Tensor, ...] = self.conv(x).chunk(self.copies, dim=1)
        total = copies[0]
        for further in copies[1:]:
            total = total + further
        return total


def _make_depthwise(weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(len(weight), len(weight), 3, padding=1, groups=len(weight)).to(weight)
    conv.weight.data, conv.bias = weight, nn.Parameter(bias)
    return conv


def _by_copy(values: torch.Tensor) -> torch.Tensor:
    """(channels, copies, ...) -> (copies * channels, ...)"""
    return values.transpose(0, 1).flatten(0, 1).contiguous()


def _fold_behind(block: nn.Module) -> None:
    conv, norm = block.get_submodule("conv"), block.get_submodule("norm")
    if isinstance(norm, _BatchNorm):
        block.conv = fuse_conv_bn_eval(cast(Convolution, conv), norm)
        block.norm = nn.Identity()


def _fold_before(parent: nn.Module, name: str, conv: Convolution) -> None:
    """Folds a batch norm into the 1x1 convolution that alone reads it."""
    norm = parent.get_submodule(name)
    if isinstance(norm, _BatchNorm):
        scale, shift = _to_scale_and_shift(norm)
        _add_before(conv, shift)
        conv.weight.data = conv.weight.data * scale.reshape(1, -1, *[1] * (conv.weight.ndim - 2))
        setattr(parent, name, nn.Identity())


def _fold_conv_utr(block: ConvUtrBlock) -> None:
    fc1, fc2 = (cast(Convolution, block.channel.get_submodule(name)) for name in ("fc1", "fc2"))
    _fold_before(block.channel, "norm1", fc2)
    first, last = block.spatial.get_submodule("norm"), block.channel.get_submodule("norm2")
    if isinstance(first, _BatchNorm) and isinstance(last, _BatchNorm):
        scale, shift = _to_scale_and_shift(first)
        _add_before(fc1, shift)
        last_scale, last_shift = _to_scale_and_shift(last)
        block.spatial.norm = _Affine(fc1.weight.ndim, scale)
        block.channel.norm2 = _Affine(fc1.weight.ndim, last_scale, last_shift + shift)


def _add_before(conv: Convolution, shift: torch.Tensor) -> None:
    """Has a 1x1 convolution add what it would give for a shift of its input."""
    assert conv.bias is not None
    conv.bias.data = conv.bias.data + conv.weight.data.flatten(1) @ shift


def _to_scale_and_shift(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.data
    shift = -norm.running_mean * scale
    return scale, shift + norm.bias.data if norm.affine else shift
