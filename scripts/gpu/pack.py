"""Packs the images and masks of datalists, at the networks' size, so that they can travel to another machine.

    python scripts/make_datalists.py DATA      # writes the lists that are not kept, too
    python scripts/gpu/pack.py DATA --output PACK

``DATA`` holds ``busi/``, ``busbra/`` ...; a pack is one zip per bundle, with what ``scripts/gpu/train.py`` reads:
``index.json`` with the names of each section, images as WebP and masks as PNG. Lists that are only reported
stay at home.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (256, 256)
PACKS = {
    "breast": ("breast_ultrasound_segmentation", [f"busi_busbra_split{k}" for k in (1, 2, 3)], "L", 75),
    "colon": ("colon_endoscopy_segmentation", ["kvasir_cvc"], "RGB", 75),
    "skin": ("skin_dermoscopy_segmentation", ["isic2018_isic2017"], "RGB", 67),
}
LEFT_OUT = ("testing", "testing_busbra", "testing_cvc", "normal_testing", "duplicates")


def pack_bundle(data: Path, bundle: Path, lists: list[str], mode: str, quality: int) -> dict:
    """Returns ``items``: path -> (set, WebP, PNG), and ``lists``: name of the list -> section -> paths."""
    items: dict[str, tuple[str, bytes, bytes]] = {}
    sections: dict[str, dict[str, list[str]]] = {}
    for name in lists:
        datalist = json.loads((bundle / "datalists" / f"{name}.json").read_text(encoding="utf-8"))
        sections[name] = {}
        for section, listed in datalist.items():
            if section in LEFT_OUT:
                continue
            sections[name][section] = [item["image"] for item in listed]
            for item in listed:
                if item["image"] not in items:
                    items[item["image"]] = (item["set"], *_encode(data, item, mode, quality))
    return {"items": items, "lists": sections, "mode": mode}


def _encode(data: Path, item: dict, mode: str, quality: int) -> tuple[bytes, bytes]:
    image, mask = io.BytesIO(), io.BytesIO()
    with Image.open(data / item["image"], formats=("JPEG", "PNG")) as picture:
        picture.convert(mode).resize(SIZE, Image.Resampling.BILINEAR).save(image, "WEBP", quality=quality, method=5)
    labels = []
    for path in item["label"]:
        with Image.open(data / path, formats=("PNG",)) as picture:
            labels.append(np.asarray(picture.convert("L").resize(SIZE, Image.Resampling.NEAREST)) > 127)
    Image.fromarray(np.logical_or.reduce(labels)).save(mask, "PNG", optimize=True)
    return image.getvalue(), mask.getvalue()


def main() -> None:
    """Writes the packs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder of the packs")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, (bundle, lists, mode, quality) in PACKS.items():
        packed = pack_bundle(arguments.data, Path("bundles") / bundle, lists, mode, quality)
        path = arguments.output / f"{name}.pack"
        with zipfile.ZipFile(path, "w") as archive:
            index = {**packed, "items": {name: item[0] for name, item in packed["items"].items()}}
            archive.writestr("index.json", json.dumps(index))
            for i, (_, image, mask) in enumerate(packed["items"].values()):
                archive.writestr(f"{i}.webp", image)
                archive.writestr(f"{i}.png", mask)
        print(name, len(packed["items"]), f"{path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
