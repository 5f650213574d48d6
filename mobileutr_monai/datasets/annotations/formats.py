"""Readers of outlines: COCO, labelme, VIA, CVAT XML and YOLO.

Each yields polygons, of COCO run lengths, too, with the names of their image and label. What is no outline (boxes,
points) is an error that names the file; nothing is left out in silence.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mobileutr_monai.core.text import pluralize

__all__ = ["FORMATS", "Outline", "recognise_format"]


class Outline(NamedTuple):
    """A polygon of an image, or a mask of it in run lengths.

    Attributes:
        image: name of the image's file.
        label: name of the label.
        points: (x, y) in pixels; of YOLO, in shares of the image's width and height.
        relative: whether points are shares.
        runs: instead of points, COCO's run lengths: ``size`` (rows, columns) and ``counts``, compressed or not.
    """

    image: str
    label: str
    points: list[tuple[float, float]]
    relative: bool = False
    runs: dict[str, Any] | None = None


def recognise_format(source: Path) -> str:
    """Returns the format of a file or folder of annotations.

    Raises:
        ValueError: it is none of those in ``FORMATS``.
    """
    if source.is_dir():
        if any(source.glob("*.json")):
            return "labelme"
        if any(source.glob("*.txt")):
            return "yolo"
    elif source.suffix.lower() == ".xml":
        return "cvat"
    elif source.suffix.lower() == ".json":
        content = _read_json(source)
        if "annotations" in content and "images" in content:
            return "coco"
        if "shapes" in content:
            return "labelme"
        entries = content.get("_via_img_metadata", content)
        if entries and all(isinstance(entry, dict) and "regions" in entry for entry in entries.values()):
            return "via"
    raise ValueError(
        f"{source} is not recognised as COCO, VIA or labelme JSON, CVAT XML, or a folder of labelme or YOLO files; "
        "give --format"
    )


def _read_coco(source: Path) -> Iterator[Outline]:
    content = _read_json(source)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    images = {image["id"]: str(image["file_name"]) for image in content["images"]}
    for annotation in content["annotations"]:
        parts = annotation.get("segmentation")
        if isinstance(parts, dict) and {"size", "counts"} <= parts.keys():
            yield Outline(images[annotation["image_id"]], names[annotation["category_id"]], [], runs=parts)
            continue
        if not isinstance(parts, list) or not parts:
            raise ValueError(
                f"{source}: annotation {annotation.get('id')} has neither a polygon nor run lengths; export it with "
                "polygons or masks, not as boxes"
            )
        for part in parts:
            yield Outline(images[annotation["image_id"]], names[annotation["category_id"]], _pairs(part))


def _read_labelme(source: Path) -> Iterator[Outline]:
    for path in sorted(source.glob("*.json")) if source.is_dir() else [source]:
        content = _read_json(path)
        image = str(content.get("imagePath") or path.with_suffix(".png").name).replace("\\", "/").rpartition("/")[2]
        for shape in content["shapes"]:
            points = [(float(x), float(y)) for x, y in shape["points"]]
            kind = shape.get("shape_type", "polygon")
            if kind == "rectangle":
                (x0, y0), (x1, y1) = points
                points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
            elif kind != "polygon":
                raise ValueError(f"{path}: a {kind} outlines nothing; draw it as a polygon")
            yield Outline(image, str(shape["label"]), points)


def _read_via(source: Path) -> Iterator[Outline]:
    content = _read_json(source)
    for entry in content.get("_via_img_metadata", content).values():
        regions = entry["regions"]
        for region in regions.values() if isinstance(regions, dict) else regions:
            shape, attributes = region["shape_attributes"], region.get("region_attributes") or {}
            label = str(next((value for value in attributes.values() if value), "label"))
            if shape["name"] == "rect":
                x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
                points = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
            elif shape["name"] in ("polygon", "polyline"):
                points = [
                    (float(x), float(y)) for x, y in zip(shape["all_points_x"], shape["all_points_y"], strict=True)
                ]
            else:
                raise ValueError(f"{source}: {entry['filename']} has a {shape['name']}; draw it as a polygon")
            yield Outline(str(entry["filename"]), label, points)


def _read_cvat(source: Path) -> Iterator[Outline]:
    text = source.read_text(encoding="utf-8-sig")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{source} defines entities of its own, which CVAT does not write; export it again")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # without entities there is nothing to expand
    except ElementTree.ParseError as error:
        raise ValueError(f"{source} is not XML: {error}; export it again") from None
    for image in root.iter("image"):
        name = image.attrib["name"].rpartition("/")[2]
        for shape in image:
            if shape.tag == "tag":
                continue
            if shape.tag != "polygon":
                raise ValueError(f"{source}: {name} has a {shape.tag}; draw it as a polygon")
            points = [tuple(map(float, point.split(","))) for point in shape.attrib["points"].split(";")]
            yield Outline(name, shape.attrib["label"], [(x, y) for x, y in points])


def _read_yolo(source: Path) -> Iterator[Outline]:
    listing = next((path for path in (source / "classes.txt", source.parent / "classes.txt") if path.is_file()), None)
    names = listing.read_text(encoding="utf-8").split("\n") if listing else []
    for path in sorted(source.glob("*.txt")):
        if path.name == "classes.txt":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            cells = line.split()
            if not cells:
                continue
            if len(cells) < 7 or len(cells) % 2 == 0:
                raise ValueError(
                    f"{path}, line {number}: {pluralize(len(cells), 'number')}, a polygon has a class and 3 points or "
                    "more; boxes outline nothing"
                )
            index = int(cells[0])
            label = names[index].strip() if index < len(names) else f"class{index}"
            yield Outline(path.stem, label, _pairs([float(cell) for cell in cells[1:]]), relative=True)


FORMATS: dict[str, Callable[[Path], Iterator[Outline]]] = {
    "coco": _read_coco,
    "labelme": _read_labelme,
    "via": _read_via,
    "cvat": _read_cvat,
    "yolo": _read_yolo,
}


def _pairs(values: list[float]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(values[::2], values[1::2], strict=True)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; export it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not an object of annotations; export it again")
    return content
