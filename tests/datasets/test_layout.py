"""Which mask belongs to which image."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileutr_monai.datasets.datalist import pair_cases
from mobileutr_monai.datasets.layout import find_layout

# Files of a folder, and name -> files of the mask.
LAYOUTS: dict[str, tuple[tuple[str, ...], str, dict[str, list[str]]]] = {
    "one folder per class": (
        ("images/a.jpg", "masks/0/a.png", "masks/1/a.png"),
        "folder",
        {"a": ["masks/0/a.png", "masks/1/a.png"]},
    ),
    "masks directly": (("images/a.jpg", "masks/a.png"), "folder", {"a": ["masks/a.png"]}),
    "masks with an ending": (
        ("images/a.jpg", "images/b.jpg", "masks/a_segmentation.png", "masks/b-Mask.png"),
        "folder",
        {"a": ["masks/a_segmentation.png"], "b": ["masks/b-Mask.png"]},
    ),
    "several files of a mask": (
        ("images/a.jpg", "masks/0/a_mask.png", "masks/0/a_mask_1.png"),
        "folder",
        {"a": ["masks/0/a_mask.png", "masks/0/a_mask_1.png"]},
    ),
    "images called masks": (("images/a_mask.png", "masks/a_mask.png"), "folder", {"a_mask": ["masks/a_mask.png"]}),
    "imgs and labels": (("imgs/a.jpg", "labels/a.png"), "folder", {"a": ["labels/a.png"]}),
    "names that differ in front": (
        ("images/img_000.png", "masks/mask_000.png"),
        "folder",
        {"img_000": ["masks/mask_000.png"]},
    ),
    "names that differ in front, side by side": (
        ("img_000.png", "mask_000.png", "img_001.png", "mask_001.png"),
        "merge",
        {"img_000": ["mask_000.png"], "img_001": ["mask_001.png"]},
    ),
    "an image called label": (("label_7.png", "label_7_mask.png"), "merge", {"label_7": ["label_7_mask.png"]}),
    "patients in images and masks": (
        ("images/P0/a.png", "masks/P0/a.png", "images/P1/a.png", "masks/P1/a_mask.png"),
        "folder",
        {"P0/a": ["masks/P0/a.png"], "P1/a": ["masks/P1/a_mask.png"]},
    ),
    "images and masks in patients": (
        ("P0/images/a.png", "P0/masks/a.png", "P1/images/a.png", "P1/masks/a.png"),
        "folder",
        {"P0/a": ["P0/masks/a.png"], "P1/a": ["P1/masks/a.png"]},
    ),
    "side by side": (("a.png", "a_mask.png", "a_mask_1.png"), "merge", {"a": ["a_mask.png", "a_mask_1.png"]}),
    "one folder per diagnosis": (
        ("benign/benign (1).png", "benign/benign (1)_mask.png", "normal/normal (1).png", "normal/normal (1)_mask.png"),
        "merge",
        {
            "benign/benign (1)": ["benign/benign (1)_mask.png"],
            "normal/normal (1)": ["normal/normal (1)_mask.png"],
        },
    ),
}


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize(("paths", "files", "masks"), LAYOUTS.values(), ids=LAYOUTS)
def test_pairs_images_and_masks(
    paths: tuple[str, ...], files: str, masks: dict[str, list[str]], tmp_path: Path
) -> None:
    touch(tmp_path, *paths)
    layout = find_layout(tmp_path)
    assert layout.files == files
    assert layout.left_out == layout.same_name == []
    cases = pair_cases(tmp_path)
    found = {name: [Path(p).relative_to(tmp_path).as_posix() for p in case["label"]] for name, case in cases.items()}
    assert found == masks


def test_folders_of_images_are_their_diagnosis(tmp_path: Path) -> None:
    touch(tmp_path, *LAYOUTS["one folder per diagnosis"][0])
    assert find_layout(tmp_path).diagnosis == {"benign/benign (1)": "benign", "normal/normal (1)": "normal"}


def test_notes_what_cannot_be_used(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/a.jpg", "images/b.png", "images/deep/c.png", "images/d.dcm", "masks/a.png")
    touch(tmp_path, "masks/z_mask.png")
    layout = find_layout(tmp_path)
    assert layout.same_name == [(tmp_path / "images/a.jpg", tmp_path / "images/a.png")]
    assert layout.without_mask(0) == ["b"]
    assert layout.orphans == [[tmp_path / "masks/z_mask.png"]]
    assert layout.left_out == [tmp_path / "images/d.dcm", tmp_path / "images/deep/c.png"]


def test_masks_lie_in_one_place(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "masks/0/a.png")
    with pytest.raises(ValueError, match="has masks and folders; put the masks into a folder of their class"):
        find_layout(tmp_path)


NFC, NFD = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize(
    "paths",
    [
        (f"images/{NFC}.png", f"masks/0/{NFD}.png"),
        (f"images/{NFD}.png", f"masks/{NFC}_mask.png"),
        (f"{NFC}/a.png", f"{NFC}/a_mask.png"),
        (f"{NFC}.png", f"{NFD}_mask.png"),
    ],
)
def test_names_that_differ_in_the_form_of_a_letter_only_go_together(paths: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *paths)
    (case,) = pair_cases(tmp_path).values()
    assert (case["image"], case["label"]) == (str(tmp_path / paths[0]), [str(tmp_path / paths[1])])


def test_two_files_of_one_name_in_two_forms_are_named(tmp_path: Path) -> None:
    touch(tmp_path, f"images/{NFC}.png", f"images/{NFD}.png", f"masks/{NFC}.png")
    with pytest.raises(ValueError, match="have the same name but for the form of a letter; rename or remove one"):
        pair_cases(tmp_path)


def test_links_to_folders_are_not_followed_and_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "data/benign/a.png", "data/benign/a_mask.png", "elsewhere/b.png", "elsewhere/b_mask.png")
    (tmp_path / "data/malignant").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/broken.png").symlink_to("nowhere.png")
    layout = find_layout(tmp_path / "data")
    assert list(layout.images) == ["benign/a"]
    assert {(ignored.path.name, ignored.reason) for ignored in layout.ignored} == {
        ("malignant", "a link to a folder"),
        ("broken.png", "broken link"),
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("images/a.png",), "has images/ but no masks/ \\(or labels/\\) next to it"),
        (("labels/a.png",), "has labels/ but no images/ \\(or imgs/\\) next to it"),
        (("images/a.png", "masks/notes.txt"), "no images in masks/"),
    ],
)
def test_says_what_is_missing_from_the_nearest_layout(files: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(FileNotFoundError, match=message):
        find_layout(tmp_path)
