"""Copies sections of a datalist with black bars above and below each image, to score a bundle on them.

    python scripts/letterbox_datalist.py DATA --datalist FILE --sections testing --share 0.6 --output COPIES
    python scripts/score_bundle.py BUNDLE COPIES --datalist COPIES/FILE --sections testing --output OUT

``share`` is the share of the new height that the image takes. Masks get the same bars; pixels are not resampled.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")


def add_bars(source: Path, target: Path, share: float) -> None:
    """Writes a copy of an image, as PNG, in the middle of a frame of ``1 / share`` of its height."""
    with Image.open(source, formats=FORMATS) as image:
        height = round(image.height / share)
        framed = Image.new(image.mode, (image.width, height))
        framed.paste(image, (0, (height - image.height) // 2))
    target.parent.mkdir(parents=True, exist_ok=True)
    framed.save(target)


def main() -> None:
    """Writes the copies and their datalist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", required=True)
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--output", type=Path, required=True, help="folder of the copies")
    arguments = parser.parse_args()
    if not 0 < arguments.share <= 1:
        parser.error(f"--share must be in (0, 1], got {arguments.share}")
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    copies: dict[str, list[dict]] = {}
    for section in arguments.sections:
        copies[section] = []
        for item in datalist[section]:
            image, *labels = (str(Path(path).with_suffix(".png")) for path in (item["image"], *item["label"]))
            for source, target in zip((item["image"], *item["label"]), (image, *labels), strict=True):
                add_bars(arguments.data / source, arguments.output / target, arguments.share)
            copies[section].append({**item, "image": image, "label": labels})
    (arguments.output / arguments.datalist.name).write_text(json.dumps(copies) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
