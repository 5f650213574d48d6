"""Building blocks of MobileUtr.

Paper: Tang et al., "MobileUtr: Revisiting the relationship between light-weight CNN and Transformer for efficient
medical image segmentation", arXiv 2312.01740; as Mobile U-ViT: arXiv 2508.01064. Authors' code: FengheTan9/Mobile-U-ViT
(Apache-2.0). Written from the papers' description; what differs from the authors' code: attention is
``scaled_dot_product_attention`` (the same arithmetic), no tensor exceeds rank 4 in 2D (mobile delegates refuse more),
and token reduction selects positions before the first LayerNorm (equal, since it normalises each position by itself).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_norm_layer
from torch import nn
from torch.nn import functional as F

__all__ = ["ConvUtrStage", "DoubleConv", "LGLBlock", "TransformerBlock", "UpConv", "conv_norm_relu"]

NormSpec = str | tuple
MLP_RATIO = 4
"""Hidden width over width, in the convolutional and the token MLPs alike."""


def _conv(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> nn.Module:
    kind = DepthwiseConv3d if spatial_dims == 3 and groups > 1 else Conv[Conv.CONV, spatial_dims]
    conv: nn.Module = kind(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups)
    return conv


class DepthwiseConv3d(nn.Conv3d):
    """A 3D convolution of each channel by itself, trained in float32 on a CPU even under autocast.

    The bfloat16 kernel of torch 2.13's oneDNN (CPUs with avx512_bf16) returns wrong gradients of the weight where the
    kernel is about as large as its input, with errors above 100 % or values near 1e18, and writes beyond its memory:
    trainings ended in NaN or in a segmentation fault. Its forward pass is right.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and not torch.jit.is_scripting() and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                trained: torch.Tensor = self._conv_forward(x.to(self.weight.dtype), self.weight, self.bias)
            return trained
        out: torch.Tensor = self._conv_forward(x, self.weight, self.bias)
        return out


def conv_norm_relu(spatial_dims: int, in_channels: int, out_channels: int, norm: NormSpec) -> nn.Sequential:
    """3-wide convolution, norm, ReLU, as a sequence named ``conv``, ``norm``, ``act``."""
    return nn.Sequential(
        OrderedDict(
            conv=_conv(spatial_dims, in_channels, out_channels, 3),
            norm=get_norm_layer(norm, spatial_dims, out_channels),
            act=nn.ReLU(inplace=True),
        )
    )


class DoubleConv(nn.Sequential):
    """Two ``conv_norm_relu`` in turn; the first one changes the width."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, norm: NormSpec) -> None:
        super().__init__(
            conv_norm_relu(spatial_dims, in_channels, out_channels, norm),
            conv_norm_relu(spatial_dims, out_channels, out_channels, norm),
        )


class UpConv(nn.Sequential):
    """Doubles every side, then ``conv_norm_relu``.

    Bilinear with ``align_corners=True`` in 2D, trilinear with ``align_corners=False`` in 3D, as the authors' code does.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, norm: NormSpec) -> None:
        mode, align_corners = ("bilinear", True) if spatial_dims == 2 else ("trilinear", False)
        super().__init__(
            nn.Upsample(scale_factor=2, mode=mode, align_corners=align_corners),
            conv_norm_relu(spatial_dims, in_channels, out_channels, norm),
        )


