"""Files and folders from several places as the inputs of one run."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

OPTIONS = ("--workers", 0, "--no-overlays", "--no-page")


@pytest.fixture
def places(breast: Path, tmp_path: Path) -> Path:
    """A folder with images in several places."""
    one, two, three, four = sorted((breast / "sample_data" / "images").iterdir())[:4]
    for folder in ("a", "b/inner", "c"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(one, tmp_path / "a" / "one.jpg")
    shutil.copy(two, tmp_path / "a" / "two.jpg")
    shutil.copy(three, tmp_path / "b" / "inner" / "three.jpg")
    with ZipFile(tmp_path / "c" / "study.zip", "w") as archive:
        archive.write(four, "four.jpg")
    return tmp_path


def read_cases(output: Path) -> dict[str, str]:
    with (output / "report.csv").open(newline="") as file:
        return {row["case"]: row["output"] for row in csv.DictReader(file) if row["status"] == "ok"}


def test_one_file_is_segmented_alone_and_into_a_folder_next_to_it(
    mobileutr: Callable, breast: Path, places: Path
) -> None:
    process = mobileutr("predict", breast, "one.jpg", "--output", "out", *OPTIONS, cwd=places / "a")
    assert process.returncode == 0, process.stderr
    assert read_cases(places / "a" / "out") == {"one.jpg": "one_mask.png"}
    mobileutr("predict", breast, places / "a", "--output", places / "whole", *OPTIONS)
    # The folder of results in it is no input.
    assert set(read_cases(places / "whole")) == {"one.jpg", "two.jpg"}
    masks = [np.asarray(Image.open(places / folder / "one_mask.png")) for folder in ("a/out", "whole")]
    assert np.array_equal(*masks)


def test_names_are_relative_to_the_folder_that_holds_all_inputs(
    mobileutr: Callable, breast: Path, places: Path
) -> None:
    # Each once, though one is given twice; an option may stand before them.
    sources = ("a/two.jpg", "b", "c/study.zip", "a/../a/two.jpg")
    process = mobileutr("predict", breast, "--output", "out", *OPTIONS[:2], "--no-page", *sources, cwd=places)
    assert process.returncode == 0, process.stderr
    assert set(read_cases(places / "out")) == {"a/two.jpg", "b/inner/three.jpg", "c/study.zip/four.jpg"}
    assert (places / "out" / "b" / "inner" / "three_mask.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a/one.jpg", "nowhere.png", "--output", "out"), "no file or folder 'nowhere.png'"),
        (("a/one.jpg", "s3://bucket/x", "--output", "out"), "an address is segmented alone"),
        (("a", "b", "--list", "list.txt", "--output", "out"), "--list are relative to one folder"),
        (("a/one.jpg", "--output", "a"), "is the folder of the input one.jpg"),
        (("a", "b", "--output", "b/out"), "lies inside the input folder"),
        (("a/one.jpg", "--output", "memory://x", "--work", "w"), "cannot be combined with a list or an address"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], message: str, mobileutr: Callable, breast: Path, places: Path
) -> None:
    before = sorted(places.rglob("*"))
    process = mobileutr("predict", breast, *arguments, "--workers", 0, cwd=places)
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert message in line
    assert sorted(places.rglob("*")) == before


def test_webp_and_gif_are_read_like_png(mobileutr: Callable, breast: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    grey = Image.open(breast / "sample_data" / "images" / "malignant (53).jpg").convert("L")
    grey.save(tmp_path / "in" / "base.png")
    grey.save(tmp_path / "in" / "same.webp", lossless=True)
    grey.save(tmp_path / "in" / "same.gif")
    shutil.copy(tmp_path / "in" / "same.webp", tmp_path / "in" / "unnamed")
    frames = [grey.rotate(angle) for angle in (0, 90)]
    frames[0].save(tmp_path / "in" / "moving.gif", save_all=True, append_images=frames[1:])
    process = mobileutr("predict", breast, tmp_path / "in", "--output", tmp_path / "out", *OPTIONS)
    assert process.returncode == 1, process.stderr
    assert "it holds 2 images, and a mask is of one" in (tmp_path / "out" / "report.csv").read_text()
    cases = read_cases(tmp_path / "out")
    assert set(cases) == {"base.png", "same.webp", "same.gif", "unnamed"}
    masks = {name: np.asarray(Image.open(tmp_path / "out" / output)) for name, output in cases.items()}
    assert masks["base.png"].any()
    assert all(np.array_equal(mask, masks["base.png"]) for mask in masks.values())
