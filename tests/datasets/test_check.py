"""What is found wrong with a data set before training."""

from __future__ import annotations

import csv
import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.datasets.check import ERROR, KINDS, Report, check_folder
from mobileutr_monai.datasets.check_cases import check_to_split
from mobileutr_monai.datasets.split import make_datalist
from tests.soak.cases_by_hand import CASES

POSTSCRIPT = CASES["postscript.png"]()
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIDE = 80


def draw_image(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 10), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def draw_mask(box: tuple[int, int, int, int] = (20, 20, 50, 50), size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four cases without a fault."""
    for folder in ("images", "masks/0"):
        (tmp_path / folder).mkdir(parents=True)
    for seed in range(4):
        draw_image(seed).save(tmp_path / f"images/case{seed}.png")
        draw_mask().save(tmp_path / f"masks/0/case{seed}.png")
    return tmp_path


def found(report: Report) -> dict[str, list[tuple[str, ...]]]:
    kinds: dict[str, list[tuple[str, ...]]] = {}
    for problem in report.problems:
        kinds.setdefault(problem.kind, []).append(problem.files)
    return kinds


def save_turned(root: Path, orientation: int, size: tuple[int, int], mask: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    draw_image(9, size).save(root / "images/new.jpg", exif=exif)
    draw_mask(size=mask).save(root / "masks/0/new.png")


def add_case(root: Path, image: Image.Image | None = None, mask: Image.Image | None = None, name: str = "new") -> None:
    (image or draw_image(9)).save(root / f"images/{name}.{'tif' if image and image.mode == 'F' else 'png'}")
    (mask or draw_mask(size=(image or draw_image(9)).size)).save(root / f"masks/0/{name}.png")


def deep(top: int) -> Image.Image:
    return Image.fromarray((np.asarray(draw_image(9)).astype(np.uint32) * top // 255).astype(np.uint16))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def with_alpha(low: int) -> Image.Image:
    image = draw_image(9).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((SIDE, SIDE)).point(lambda value: max(value, low)))
    return image


def save_frames(root: Path) -> None:
    draw_image(9).save(root / "images/new.tif", save_all=True, append_images=[draw_image(10)])
    draw_mask().save(root / "masks/0/new.png")


def put_pages(path: Path) -> None:
    path.write_bytes(CASES["tiff_million_pages.tif"]())


def put_header_of_pair(path: Path) -> None:
    image = nib.nifti1.Nifti1Pair(np.zeros((SIDE, SIDE), np.uint8), np.eye(4))
    path.write_bytes(image.header.binaryblock)


def put_huge_values(path: Path) -> None:
    values = np.zeros((SIDE, SIDE), np.float32)
    values[20:50, 20:50] = -1e30
    path.write_bytes(gzip.compress(nib.nifti1.Nifti1Image(values, np.eye(4)).to_bytes()))


# What is done to the folder, and the kinds of problem with the files that they name.
NEW = [("images/new.png",)]
NEW_MASK = [("masks/0/new.png",)]
FAULTS: dict[str, tuple[Callable[[Path], Any], dict[str, list[tuple[str, ...]]]]] = {
    "none": (lambda root: None, {}),
    "no mask": (lambda root: draw_image(9).save(root / "images/new.png"), {"missing_mask": NEW}),
    "no image": (lambda root: draw_mask().save(root / "masks/0/new.png"), {"extra_mask": NEW_MASK}),
    "same name": (
        lambda root: draw_image(9).save(root / "images/case0.bmp"),
        {"same_name": [("images/case0.bmp", "images/case0.png")]},
    ),
    "name in capitals": (
        lambda root: add_case(root, name="CASE0"),
        {"lower_case_name": [("images/CASE0.png", "images/case0.png")]},
    ),
    "cut image": (lambda root: (add_case(root), cut(root / "images/new.png")), {"unreadable_image": NEW}),
    "cut mask": (
        lambda root: (add_case(root, mask=draw_image(3)), cut(root / "masks/0/new.png")),
        {"unreadable_mask": NEW_MASK},
    ),
    "no image inside": (
        lambda root: (add_case(root), (root / "images/new.png").write_text("")),
        {"unreadable_image": NEW},
    ),
    "other size": (lambda root: add_case(root, mask=draw_mask(size=(SIDE, 70))), {"size_mismatch": NEW_MASK}),
    "empty": (lambda root: add_case(root, mask=draw_mask((0, 0, 0, 0))), {"empty_mask": NEW_MASK}),
    "full": (lambda root: add_case(root, mask=draw_mask((0, 0, SIDE, SIDE - 2))), {"full_mask": NEW_MASK}),
    "another value": (
        lambda root: add_case(root, mask=draw_mask().point(lambda value: value * 128 // 255)),
        {"mask_coding": [()]},
    ),
    "16 bit": (lambda root: add_case(root, deep(65535)), {"16_bit": NEW}),
    "12 of 16 bit": (lambda root: add_case(root, deep(4000)), {"narrow_16_bit": NEW}),
    "float": (lambda root: add_case(root, draw_image(9).convert("F")), {"float": [("images/new.tif",)]}),
    "alpha": (lambda root: add_case(root, with_alpha(0)), {"alpha": NEW}),
    "opaque": (lambda root: add_case(root, with_alpha(255)), {}),
    "turned": (
        lambda root: save_turned(root, 6, (SIDE, 70), (SIDE, 70)),
        {"rotated_image": [("images/new.jpg",)], "exif_rotation": [("images/new.jpg",)]},
    ),
    "upside down": (
        lambda root: save_turned(root, 3, (SIDE, SIDE), (SIDE, SIDE)),
        {"exif_rotation": [("images/new.jpg",)]},
    ),
    "frames": (save_frames, {"several_frames": [("images/new.tif",)]}),
    "tiny": (lambda root: add_case(root, draw_image(9, (SIDE, 40))), {"tiny_image": NEW}),
    "huge": (lambda root: add_case(root, draw_image(9, (4200, 70))), {"huge_image": NEW}),
    "blank": (lambda root: add_case(root, Image.new("L", (SIDE, SIDE), 7)), {"blank_image": NEW}),
    "copy": (
        lambda root: add_case(root, draw_image(0)),
        {"exact_duplicate": [("images/case0.png", "images/new.png")]},
    ),
    "copy with another mask": (
        lambda root: add_case(root, draw_image(0), draw_mask((50, 50, 70, 70))),
        {key: [("images/case0.png", "images/new.png")] for key in ("duplicate_conflict", "exact_duplicate")},
    ),
    "nearly a copy": (
        lambda root: add_case(root, draw_image(0).point(lambda value: value // 2)),
        {"near_duplicate": [("images/case0.png", "images/new.png")]},
    ),
    "nearly a copy with another mask": (
        lambda root: add_case(root, draw_image(0).point(lambda value: value // 2), draw_mask((50, 50, 70, 70))),
        {key: [("images/case0.png", "images/new.png")] for key in ("near_duplicate", "mask_conflict")},
    ),
    "another format": (lambda root: (root / "images/scan.dcm").touch(), {"left_out": [("images/scan.dcm",)]}),
    "a link to a folder": (
        lambda root: (root / "images/more").symlink_to(root / "masks"),
        {"not_searched": [("images/more",)]},
    ),
    "a broken link": (
        lambda root: (root / "masks/0/x.png").symlink_to("gone.png"),
        {"not_searched": [("masks/0/x.png",)]},
    ),
    "a negative constant": (
        lambda root: add_case(root, Image.new("F", (SIDE, SIDE), -3.0)),
        {"float": [("images/new.tif",)], "blank_image": [("images/new.tif",)]},
    ),
    "PostScript": (
        lambda root: (add_case(root), (root / "images/new.png").write_bytes(POSTSCRIPT)),
        {"unreadable_image": NEW},
    ),
    "JPEG 2000": (
        lambda root: (add_case(root), draw_image(9).save(root / "images/new.png", "JPEG2000")),
        {"unreadable_image": NEW},
    ),
    "more pixels than there may be": (
        lambda root: (add_case(root), (root / "images/new.png").write_bytes(CASES["png_65535.png"]())),
        {"unreadable_image": NEW},
    ),
    "pages without end": (
        lambda root: (add_case(root, draw_image(9).convert("F")), put_pages(root / "images/new.tif")),
        {"several_frames": [("images/new.tif",)]},
    ),
    "a mask whose header says that its values are elsewhere": (
        lambda root: (add_case(root), put_header_of_pair(root / "masks/0/new.png")),
        {"unreadable_mask": NEW_MASK},
    ),
    "a mask of larger numbers than integers are": (
        lambda root: (add_case(root), put_huge_values(root / "masks/0/new.png")),
        {"mask_coding": [()]},
    ),
    "notes": (lambda root: (root / "images/notes.txt").touch(), {}),
}


@pytest.mark.parametrize(("make", "problems"), FAULTS.values(), ids=FAULTS)
def test_finds_a_fault_and_nothing_else(
    make: Callable[[Path], Any], problems: dict[str, list[tuple[str, ...]]], root: Path
) -> None:
    make(root)
    report = check_folder(root)
    assert found(report) == problems
    assert report.count(ERROR) == sum(len(files) for kind, files in problems.items() if KINDS[kind][0] == ERROR)
    text = report.to_text()
    assert all(kind in text for kind in problems)
    assert json.loads(json.dumps(report.to_json()))["counts"] == {kind: len(files) for kind, files in problems.items()}


def write_list(root: Path, name: str = "datalist.json", **sections: Any) -> None:
    case = "case{0}".format
    content = {
        key: [{"image": f"images/{case(i)}.png", "label": [f"masks/0/{case(i)}.png"]} for i in value]
        if isinstance(value, range | tuple)
        else value
        for key, value in sections.items()
    }
    (root / name).write_text(json.dumps(content))


# Sections of a datalist of five cases, of which case 4 is a copy of case 0, and the kinds of problem.
LISTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "good": ({"training": (0, 1, 4), "validation": (2, 3)}, set()),
    "leak": ({"training": (0, 1), "validation": (2, 3, 4)}, {"split_leak"}),
    "leak into the test": ({"training": (0, 1), "validation": (2, 3), "testing": (4,)}, {"split_leak"}),
    "twice": ({"training": (0, 1, 4), "validation": (1, 2, 3)}, {"split_overlap"}),
    "not all": ({"training": (0, 1, 4), "validation": (2,)}, {"not_in_list"}),
    "no such file": ({"training": range(5), "testing": (5,)}, {"missing_file"}),
    "a name too long for a file": ({"training": range(5), "testing": [{"image": "x" * 999}]}, {"missing_file"}),
    "other sections": ({"training": range(5), "duplicates": (4,)}, set()),
}


@pytest.mark.parametrize(("sections", "kinds"), LISTS.values(), ids=LISTS)
def test_finds_what_is_wrong_with_the_list(sections: dict[str, Any], kinds: set[str], root: Path) -> None:
    add_case(root, draw_image(0), name="case4")
    write_list(root, **sections)
    assert found(check_folder(root)).keys() - {"exact_duplicate"} == kinds


def test_what_pillow_logs_is_no_line_of_its_own(root: Path, monkeypatch: Any, capsys: Any) -> None:
    (root / "images/new.tif").write_bytes(CASES["tiff_samples.tif"]())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    assert found(check_folder(root))["unreadable_image"] == [("images/new.tif",)]
    assert capsys.readouterr().err == ""


def test_finds_copies_across_folds(root: Path) -> None:
    add_case(root, draw_image(0), name="case4")
    (root / "datalist.json").write_text(
        json.dumps({"training": [{"image": f"images/case{i}.png", "fold": i % 3} for i in range(5)]})
    )
    report = check_folder(root)
    assert report.sections == {"fold 0": 2, "fold 1": 2, "fold 2": 1}
    assert "split_leak" in found(report)


def test_finds_copies_across_text_lists(root: Path) -> None:
    add_case(root, draw_image(0), name="case4")
    (root / "x_train1.txt").write_text("case0\ncase1\n")
    (root / "x_val1.txt").write_text("case2\ncase3\ncase4\nnobody\n")
    assert found(check_folder(root)).keys() == {"split_leak", "exact_duplicate", "missing_file"}


def test_a_split_of_its_own_has_no_leak(root: Path) -> None:
    add_case(root, draw_image(0), name="case4")
    for seed in range(4):
        made = make_datalist(root, {"validation": 0.4}, seed, coding=check_to_split(root).coding)
        (root / "datalist.json").write_text(json.dumps(made))
        report = check_folder(root)
        assert found(report).keys() == {"exact_duplicate"}
        assert report.coding_reason == "declared in the datalist"


def test_class_indices_must_be_declared_in_the_list(root: Path) -> None:
    for path in (root / "masks/0").iterdir():
        mask = draw_mask().point(lambda value: min(value, 2))
        mask.paste(1, (60, 60, 70, 70))
        mask.save(path)
    assert found(check_folder(root)) == {}
    write_list(root, training=range(4))
    assert found(check_folder(root)).keys() == {"undeclared_coding"}
    write_list(root, training=range(4), mask_coding="indices")
    assert found(check_folder(root)) == {}
    assert found(check_folder(root, coding="0/255")).keys() == {"faint_mask"}
    assert found(check_folder(root, coding="0=0,1=1")).keys() == {"unexpected_value"}


def test_checks_a_list_of_any_layout(root: Path) -> None:
    (root / "masks").rename(root / "truth")
    items = [{"image": f"images/case{i}.png", "label": f"truth/0/case{i}.png"} for i in range(4)]
    (root / "datalist.json").write_text(json.dumps({"training": items, "testing": ["images/case9.png"]}))
    report = check_folder(root)
    assert (report.cases, report.masks) == (5, 4)
    assert found(report).keys() == {"missing_file"}


def test_copies_in_two_classes_are_named(root: Path) -> None:
    draw_image(0).save(root / "images/other.png")
    draw_mask().save(root / "masks/0/other.png")
    assert "class_conflict" not in found(check_folder(root))
    assert found(check_folder(root, classes="prefix"))["class_conflict"] == [("images/case0.png", "images/other.png")]


def test_finds_the_known_duplicates_of_busi() -> None:
    root = SHARED / "busi"
    if not root.is_dir():
        pytest.skip("BUSI is not next to the project")
    with (root / "near_duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = {frozenset((row["a"], row["b"])) for row in rows}
    conflicts = {frozenset((row["a"], row["b"])) for row in rows if row["class_conflict"] == "True"}
    leaks = {frozenset((row["a"], row["b"])) for row in rows if row["cross_split2"] == "True"}
    problems = found(check_folder(root, classes="prefix", fold=2))

    def pairs(*kinds: str) -> set[frozenset[str]]:
        return {frozenset(Path(file).stem for file in files) for kind in kinds for files in problems[kind]}

    assert pairs("exact_duplicate", "near_duplicate") == known
    assert pairs("class_conflict") == conflicts
    assert pairs("split_leak") == leaks
    assert (len(known), len(conflicts)) == (126, 6)
