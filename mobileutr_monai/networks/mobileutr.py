"""The MobileUtr network.

Paper: Tang et al., arXiv 2312.01740 (MobileUtr, 2023) and arXiv 2508.01064 (Mobile U-ViT, ACM MM 2025). Authors' code:
FengheTan9/Mobile-U-ViT (Apache-2.0). Same arithmetic, checked against the authors' logits to 1e-10 in float64. What
differs: one class for 2D and 3D, base and large; grey images are not repeated to three channels inside ``forward``;
the large model has the code's 6.2 M parameters, not the 7.88 M that the paper prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from mobileutr_monai.networks.blocks import (
    ConvUtrStage,
    DoubleConv,
    LGLBlock,
    NormSpec,
    TransformerBlock,
    UpConv,
    conv_norm_relu,
)

__all__ = ["SIZE_DIVISOR", "VARIANTS", "MobileUtr", "Variant"]

SIZE_DIVISOR = 16
"""Every side of the input is a multiple of this: three poolings, then attention on every second position."""


class Variant(NamedTuple):
    """Sizes of a network: ``channels`` C1 to C4, ``depths`` of the three ConvUtr stages, the LGL and the transformer
    blocks, ``kernel_size`` of the ConvUtr stages' depthwise convolutions, ``num_heads`` in LGL and transformer."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int, int]
    kernel_size: tuple[int, int, int]
    num_heads: int


VARIANTS = {
    "base": Variant(channels=(16, 32, 64, 128), depths=(1, 1, 3, 3, 3), kernel_size=(3, 3, 7), num_heads=4),
    "large": Variant(channels=(32, 64, 128, 256), depths=(1, 1, 3, 3, 4), kernel_size=(3, 3, 7), num_heads=8),
}


