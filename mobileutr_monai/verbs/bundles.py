"""``mobileutr convert`` and ``mobileutr new-bundle``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mobileutr_monai.verbs.files import keep_existing, require_file
from mobileutr_monai.verbs.options import positive, sides, spacing

__all__ = ["add_verbs"]


def add_verbs(verbs: Any) -> None:
    """Adds the verbs to the command's parser."""
    convert = verbs.add_parser("convert", help="convert a checkpoint of the authors' code to weights for a bundle")
    convert.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint (.pth or .pt), 2D or 3D, base or large"
    )
    convert.add_argument("--output", type=Path, required=True, metavar="FILE", help="state dict to write: model.pt")
    convert.add_argument(
        "--preprocessing",
        choices=("official",),
        help="also write NAME.overlay.json, a config with the authors' preprocessing for a 2D bundle",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace an existing FILE and its overlay")
    convert.set_defaults(verb=_convert)

    new = verbs.add_parser("new-bundle", help="make a bundle of your own from another, ready to train on your data")
    new.add_argument("name", metavar="NAME", help="name of the new folder, for example my_lesions")
    new.add_argument("--from", dest="parent", type=Path, required=True, metavar="BUNDLE", help="bundle to start from")
    new.add_argument("--labels", required=True, help="names of labels 1, 2 ..., separated by commas: lesion,shadow")
    new.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="parent folder of the bundle (default: here)"
    )
    new.add_argument(
        "--weights",
        choices=("parent", "none"),
        default="parent",
        help="parent (default): start from BUNDLE's weights, with a re-initialised output layer if the number of "
        "labels differs; none: start from random weights",
    )
    new.add_argument("--variant", choices=("base", "large"), help="size of the network (default: BUNDLE's)")
    new.add_argument("--in-channels", type=positive, metavar="N", help="channels of the images (default: BUNDLE's)")
    new.add_argument("--image-size", type=sides, metavar="H,W", help="2D: size of the network's input, in pixels")
    new.add_argument("--roi-size", type=sides, metavar="X,Y,Z", help="3D: size of the windows, in voxels")
    new.add_argument("--spacing", type=spacing, metavar="X,Y,Z", help="3D: voxel size, in mm")
    new.set_defaults(verb=_new_bundle)


def _convert(options: argparse.Namespace) -> int:
    from mobileutr_monai.core.folders import overlay_path

    official = options.preprocessing == "official"
    for path in (options.output, overlay_path(options.output)) if official else (options.output,):
        if options.checkpoint.resolve() != path.resolve():  # which has an error of its own
            keep_existing(path, options.overwrite)
    require_file(options.checkpoint, "checkpoint")
    from mobileutr_monai.bundle.convert import convert_checkpoint

    shape = convert_checkpoint(options.checkpoint, options.output, official)
    print(f"{options.output}: {shape}")
    if official:
        overlay = overlay_path(options.output)
        print(overlay.read_text(encoding="utf-8"), end="")
        print(f"{overlay}: the preprocessing above; in a 2D bundle's folder:")
        configs = f"['configs/inference.json','{overlay.resolve()}']"
        print(f'python -m monai.bundle run --config_file "{configs}" --weights {options.output.resolve()}')
    return 0


def _new_bundle(options: argparse.Namespace) -> int:
    from mobileutr_monai.core.folders import require_configs

    require_configs(options.parent)
    from mobileutr_monai.bundle.new_bundle import make_bundle

    labels = [label.strip() for label in options.labels.split(",")]
    pretrained = options.weights == "parent"
    given = {name: getattr(options, name) for name in ("variant", "in_channels", "image_size", "roi_size", "spacing")}
    settings = {name: value for name, value in given.items() if value is not None}
    made = make_bundle(options.name, options.parent, labels, options.output, pretrained=pretrained, settings=settings)
    folder = made.folder.resolve() if ".." in made.folder.parts else made.folder
    print(f"{folder}: {', '.join(f'{i} {label}' for i, label in enumerate(['background', *labels]))}")
    print(f"weights: {made.weights}")
    print(f"mobileutr train {folder} DATA{' --pretrained' if pretrained else ''}")
    return 0
