"""Seeded splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.datasets.layout import find_layout
from mobileutr_monai.datasets.masks import MaskCoding
from mobileutr_monai.datasets.split import assign_folds, make_datalist, read_classes, read_table, split_groups

GROUPS = [["a"], ["b", "c"], ["d"], ["e", "f", "g"], ["h"], ["i"], ["j"]]


def test_the_split_of_a_seed_never_changes() -> None:
    # Results are published for splits that were made with this order of hashes.
    assert split_groups(GROUPS, {"validation": 3, "testing": 2}, "training", seed=0) == {
        "validation": ["b", "c", "j"],
        "testing": ["d", "i"],
        "training": ["a", "e", "f", "g", "h"],
    }


@pytest.mark.parametrize("seed", range(8))
def test_keeps_groups_whole_and_sizes_as_wanted(seed: int) -> None:
    sections = split_groups(GROUPS, {"validation": 3, "testing": 2}, "training", seed)
    assert {name: len(names) for name, names in sections.items()} == {"validation": 3, "testing": 2, "training": 5}
    assert sorted(chain(*sections.values())) == list("abcdefghij")
    for group in GROUPS:
        assert any(set(group) <= set(names) for names in sections.values())


@pytest.mark.parametrize(
    ("size", "number", "wanted", "got"),
    [
        (6, 4, 5, 6),
        (6, 4, 4, 6),
        (6, 4, 3, 0),
        (6, 4, 2, 0),
        (7, 6, 12, 14),
        (7, 6, 10, 7),
        (2, 2, 1, 0),
        (20, 2, 19, 20),
    ],
)
def test_a_section_that_is_short_takes_the_nearest_whole_group(size: int, number: int, wanted: int, got: int) -> None:
    groups = [[f"{group}/{index:02}" for index in range(size)] for group in range(number)]
    sections = split_groups(groups, {"validation": wanted}, "training", seed=0)
    assert (len(sections["validation"]), len(sections["training"])) == (got, size * number - got)


@pytest.mark.parametrize("groups", [GROUPS[::-1], [group[::-1] for group in GROUPS]])
def test_does_not_depend_on_the_order(groups: list[list[str]]) -> None:
    counts = {"validation": 3, "testing": 2}
    assert split_groups(groups, counts, "training", 0) == split_groups(GROUPS, counts, "training", 0)


def test_another_seed_gives_another_split() -> None:
    splits = {tuple(split_groups(GROUPS, {"validation": 3}, "training", seed)["validation"]) for seed in range(8)}
    assert len(splits) > 4


@pytest.mark.parametrize("counts", [{"validation": 10}, {"validation": 6, "testing": 4}, {"validation": 11}])
def test_rejects_sections_that_leave_nothing(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="of 10 cases and leave some for 'training'; take fewer"):
        split_groups(GROUPS, counts, "training", 0)


def test_folds_are_even_in_each_class_and_keep_groups_whole() -> None:
    strata = {
        "benign": [[f"b{i}"] for i in range(20)] + [["bx", "by", "bz"]],
        "malignant": [["m1", "m2"], ["m3"], ["m4"]],
    }
    fold_of = assign_folds(strata, 4, seed=0)
    assert sorted(Counter(fold for name, fold in fold_of.items() if name[0] == "b").values()) == [5, 6, 6, 6]
    assert fold_of["bx"] == fold_of["by"] == fold_of["bz"]
    assert fold_of["m1"] == fold_of["m2"] not in (fold_of["m3"], fold_of["m4"])
    assert fold_of == assign_folds({name: groups[::-1] for name, groups in reversed(strata.items())}, 4, seed=0)
    assert fold_of != assign_folds(strata, 4, seed=1)


@pytest.mark.parametrize("folds", [0, 1, 8])
def test_rejects_folds_that_would_be_empty(folds: int) -> None:
    with pytest.raises(ValueError, match=f"cannot make {folds} folds of 7 groups of cases; take 2 to 7"):
        assign_folds({"": GROUPS}, folds, seed=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Thirty different images of two classes by the beginning of their names, 20 benign and 10 malignant."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index, name in enumerate([f"benign {i}" for i in range(20)] + [f"malignant {i}" for i in range(10)]):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{name}.png")
        Image.fromarray(pixels // 128).save(tmp_path / f"masks/{name}.png")
    return tmp_path


def names_of(datalist: Mapping[str, Any], section: str) -> list[str]:
    return [Path(item["image"]).stem for item in datalist[section]]


def test_a_split_keeps_the_shares_of_the_classes(root: Path) -> None:
    datalist = make_datalist(root, {"validation": 0.2, "testing": 0.1}, 0, classes="prefix")
    counts = {
        section: Counter(name.split()[0] for name in names_of(datalist, section))
        for section in ("training", "validation", "testing")
    }
    assert counts == {
        "training": {"benign": 14, "malignant": 7},
        "validation": {"benign": 4, "malignant": 2},
        "testing": {"benign": 2, "malignant": 1},
    }
    assert "stratified by prefix (benign, malignant)" in datalist["description"]


def test_a_split_keeps_patients_together(root: Path) -> None:
    table = root / "patients.csv"
    names = sorted(path.stem for path in (root / "images").iterdir())
    table.write_text("image,group\n" + "".join(f"{name}.png,p{i // 3}\n" for i, name in enumerate(names)), "utf-8-sig")
    for seed in range(3):
        datalist = make_datalist(root, {"validation": 0.2, "testing": 0.2}, seed, groups=table)
        for section in ("training", "validation", "testing"):
            assert all(n == 3 for n in Counter(names.index(n) // 3 for n in names_of(datalist, section)).values())
    assert datalist["description"].endswith("10 groups of patients.csv kept together")


def test_folds_number_the_training_cases_and_leave_the_test_cases_aside(root: Path) -> None:
    datalist = make_datalist(root, {"testing": 0.1}, 0, folds=3)
    assert Counter(item["fold"] for item in datalist["training"]) == {0: 9, 1: 9, 2: 9}
    assert "validation" not in datalist
    assert all("fold" not in item for item in datalist["testing"])
    assert len({*names_of(datalist, "training"), *names_of(datalist, "testing")}) == 30


def test_a_datalist_says_how_it_was_made_and_changes_with_its_inputs(root: Path) -> None:
    made = [make_datalist(root, {"validation": 0.2}, 0, coding=MaskCoding("threshold", 0.5, files="folder"))]
    assert json.loads(json.dumps(made[0]))["mask_coding"] == {"kind": "threshold", "files": "folder", "threshold": 0.5}
    mask = root / "masks/benign 3.png"
    Image.new("L", (32, 32)).save(mask)
    made.append(make_datalist(root, {"validation": 0.2}, 0))
    assert made[0]["inputs_sha256"] != made[1]["inputs_sha256"]
    assert names_of(made[0], "validation") == names_of(made[1], "validation")


def test_classes_are_from_names_folders_or_a_table(root: Path) -> None:
    layout = find_layout(root)
    by_name = read_classes(layout, "prefix")
    assert Counter(by_name.values()) == {"benign": 20, "malignant": 10}
    table = root / "classes.csv"
    table.write_text("image,class,age\n" + "".join(f"{name},{c},5\n" for name, c in by_name.items()), "utf-8")
    assert read_classes(layout, table) == by_name
    assert read_classes(layout) == read_classes(layout, "none") == {}
    with pytest.raises(ValueError, match="not in folders of their classes; give --classes prefix"):
        read_classes(layout, "folder")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, FileNotFoundError, "does not exist; give a CSV file with the columns image and group"),
        ("name,group\na,1\n", ValueError, "line 1: the table must have the columns image and group"),
        ("", ValueError, "must have the columns image and group"),
        ("image,group\nbenign 0,1\n", ValueError, "has no group for 29 images, for example 'benign 1'; add the rows"),
        ("image,group\nbenign 0,\n", ValueError, "has no group for 30 images"),
    ],
)
def test_names_a_table_that_cannot_be_used(text: str | None, error: type[Exception], message: str, root: Path) -> None:
    if text is not None:
        (root / "table.csv").write_text(text)
    with pytest.raises(error, match=message):
        read_table(root / "table.csv", "group", find_layout(root))


def draw_folders(root: Path, folders: Mapping[str, int]) -> Path:
    """Draws folders with images and their masks next to them: name of the folder -> number of images."""
    seed = 0
    for folder, number in folders.items():
        (root / folder).mkdir(parents=True)
        for index in range(number):
            pixels = np.random.default_rng(seed := seed + 1).integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"img{index}.jpg")
            Image.fromarray(pixels // 128 * 255).save(root / folder / f"img{index}_mask.png")
    return root


# Folders with their numbers of images, and whether they are classes.
FOLDERS: dict[str, tuple[dict[str, int], bool]] = {
    "BUSI": ({"benign": 8, "malignant": 6, "normal": 5}, True),
    "two small classes": ({"benign": 4, "malignant": 4}, True),
    "three grades": ({"grade1": 5, "grade2": 5, "grade3": 5}, True),
    "patients": ({f"P{index:02}": 3 for index in range(8)}, False),
    "patients by name": ({name: 3 for name in ("abel", "berg", "cohn", "diaz")}, False),
    "numbers": ({f"{index}": 9 for index in range(5)}, False),
    "many names": ({f"{chr(97 + index)}": 12 for index in range(11)}, False),
}


@pytest.mark.parametrize(("folders", "classes"), FOLDERS.values(), ids=FOLDERS)
def test_folders_are_classes_or_patients_and_it_is_said_which(
    folders: dict[str, int], classes: bool, tmp_path: Path
) -> None:
    datalist = make_datalist(draw_folders(tmp_path, folders), {"validation": 0.25}, 0)
    sides = [{Path(item["image"]).parent.name for item in datalist[key]} for key in ("training", "validation")]
    assert datalist["training"] and datalist["validation"]
    if classes:
        assert sides[0] == sides[1] == set(folders)
        assert f"stratified by folder ({', '.join(sorted(folders))})" in datalist["description"]
    else:
        assert not sides[0] & sides[1]
        assert f"{len(folders)} groups of the folders kept together" in datalist["description"]
        assert "stratified" not in datalist["description"]


def test_groups_take_the_place_of_folders_as_classes(tmp_path: Path) -> None:
    root = draw_folders(tmp_path / "data", {"left": 8, "right": 8})
    table = tmp_path / "groups.csv"
    rows = [f"{side}/img{index},{index // 2}" for side in ("left", "right") for index in range(8)]
    table.write_text("image,group\n" + "\n".join(rows))
    datalist = make_datalist(root, {"validation": 0.25}, 0, groups=table)
    assert len(datalist["validation"]) == 4
    assert datalist["description"].endswith("4 groups of groups.csv kept together")
    both = make_datalist(root, {"validation": 0.25}, 0, groups=table, classes="folder")["description"]
    assert both.endswith("4 groups of groups.csv kept together, stratified by folder (left, right)")
    assert make_datalist(root, {"validation": 0.5}, 0, groups="folder")["validation"]


def test_four_patients_make_three_sections(tmp_path: Path) -> None:
    root = draw_folders(tmp_path, {"all": 24})
    (root / "g.csv").write_text("image,group\n" + "".join(f"all/img{i},p{i // 6}\n" for i in range(24)))
    datalist = make_datalist(root, {"validation": 0.2, "testing": 0.2}, 0, groups=root / "g.csv")
    assert {key: len(datalist[key]) for key in ("training", "validation", "testing")} == {
        "training": 12, "validation": 6, "testing": 6,
    }  # fmt: skip


def test_a_section_that_would_be_empty_is_an_error(tmp_path: Path) -> None:
    root = draw_folders(tmp_path, {"all": 12})
    (root / "g.csv").write_text("image,group\n" + "".join(f"all/img{i},p{i % 2}\n" for i in range(12)))
    with pytest.raises(ValueError, match="'testing' would be empty: 2 groups of cases for 3 sections; add cases"):
        make_datalist(root, {"validation": 0.2, "testing": 0.2}, 0, groups=root / "g.csv")


def test_classes_too_small_for_a_share_still_give_a_validation(tmp_path: Path) -> None:
    root = draw_folders(tmp_path, {"a": 2, "b": 2})
    assert len(make_datalist(root, {"validation": 0.2}, 0, classes="folder")["validation"]) == 1