class ConvUtrBlock(nn.Module):
    """A convolution shaped like a transformer block: depthwise mixing of space, then an MLP over channels."""

    def __init__(self, spatial_dims: int, channels: int, kernel_size: int, norm: NormSpec) -> None:
        super().__init__()
        hidden = MLP_RATIO * channels
        self.spatial = nn.Sequential(
            OrderedDict(
                conv=_conv(spatial_dims, channels, channels, kernel_size, groups=channels),
                act=nn.GELU(),
                norm=get_norm_layer(norm, spatial_dims, channels),
            )
        )
        self.channel = nn.Sequential(
            OrderedDict(
                fc1=_conv(spatial_dims, channels, hidden, 1),
                act1=nn.GELU(),
                norm1=get_norm_layer(norm, spatial_dims, hidden),
                fc2=_conv(spatial_dims, hidden, channels, 1),
                act2=nn.GELU(),
                norm2=get_norm_layer(norm, spatial_dims, channels),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.spatial(x)
        out: torch.Tensor = x + self.channel(x)
        return out


class ConvUtrStage(nn.Module):
    """``depth`` ConvUtr blocks at the input width, then an expansion to the output width."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, depth: int, kernel_size: int, norm: NormSpec
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ConvUtrBlock(spatial_dims, in_channels, kernel_size, norm) for _ in range(depth)))
        self.expand = conv_norm_relu(spatial_dims, in_channels, out_channels, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.expand(self.blocks(x))
        return out


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for a whole sample and scales what is left.

    Written here because MONAI's ``DropPath`` (1.6.1) multiplies tuples, which TorchScript (``ckpt_export``) refuses.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * F.dropout(x.new_ones([x.shape[0]] + [1] * (x.ndim - 1)), self.rate)


class LocalHalf(nn.Module):
    """Local half of an LGL block: three gated residual branches with large depthwise kernels."""

    def __init__(self, spatial_dims: int, channels: int, drop_path: float, norm: NormSpec) -> None:
        super().__init__()
        hidden = MLP_RATIO * channels
        self.position = _conv(spatial_dims, channels, channels, 9, groups=channels)
        self.norm1 = get_norm_layer(norm, spatial_dims, channels)
        self.proj_in = _conv(spatial_dims, channels, channels, 1)
        self.mix = _conv(spatial_dims, channels, channels, 9, groups=channels)
        self.proj_out = _conv(spatial_dims, channels, channels, 1)
        self.norm2 = get_norm_layer(norm, spatial_dims, channels)
        self.fc1 = _conv(spatial_dims, channels, hidden, 3, groups=channels)
        self.fc2 = _conv(spatial_dims, hidden, channels, 3, groups=channels)
        self.act = nn.GELU()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _gate(x, self.position(x))
        x = _gate(x, self.drop_path(self.proj_out(self.mix(self.proj_in(self.norm1(x))))))
        return _gate(x, self.drop_path(self.fc2(self.act(self.fc1(self.norm2(x))))))


def _gate(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return x + x * (torch.sigmoid(gate) - 0.5)


class SelfAttention(nn.Module):
    """Multi-head self-attention between tokens (B, N, C), up to the projection, which is left to the subclasses."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def attend(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        heads = [tokens.shape[0], tokens.shape[1], self.num_heads, -1]
        q, k, v = q.reshape(heads), k.reshape(heads), v.reshape(heads)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return mixed.transpose(1, 2).flatten(2)


class Attention(SelfAttention):
    """Self-attention between all tokens."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.proj(self.attend(tokens))
        return out


class ReducedAttention(SelfAttention):
    """Self-attention between every second token of an image per axis, whose result is spread to all by a depthwise
    transposed convolution: each token becomes 2 x 2 (x 2) scaled copies of itself."""

    def __init__(self, spatial_dims: int, channels: int, num_heads: int) -> None:
        super().__init__(channels, num_heads)
        self.spread = Conv[Conv.CONVTRANS, spatial_dims](channels, channels, 2, stride=2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-5)

    def forward(self, tokens: torch.Tensor, shape: list[int]) -> torch.Tensor:
        """Takes the kept tokens and the shape (B, C, sides...) of the image that they make."""
        spread = self.spread(_to_image(self.attend(tokens), shape))
        out: torch.Tensor = self.proj(self.norm(_to_tokens(spread)))
        return out


def _to_tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


def _to_image(tokens: torch.Tensor, shape: list[int]) -> torch.Tensor:
    return tokens.transpose(1, 2).reshape(shape)


def _keep_every_second(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, ::2, ::2] if x.ndim == 4 else x[:, :, ::2, ::2, ::2]


class TokenMLP(nn.Sequential):
    """Two linear layers with GELU between, and dropout."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__(
            OrderedDict(
                fc1=nn.Linear(channels, MLP_RATIO * channels),
                act=nn.GELU(),
                fc2=nn.Linear(MLP_RATIO * channels, channels),
                dropout=nn.Dropout(dropout),
            )
        )


class GlobalHalf(nn.Module):
    """Global half of an LGL block: depthwise positional encoding, attention between every second token, MLP."""

    def __init__(self, spatial_dims: int, channels: int, num_heads: int, drop_path: float, dropout: float) -> None:
        super().__init__()
        self.position = _conv(spatial_dims, channels, channels, 3, groups=channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = ReducedAttention(spatial_dims, channels, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenMLP(channels, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position(x)
        kept = _keep_every_second(x)
        tokens = _to_tokens(x) + self.drop_path(self.dropout(self.attn(self.norm1(_to_tokens(kept)), list(kept.shape))))
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return _to_image(tokens, list(x.shape))


class TransformerBlock(nn.Module):
    """Depthwise positional encoding, attention between all tokens, MLP."""

    def __init__(self, spatial_dims: int, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.position = _conv(spatial_dims, channels, channels, 3, groups=channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenMLP(channels, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position(x)
        tokens = _to_tokens(x)
        tokens = tokens + self.dropout(self.attn(self.norm1(tokens)))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return _to_image(tokens, list(x.shape))


class LGLBlock(nn.Sequential):
    """Local - global - local block: a ``LocalHalf``, then attention over every second position, spread back."""

    def __init__(
        self, spatial_dims: int, channels: int, num_heads: int, drop_path: float, dropout: float, norm: NormSpec
    ) -> None:
        super().__init__(
            OrderedDict(
                local=LocalHalf(spatial_dims, channels, drop_path, norm),
                glob=GlobalHalf(spatial_dims, channels, num_heads, drop_path, dropout),
            )
        )
