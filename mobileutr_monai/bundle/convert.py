"""Official checkpoints made ready for a bundle: weights, and the preprocessing that they were trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.folders import overlay_path
from mobileutr_monai.networks.weights import NetworkShape, read_official_checkpoint, save_weights

__all__ = ["convert_checkpoint", "make_official_overlay"]

# ImageNet's means and standard deviations of red, green, blue, for values from 0 to 255. The authors apply them in this
# order to images read as blue, green, red.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
WHITE = 255


def convert_checkpoint(source: Path, target: Path, official_preprocessing: bool = False) -> NetworkShape:
    """Writes the weights of an official checkpoint as a bundle's ``model.pt``; each file atomically.

    Args:
        source: checkpoint of the authors' code.
        target: state dict to write.
        official_preprocessing: also write ``overlay_path(target)``, see ``make_official_overlay``.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is no official one, would be overwritten, or the preprocessing does not fit it.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"--output {target} is the checkpoint itself; write to another file")
    network, shape = read_official_checkpoint(source)
    overlay = make_official_overlay(shape) if official_preprocessing else None
    save_weights(network, target)
    if overlay is not None:
        write_text(overlay_path(target), json.dumps(overlay, indent=4) + "\n")
    return shape


def make_official_overlay(shape: NetworkShape) -> dict[str, Any]:
    """Returns a MONAI config overlay for a 2D bundle that reads images as the authors do.

    They read blue, green, red; take ((value / 255) - mean) / std with ImageNet's constants, in the order of red, green,
    blue; and divide by 255 again (FengheTan9/Mobile-U-ViT). The overlay has the network's shape too.

    Raises:
        ValueError: the network is not one of colour images.
    """
    if (shape.spatial_dims, shape.in_channels) != (2, 3):
        raise ValueError(f"the official preprocessing is that of 2D colour images, the checkpoint has {shape}; omit it")
    flip_channels = {"_target_": "torch.flip", "_mode_": "callable", "dims": [0]}
    return {
        "variant": shape.variant,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "intensity": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Lambdad", "keys": "image", "func": flip_channels},
                {
                    "_target_": "NormalizeIntensityd",
                    "keys": "image",
                    "subtrahend": list(IMAGENET_MEAN),
                    "divisor": [round(std * WHITE, 3) for std in IMAGENET_STD],
                    "channel_wise": True,
                },
            ],
        },
        "+settings": {"intensity": "official"},
    }
