"""Pairs of images and masks, and the lists that say which case is for training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.datasets.datalist import load_datalist, load_mask_coding, pair_cases, select_sections
from mobileutr_monai.datasets.masks import MaskCoding
from mobileutr_monai.datasets.split import make_datalist

NAMES = ("a", "b", "c")


def touch(root: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write_json(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def names_of(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["image"]).stem for item in items]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in the authors' layout, with one class and three cases; the files are empty."""
    touch(tmp_path, (f"{folder}/{name}.png" for folder, name in product(("images", "masks/0"), NAMES)))
    return tmp_path


@pytest.mark.parametrize("classes", [("0",), ("0", "1"), tuple(map(str, range(12))), ("liver", "spleen")])
def test_pairs_an_image_with_its_mask_of_every_class_in_order(classes: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, (f"images/{name}.jpg" for name in NAMES))
    touch(tmp_path, (f"masks/{folder}/{name}.png" for folder, name in product(reversed(classes), NAMES)))
    cases = pair_cases(tmp_path)
    assert list(cases) == list(NAMES)
    assert cases["b"] == {
        "image": str(tmp_path / "images/b.jpg"),
        "label": [str(tmp_path / f"masks/{folder}/b.png") for folder in classes],
    }


def test_takes_suffixes_in_capitals_and_leaves_other_files_out(tmp_path: Path) -> None:
    touch(tmp_path, ("images/a.JPG", "masks/0/a.PNG", "images/a.txt", "images/Thumbs.db"))
    cases = pair_cases(tmp_path)
    assert cases == {"a": {"image": str(tmp_path / "images/a.JPG"), "label": [str(tmp_path / "masks/0/a.PNG")]}}


def test_leaves_hidden_files_and_folders_out(root: Path) -> None:
    touch(root, ("images/._a.png", "masks/0/._a.png", "masks/.ipynb_checkpoints/a.png"))
    cases = pair_cases(root)
    assert list(cases) == list(NAMES)
    assert cases["a"]["label"] == [str(root / "masks/0/a.png")]


# What is there besides the three whole cases, and how the message names it.
UNPAIRED: dict[str, tuple[tuple[str, ...], type[Exception], str]] = {
    "no mask": (("images/d.jpg",), ValueError, r"masks/0 has no mask of 1 image, for example 'd\.jpg'"),
    "no image": (("masks/0/d.png",), ValueError, r"masks/0 has 1 mask without an image, for example 'd\.png'"),
    "no second mask": (("masks/1/a.png",), ValueError, r"masks/1 has no mask of 2 images, for example 'b\.png'"),
    "image twice": (("images/a.jpg",), ValueError, r"images/a\.jpg and a\.png have the same name"),
    "mask twice": (("masks/0/c.bmp",), ValueError, r"masks/0/c\.bmp and c\.png have the same name"),
}


@pytest.mark.parametrize(("extra", "error", "message"), UNPAIRED.values(), ids=UNPAIRED)
def test_names_what_cannot_be_paired(extra: tuple[str, ...], error: type[Exception], message: str, root: Path) -> None:
    touch(root, extra)
    with pytest.raises(error, match=message):
        pair_cases(root)


@pytest.mark.parametrize("paths", [(), ("images/a.png",), ("masks/0/a.png",), ("images/b.png", "masks/.a.png")])
def test_names_a_folder_without_the_layout(paths: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, paths)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} has .*; docs/own_data.md"):
        pair_cases(tmp_path)


@pytest.mark.parametrize("given", [True, False])
def test_resolves_the_paths_of_a_json_list_against_the_folder(given: bool, root: Path) -> None:
    content = {
        "description": "three cases",
        "training": [{"image": "images/a.png", "label": ["masks/0/a.png"], "patient": 7}],
        "validation": [{"image": "images/b.png", "label": "masks/0/b.png"}],
        "testing": [{"image": str(root / "images/c.png")}],
    }
    path = write_json(root / ("other.json" if given else "datalist.json"), content)
    assert load_datalist(root, path if given else "") == {
        "training": [{"image": str(root / "images/a.png"), "label": [str(root / "masks/0/a.png")], "patient": 7}],
        "validation": [{"image": str(root / "images/b.png"), "label": str(root / "masks/0/b.png")}],
        "testing": [{"image": str(root / "images/c.png")}],
    }


# The content of a JSON list that cannot be used, and how the message, which begins with the list, goes on.
BAD_JSON: dict[str, tuple[Any, type[Exception], str]] = {
    "no JSON": ("training: [a.png]", ValueError, "datalist {path} is not JSON"),
    "a list": ([{"image": "images/a.png"}], ValueError, "datalist {path} must be an object with 'training'"),
    "no sections": ({"labels": {"0": "background"}}, ValueError, "datalist {path} has no lists of cases"),
    "no image": ({"training": [{"label": "a.png"}]}, ValueError, "datalist {path} has an entry without an image"),
    "plain paths": ({"training": ["images/a.png"]}, ValueError, "datalist {path} has an entry without an image"),
    "image missing": (
        {"training": [{"image": "images/z.png"}]},
        FileNotFoundError,
        "{root}/images/z.png, named as image in {path}, does not exist",
    ),
    "mask missing": (
        {"validation": [{"image": "images/a.png", "label": ["masks/0/a.png", "masks/1/a.png"]}]},
        FileNotFoundError,
        "{root}/masks/1/a.png, named as label in {path}, does not exist",
    ),
}


