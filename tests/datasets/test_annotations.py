"""Masks drawn from the files of annotation tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.__main__ import main

SQUARE = [(10, 5), (29, 5), (29, 14), (10, 14)]
TRIANGLE = [(2, 20), (12, 20), (2, 28)]
SHAPES = {"lesion": SQUARE, "shadow": TRIANGLE}
SIZE = (40, 30)


def save(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save_coco(folder: Path) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "sub/a.png"}],
        "categories": [{"id": 1, "name": "lesion"}, {"id": 2, "name": "shadow"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": i, "segmentation": [[value for point in shape for value in point]]}
            for i, shape in enumerate(SHAPES.values(), start=1)
        ],
    }
    return save(folder / "coco.json", json.dumps(content))


def save_labelme(folder: Path) -> Path:
    shapes = [
        {"label": "lesion", "points": [SQUARE[0], SQUARE[2]], "shape_type": "rectangle"},
        {"label": "shadow", "points": TRIANGLE, "shape_type": "polygon"},
    ]
    return save(folder / "labelme" / "a.json", json.dumps({"imagePath": "..\\images\\a.png", "shapes": shapes})).parent


def save_via(folder: Path) -> Path:
    regions = [
        {
            "shape_attributes": {
                "name": "polygon",
                **dict(zip(("all_points_x", "all_points_y"), zip(*shape, strict=True), strict=True)),
            },
            "region_attributes": {"kind": label},
        }
        for label, shape in SHAPES.items()
    ]
    return save(folder / "via.json", json.dumps({"a.png123": {"filename": "a.png", "regions": regions}}))


def save_cvat(folder: Path) -> Path:
    polygons = "".join(
        f'<polygon label="{label}" points="{";".join(f"{x},{y}" for x, y in shape)}"/>'
        for label, shape in SHAPES.items()
    )
    return save(folder / "cvat.xml", f'<annotations><image name="a.png">{polygons}</image></annotations>')


def save_yolo(folder: Path) -> Path:
    lines = [
        " ".join([str(index), *(str(value) for x, y in shape for value in (x / SIZE[0], y / SIZE[1]))])
        for index, shape in enumerate(SHAPES.values())
    ]
    save(folder / "yolo" / "a.txt", "\n".join(lines))
    return save(folder / "yolo" / "classes.txt", "lesion\nshadow\n").parent


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("L", SIZE, 80).save(folder / f"{name}.png")
    return folder


def convert(source: Path, images: Path, output: Path, *options: str) -> int:
    return main(["convert-labels", str(source), "--images", str(images), "--output", str(output), *options])


@pytest.mark.parametrize("save_annotations", [save_coco, save_labelme, save_via, save_cvat, save_yolo])
def test_masks_are_drawn_of_every_format(
    save_annotations: Callable[[Path], Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(save_annotations(tmp_path), images, tmp_path / "out") == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    expected = np.zeros(SIZE[::-1], np.uint8)
    expected[5:15, 10:30] = 1
    assert (mask[:18] == expected[:18]).all()
    assert set(np.unique(mask[18:])) == {0, 2}
    assert not np.asarray(Image.open(tmp_path / "out" / "masks" / "b.png")).any()
    said = capsys.readouterr().out
    assert "1 lesion: 1 outline" in said and "2 shadow: 1 outline" in said
    assert "1 image without an outline, their masks are empty, such as b.png" in said


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            '{"images": [], "categories": [], "annotations": [{"id": 3}]}',
            "c.json",
            "annotation 3 has neither a polygon",
        ),
        (
            '{"shapes": [{"label": "a", "points": [[1, 2]], "shape_type": "point"}]}',
            "l.json",
            "a point outlines nothing",
        ),
        ("<annotations><image name='a.png'><box label='a'/></image></annotations>", "c.xml", "a.png has a box"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "c.xml", "defines entities"),
        ('{"a": 1}', "x.json", "is not recognised"),
        ("no json", "x.json", "is not JSON"),
    ],
)
def test_what_is_no_outline_is_said(
    text: str, name: str, message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(save(tmp_path / name, text), images, tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_labels_have_the_values_that_are_asked_for(images: Path, tmp_path: Path) -> None:
    assert convert(save_coco(tmp_path), images, tmp_path / "out", "--labels", "shadow,lesion") == 0
    assert np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))[8, 20] == 2


def test_images_that_are_not_there_are_said(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(save_coco(tmp_path).read_text())
    content["images"].append({"id": 8, "file_name": "gone.png"})
    content["annotations"].append({"id": 9, "image_id": 8, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]})
    assert convert(save(tmp_path / "more.json", json.dumps(content)), images, tmp_path / "out") == 1
    assert "1 image not there, such as gone.png" in capsys.readouterr().out


def save_runs(folder: Path, compressed: bool) -> Path:
    """Writes the shapes as masks: runs of background and mask in turn, down the columns."""
    content = json.loads(save_coco(folder).read_text())
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[5:15, 10:30] = 1
    flat = np.concatenate([[0], mask.T.ravel(), [0]])
    ends = np.flatnonzero(np.diff(flat))
    runs = {"size": [30, 40], "counts": np.diff([0, *ends, mask.size]).tolist()}
    if compressed:
        coco = pytest.importorskip("pycocotools.mask")
        runs["counts"] = coco.frPyObjects(runs, 30, 40)["counts"].decode()
    content["annotations"][0]["segmentation"] = runs
    return save(folder / "runs.json", json.dumps(content))


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_of_coco_are_read_next_to_polygons(compressed: bool, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    assert convert(save_runs(tmp_path, compressed), images, tmp_path / "out") == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    assert (mask[5:15, 10:30] == 1).all() and (mask == 1).sum() == 200 and (mask == 2).any()


@pytest.mark.parametrize(
    ("counts", "size", "message"),
    [
        ([5, 5], [30, 40], "they cover 10 pixels of 1200"),
        ([1200], [40, 30], "a mask of 30 x 40, the image is 40 x 30"),
        ("~~~~", [30, 40], "a.png has run lengths that cannot be read"),
    ],
)
def test_run_lengths_of_another_image_are_refused(
    counts: object, size: list[int], message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocotools")
    content = json.loads(save_runs(tmp_path, False).read_text())
    content["annotations"][0]["segmentation"] = {"size": size, "counts": counts}
    assert convert(save(tmp_path / "bad.json", json.dumps(content)), images, tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_without_pycocotools_the_error_says_how_to_get_it(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert convert(save_runs(tmp_path, False), images, tmp_path / "out") == 2
    assert "pip install 'mobileutr-monai[coco]'" in capsys.readouterr().err