class MobileUtr(nn.Module):
    """MobileUtr: a light U-shaped network of convolutions and transformer blocks for image segmentation.

    The 2025 paper calls it Mobile U-ViT. Base has 1.39 M parameters in 2D and 2.76 M in 3D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: number of classes, or 1 for a single foreground class with a sigmoid.
        variant: name in ``VARIANTS``; the four arguments after it replace its entries one by one.
        channels: widths at 1/1, 1/2, 1/4 and in the bottleneck.
        depths: blocks in the three ConvUtr stages, LGL blocks, transformer blocks.
        kernel_size: depthwise kernels of the three ConvUtr stages, odd.
        num_heads: attention heads; divides the last two of ``channels``.
        drop_path: rate of stochastic depth in the LGL blocks.
        dropout: rate of dropout behind the attention's projection and behind the token MLP, in every LGL and
            transformer block. It has no parameters, so weights fit whatever its value.
        norm: MONAI's norm, e.g. ``"batch"`` or ``("group", {"num_groups": 8})``. By default batch norm in 2D and
            instance norm in 3D, as the authors have it.

    Shape:
        - input: (B, in_channels, H, W) or (B, in_channels, D, H, W), every side a multiple of 16.
        - output: (B, out_channels, ...) of the input's size: logits, no activation.

    Attributes:
        architecture: the arguments that decide what the weights compute, as text.

    Raises:
        ValueError: an argument, the input's rank, channel count or size is not one of the above.

    Attributes:
        weights_loaded: whether weights have been loaded with ``load_state_dict``; a new network has random ones.

    Example::

        network = MobileUtr(spatial_dims=2, in_channels=3, out_channels=1)
        logits = network(torch.zeros(1, 3, 256, 256))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        variant: str = "base",
        channels: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        kernel_size: Sequence[int] | None = None,
        num_heads: int | None = None,
        drop_path: float = 0.1,
        dropout: float = 0.0,
        norm: NormSpec | None = None,
    ) -> None:
        super().__init__()
        sizes = _resolve_variant(variant, channels, depths, kernel_size, num_heads)
        _check_arguments(spatial_dims, in_channels, out_channels, drop_path, dropout)
        self.spatial_dims, self.in_channels = spatial_dims, in_channels
        self.weights_loaded = False
        self.register_load_state_dict_post_hook(_note_weights)
        if norm is None:
            norm = "batch" if spatial_dims == 2 else "instance"
        # What a state dict does not tell: two networks with these and the weights alike give the same logits.
        self.architecture = f"MobileUtr({spatial_dims}, {in_channels}, {out_channels}, {sizes}, norm={norm!r})"
        d, heads = spatial_dims, sizes.num_heads
        c1, c2, c3, c4 = sizes.channels

        self.pool = Pool[Pool.MAX, d](kernel_size=2, stride=2)
        self.stem = conv_norm_relu(d, in_channels, c1, norm)
        self.stage0 = ConvUtrStage(d, c1, c1, sizes.depths[0], sizes.kernel_size[0], norm)
        self.stage1 = ConvUtrStage(d, c1, c2, sizes.depths[1], sizes.kernel_size[1], norm)
        self.stage2 = ConvUtrStage(d, c2, c3, sizes.depths[2], sizes.kernel_size[2], norm)
        self.lgl = nn.Sequential(*(LGLBlock(d, c3, heads, drop_path, dropout, norm) for _ in range(sizes.depths[3])))
        self.expand = DoubleConv(d, c3, c4, norm)
        self.transformer = nn.Sequential(*(TransformerBlock(d, c4, heads, dropout) for _ in range(sizes.depths[4])))
        self.reduce = DoubleConv(d, c4, c3, norm)
        self.fuse2 = DoubleConv(d, 2 * c3, c3, norm)
        self.up2 = UpConv(d, c3, c2, norm)
        self.fuse1 = DoubleConv(d, 2 * c2, c2, norm)
        self.up1 = UpConv(d, c2, c1, norm)
        self.fuse0 = DoubleConv(d, 2 * c1, c1, norm)
        self.up0 = UpConv(d, c1, c1, norm)
        self.head = Conv[Conv.CONV, d](c1, out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            self._check_input(image)
        x0 = self.pool(self.stage0(self.stem(image)))  # 1/2, C1
        x1 = self.pool(self.stage1(x0))  # 1/4, C2
        x2 = self.pool(self.stage2(x1))  # 1/8, C3
        x = self.expand(self.lgl(x2))  # 1/8, C4
        x = self.reduce(self.transformer(x))  # 1/8, C3
        x = self.up2(self.fuse2(torch.cat((x, x2), dim=1)))  # 1/4, C2
        x = self.up1(self.fuse1(torch.cat((x, x1), dim=1)))  # 1/2, C1
        x = self.up0(self.fuse0(torch.cat((x, x0), dim=1)))  # 1/1, C1
        logits: torch.Tensor = self.head(x)  # 1/1, classes
        return logits

    def _check_input(self, image: torch.Tensor) -> None:
        rank = self.spatial_dims + 2
        if image.ndim != rank:
            raise ValueError(f"image must have rank {rank} (batch, channel, sides), got shape {tuple(image.shape)}")
        if image.shape[1] != self.in_channels:
            raise ValueError(
                f"image must have in_channels={self.in_channels}, got shape {tuple(image.shape)}; "
                "convert the image or build the network for its channels"
            )
        size = tuple(image.shape[2:])
        if any(side % SIZE_DIVISOR or side == 0 for side in size):
            padded = tuple(max(1, -(-side // SIZE_DIVISOR)) * SIZE_DIVISOR for side in size)
            raise ValueError(f"sides must be divisible by {SIZE_DIVISOR}, got {size}; pad to {padded}")


def _note_weights(network: nn.Module, _: object) -> None:
    network.weights_loaded = True  # type: ignore[assignment]  # a plain attribute, no module


def _resolve_variant(
    variant: str,
    channels: Sequence[int] | None,
    depths: Sequence[int] | None,
    kernel_size: Sequence[int] | None,
    num_heads: int | None,
) -> Variant:
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown; choose one of {sorted(VARIANTS)}")
    base = VARIANTS[variant]
    sizes = Variant(
        channels=_sized("channels", channels, base.channels),
        depths=_sized("depths", depths, base.depths),
        kernel_size=_sized("kernel_size", kernel_size, base.kernel_size),
        num_heads=base.num_heads if num_heads is None else num_heads,
    )
    if any(k % 2 == 0 for k in sizes.kernel_size):
        raise ValueError(f"kernel_size must be odd, got {sizes.kernel_size}; 3 or 7 keep the image's size")
    if not _is_count(sizes.num_heads) or any(c % sizes.num_heads for c in sizes.channels[2:]):
        raise ValueError(
            f"num_heads={sizes.num_heads} must divide the last two channels {sizes.channels[2:]}; "
            f"choose a common divisor"
        )
    return sizes


def _sized(name: str, given: Sequence[int] | None, default: tuple) -> tuple:
    if given is None:
        return default
    if not isinstance(given, (list, tuple)) or len(given) != len(default) or not all(_is_count(v) for v in given):
        raise ValueError(f"{name} must be {len(default)} positive integers, got {given!r}; for example {default}")
    return tuple(given)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_arguments(spatial_dims: int, in_channels: int, out_channels: int, drop_path: float, dropout: float) -> None:
    if not _is_count(spatial_dims) or spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
    for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not _is_count(count):
            raise ValueError(f"{name} must be a positive integer, got {count!r}")
    for name, rate in (("drop_path", drop_path), ("dropout", dropout)):
        if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"{name} must be in [0, 1), got {rate!r}")
