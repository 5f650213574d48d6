"""Masks drawn from outlines."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from mobileutr_monai.core.kinds import IMAGE_SUFFIXES
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.annotations.formats import FORMATS, Outline, recognise_format
from mobileutr_monai.datasets.annotations.run_lengths import decode_runs
from mobileutr_monai.readers.pillow_io import open_image

__all__ = ["Converted", "convert_labels", "describe"]


class Converted(NamedTuple):
    """What was drawn.

    Attributes:
        labels: names of the values 1, 2 ...
        outlines: label -> number of polygons.
        images: number of images that have a mask.
        empty: images without an outline; their masks are empty.
        missing: images that the annotations name and that are not there.
    """

    labels: list[str]
    outlines: Counter[str]
    images: int
    empty: list[str]
    missing: list[str]


def convert_labels(
    source: Path, images: Path, output: Path, file_format: str = "", labels: Sequence[str] = ()
) -> Converted:
    """Writes ``images/`` and ``masks/`` of indices, PNG, in the size of the images.

    Later polygons lie over earlier ones, as annotation tools draw them.

    Args:
        source: file or folder of annotations.
        images: folder of the images.
        file_format: name in ``FORMATS``; empty: recognised by content.
        labels: names in the order of their values; empty: all, sorted by name.

    Raises:
        FileExistsError: the output folder is there and not empty.
        ValueError: annotations cannot be read, a label is not in ``labels``, or no image is found.
    """
    if output.is_dir() and any(output.iterdir()):
        raise FileExistsError(f"{str(output)!r} is not empty; choose another --output")
    outlines = list(FORMATS[file_format or recognise_format(source)](source))
    names = list(labels) or sorted({outline.label for outline in outlines})
    unknown = sorted({outline.label for outline in outlines} - set(names))
    if unknown:
        raise ValueError(f"{source} has the label {unknown[0]!r}, which --labels does not name; add it")
    files = {path.name: path for path in sorted(images.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}
    by_stem = {path.stem: path for path in files.values()}
    if not files:
        raise ValueError(f"{images} has no images; give the folder that the annotations were made of")
    of_image: dict[str, list[Outline]] = {}
    missing = set()
    for outline in outlines:
        name = outline.image.replace("\\", "/").rpartition("/")[2]
        path = files.get(name) or by_stem.get(name if outline.relative else Path(name).stem)
        if path is None:
            missing.add(name)
        else:
            of_image.setdefault(path.name, []).append(outline)
    if not of_image:
        raise ValueError(f"none of the images that {source} names is in {images}")
    for folder in ("images", "masks"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        with open_image(path, "image") as image:
            size = image.size
        mask = Image.new("L", size)
        draw = ImageDraw.Draw(mask)
        for outline in of_image.get(name, []):
            value = 1 + names.index(outline.label)
            if outline.runs is not None:
                mask.paste(value, mask=decode_runs(outline.runs, size, f"{source}: {name}"))
                continue
            scale = size if outline.relative else (1, 1)
            draw.polygon([(x * scale[0], y * scale[1]) for x, y in outline.points], fill=value)
        mask.save(output / "masks" / f"{path.stem}.png")
        shutil.copyfile(path, output / "images" / name)
    counts = Counter(outline.label for outline in outlines)
    return Converted(names, counts, len(files), sorted(files.keys() - of_image.keys()), sorted(missing))


def describe(made: Converted, output: Path) -> str:
    """Returns what was drawn, a line each."""
    lines = [f"{output}: {pluralize(made.images, 'image')} with masks of indices"]
    lines += [
        f"{value} {name}: {pluralize(made.outlines[name], 'outline')}" for value, name in enumerate(made.labels, 1)
    ]
    for what, found in (("without an outline, their masks are empty", made.empty), ("not there", made.missing)):
        if found:
            lines.append(f"{pluralize(len(found), 'image')} {what}, such as {found[0]}")
    return "\n".join(lines)