@pytest.mark.parametrize(("content", "error", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_names_the_json_list_that_cannot_be_used(
    content: Any, error: type[Exception], message: str, root: Path
) -> None:
    path = write_json(root / "datalist.json", content)
    with pytest.raises(error) as caught:
        load_datalist(root)
    assert message.format(root=root, path=path) in str(caught.value)


def test_a_path_that_differs_in_the_form_of_a_letter_is_told_so(root: Path) -> None:
    touch(root, ["images/\u00e4.png"])
    write_json(root / "datalist.json", {"training": [{"image": "images/a\u0308.png"}]})
    with pytest.raises(FileNotFoundError, match="does not exist, but for the form of a letter; make the list again"):
        load_datalist(root)


def test_plain_paths_to_test_on_are_images_without_label(root: Path) -> None:
    write_json(root / "datalist.json", {"training": [], "test": ["images/a.png"], "testing": ["images/b.png"]})
    assert load_datalist(root) == {
        "training": [],
        "test": [{"image": str(root / "images/a.png")}],
        "testing": [{"image": str(root / "images/b.png")}],
    }


def test_a_fold_is_held_out_of_the_training_cases(root: Path) -> None:
    items = [{"image": f"images/{name}.png", "fold": fold} for fold, name in enumerate(NAMES)]
    write_json(root / "datalist.json", {"training": items})
    sections = load_datalist(root, fold=2)
    assert (names_of(sections["training"]), names_of(sections["validation"])) == (["a", "b"], ["c"])
    with pytest.raises(ValueError, match="has no fold 3, only 0, 1, 2"):
        load_datalist(root, fold=3)


def test_the_fold_that_is_validated_on_is_said_where_none_is_given(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [{"image": f"images/{name}.png", "fold": fold} for fold, name in enumerate(NAMES)]
    write_json(root / "datalist.json", {"training": items})
    assert names_of(load_datalist(root)["validation"]) == ["a"]
    assert "validating on fold 0 of 0, 1, 2; choose another with --fold" in caplog.text


# What is in the folder, and the coding of its masks.
CODINGS: dict[str, tuple[dict[str, Any] | None, MaskCoding]] = {
    "declared": ({"training": [], "mask_coding": {"kind": "threshold", "threshold": 9}}, MaskCoding("threshold", 9)),
    "in short": ({"training": [], "mask_coding": "0/1"}, MaskCoding("threshold", 0.5)),
    "not declared": ({"training": []}, MaskCoding()),
    "no list": (None, MaskCoding(files="folder")),
}


@pytest.mark.parametrize(("content", "coding"), CODINGS.values(), ids=CODINGS)
def test_the_mask_coding_is_what_the_list_declares(
    content: dict[str, Any] | None, coding: MaskCoding, root: Path
) -> None:
    if content is not None:
        write_json(root / "datalist.json", content)
    assert load_mask_coding(root) == coding


def test_a_folder_that_does_not_exist_has_the_usual_coding(tmp_path: Path) -> None:
    assert load_mask_coding(tmp_path / "nowhere") == MaskCoding()


def test_names_a_json_list_that_does_not_exist(root: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"datalist '.*nowhere\.json' does not exist; mobileutr split makes one"
    ):
        load_datalist(root, root / "nowhere.json")


def test_names_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset_dir '.*nowhere' is not a folder"):
        load_datalist(tmp_path / "nowhere")


# Text lists (path -> names) in a folder, and what is trained and validated on for which fold.
Lists = dict[str, str]
TEXT_LISTS: dict[str, tuple[Lists, int, str, str]] = {
    "in the folder": ({"busi_train1.txt": "ab", "busi_val1.txt": "c"}, 1, "ab", "c"),
    "in splits": ({"splits/busi_train1.txt": "ab", "splits/busi_val1.txt": "c"}, 1, "ab", "c"),
    "order kept": ({"train1.txt": "ca", "val1.txt": "b"}, 1, "ca", "b"),
    "second fold": ({"train1.txt": "ab", "val1.txt": "c", "train2.txt": "bc", "val2.txt": "a"}, 2, "bc", "a"),
    "unnumbered": ({"train.txt": "ab", "val.txt": "c"}, 1, "ab", "c"),
    "numbered first": ({"train.txt": "ab", "val.txt": "c", "train1.txt": "bc", "val1.txt": "a"}, 1, "bc", "a"),
}


@pytest.mark.parametrize(("lists", "fold", "training", "validation"), TEXT_LISTS.values(), ids=TEXT_LISTS)
def test_selects_the_cases_of_text_lists(lists: Lists, fold: int, training: str, validation: str, root: Path) -> None:
    for path, names in lists.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text("\n\n".join(names) + " \n", encoding="utf-8")
    sections = load_datalist(root, fold=fold)
    assert names_of(sections["training"]) == list(training)
    assert names_of(sections["validation"]) == list(validation)
    assert sections["validation"][0] == pair_cases(root)[validation[0]]


def test_lists_that_begin_with_a_byte_order_mark_are_read(root: Path) -> None:
    (root / "train1.txt").write_text("a\nb\n", encoding="utf-8-sig")
    (root / "val1.txt").write_text("c\n", encoding="utf-8-sig")
    assert names_of(load_datalist(root)["training"]) == ["a", "b"]
    (root / "datalist.json").write_text('{"training": []}', encoding="utf-8-sig")
    assert load_datalist(root) == {"training": []}


def test_names_two_text_lists_that_could_be_meant(root: Path) -> None:
    touch(root, ("a_train1.txt", "b_train1.txt", "a_val1.txt"))
    with pytest.raises(ValueError, match=r"2 lists that could be meant, a_train1\.txt and b_train1\.txt; leave one"):
        load_datalist(root)


def test_names_a_case_of_a_text_list_that_has_no_image(root: Path) -> None:
    (root / "train1.txt").write_text("a\nb\nx\ny\n")
    (root / "val1.txt").write_text("c\n")
    with pytest.raises(ValueError, match=r"train1\.txt names 2 cases without an image, for example 'x'"):
        load_datalist(root)


@pytest.mark.parametrize("lists", [(), ("train1.txt",), ("train2.txt", "val2.txt")])
def test_says_how_to_make_a_list_when_there_is_none(lists: tuple[str, ...], root: Path) -> None:
    touch(root, lists)
    with pytest.raises(FileNotFoundError, match=rf"no lists \*_train1\.txt.* mobileutr split {root} --output {root}"):
        load_datalist(root)


def draw_image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)


Draw = Callable[[Iterable[int]], Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws the given ones of twenty cases into a folder of their own; cases 18 and 19 are copies of 0 and 1."""

    def _draw(order: Iterable[int]) -> Path:
        root = tmp_path / f"dataset{len(list(tmp_path.iterdir()))}"
        for folder in ("images", "masks/0"):
            (root / folder).mkdir(parents=True)
        for index in order:
            draw_image(index % 18).save(root / "images" / f"case{index:02}.png")
            Image.new("1", (48, 48)).save(root / "masks/0" / f"case{index:02}.png")
        return root

    return _draw


SHARES = {"validation": 0.2, "testing": 0.1}


def test_puts_every_case_into_one_section_and_copies_into_the_same(draw: Draw) -> None:
    root = draw(range(20))
    for seed in range(5):
        datalist = make_datalist(root, SHARES, seed)
        sections = {name: names_of(items) for name, items in datalist.items() if isinstance(items, list)}
        assert sorted(chain(*sections.values())) == [f"case{index:02}" for index in range(20)]
        assert {name: len(names) for name, names in sections.items()} == {"training": 14, "validation": 4, "testing": 2}
        for first, second in (("case00", "case18"), ("case01", "case19")):
            assert any({first, second} <= set(names) for names in sections.values())
        assert datalist["description"] == f"seed {seed}, 2 pairs of near-duplicates kept together"


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_files(draw: Draw) -> None:
    first, second = draw(range(20)), draw(reversed(range(20)))
    assert make_datalist(first, SHARES, 0) == make_datalist(second, SHARES, 0)
    assert make_datalist(first, SHARES, 0)["validation"] != make_datalist(first, SHARES, 1)["validation"]


def test_what_is_made_can_be_loaded_from_another_place(draw: Draw) -> None:
    root = draw(range(5))
    made = make_datalist(root, {"validation": 0.2, "testing": 0.0}, 0)
    assert {"image": "images/case00.png", "label": ["masks/0/case00.png"]} in made["training"] + made["validation"]
    write_json(root / "datalist.json", made)
    moved = root.rename(root.with_name("moved"))
    loaded = load_datalist(moved)
    assert {name: names_of(items) for name, items in loaded.items()} == {
        name: names_of(made[name]) for name in ("validation", "training")
    }
    assert loaded["validation"][0] == pair_cases(moved)[names_of(loaded["validation"])[0]]


@pytest.mark.parametrize("shares", [{"validation": 0.95}, {"validation": 0.5, "testing": 0.5}])
def test_rejects_shares_that_leave_nothing_to_train_on(shares: dict[str, float], draw: Draw) -> None:
    with pytest.raises(ValueError, match="cannot take 4 of 4 cases and leave some for 'training'; take fewer"):
        make_datalist(draw(range(4)), shares, 0)


def test_sections_are_joined_in_order():
    datalist = {"training": [{"image": "a"}], "more": [{"image": "b"}], "empty": []}
    assert select_sections(datalist, ["more", "training"]) == [{"image": "b"}, {"image": "a"}]


@pytest.mark.parametrize(("names", "message"), [(["testing"], "no section 'testing'"), (["empty"], "have no cases")])
def test_sections_that_give_no_cases_are_named(names, message):
    with pytest.raises(ValueError, match=message):
        select_sections({"training": [{"image": "a"}], "empty": []}, names)
