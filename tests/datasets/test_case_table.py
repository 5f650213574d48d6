"""A CSV table of cases instead of a folder in a known layout: check, split, train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mobileutr_monai.__main__ import main
from mobileutr_monai.bundle.new_bundle import make_bundle
from mobileutr_monai.datasets.datalist import load_datalist
from tests.bundle.training_data import save_images

ROWS = [(f"pictures/{i}.png", f"drawn/m{i}.png", f"P{i // 2}", "ab"[i % 2], ["train", "val"][i > 3]) for i in range(6)]
HEADER = ("image", "mask", "group", "class", "split")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images and masks under names that have nothing in common."""
    root = save_images(tmp_path / "data")
    (root / "datalist.json").unlink()
    (root / "images").rename(root / "pictures")
    (root / "drawn").mkdir()
    for path in (root / "masks").iterdir():
        path.rename(root / "drawn" / f"m{path.name}")
    shutil.rmtree(root / "masks")
    return root


def write(root: Path, columns: int = 5, separator: str = ",", encoding: str = "utf-8") -> Path:
    order = [4, 0, 2, 1, 3] if columns == 5 else list(range(columns))
    lines = [separator.join((*(row[i] for i in order), "note")) for row in (HEADER, *ROWS)]
    path = root / "cases.csv"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


@pytest.mark.parametrize(("separator", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_check_and_split_read_a_table_of_any_spreadsheet(
    separator: str, encoding: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(data, 5, separator, encoding)
    assert main(["check", str(table)]) == 0
    assert "list: 4 training, 2 validation" in capsys.readouterr().out
    assert main(["split", str(table), "--output", str(tmp_path / "list.json")]) == 0
    made = json.loads((tmp_path / "list.json").read_text())
    assert made["training"][0] == {"image": "pictures/0.png", "label": ["drawn/m0.png"]}
    assert (len(made["training"]), len(made["validation"])) == (4, 2)


def test_groups_and_classes_of_a_table_are_kept_where_it_has_no_split(data: Path, tmp_path: Path) -> None:
    table = write(data, columns=4)
    for seed in range(3):
        split = ["split", str(table), "--output", str(tmp_path / f"{seed}.json"), "--validation", "0.4"]
        assert main([*split, "--seed", str(seed)]) == 0
        made = json.loads((tmp_path / f"{seed}.json").read_text())
        patients = [{int(Path(item["image"]).stem) // 2 for item in made[name]} for name in ("training", "validation")]
        assert not patients[0] & patients[1]
        assert "3 groups of cases.csv kept together" in made["description"]
        assert "stratified by" in made["description"]


def test_training_reads_the_sections_of_a_table(
    breast: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle("mine", breast, ["lesion"], tmp_path / "bundles", pretrained=False).folder
    small = ("--epochs", "1", "--set", "image_size=[32,32]", "--set", "batch_size=2", "--set", "precision=float32")
    assert main(["train", str(bundle), str(write(data)), "--output", str(tmp_path / "run"), *small]) == 0
    assert "4 cases to train on, 2 to validate on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\na.png,b.png\n", "line 1: the table must have the columns image and mask"),
        ("image,mask,split\na.png,b.png,train\na.png,c.png,val\n", "lines 2 and 3: 'a.png' has the split"),
        ("image,mask,split\na.png,b.png,most\n", "line 2: split is 'most'; write one of training"),
        ("image,mask,group\na.png,b.png,1\nc.png,d.png,\n", "line 3: group is empty, other rows have one"),
        ("image,mask\na.png,b.png\na.png,b.png\n", "lines 2 and 3 are the same"),
        ("image,mask\n,b.png\n", "line 2: the image is empty"),
        ("image,mask\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_said_with_its_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert main(["check", str(tmp_path / "t.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and "t.csv" in line


def test_files_that_a_table_names_and_that_are_not_there_are_errors(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(data)
    (data / "drawn" / "m1.png").unlink()
    assert main(["check", str(table)]) == 1
    assert "missing_file" in capsys.readouterr().out
    (data / "pictures" / "2.png").unlink()
    capsys.readouterr()
    assert main(["check", str(write(data, columns=4))]) == 1
    assert "pictures/2.png: in cases.csv" in capsys.readouterr().out
    write(data)
    with pytest.raises(FileNotFoundError, match=r"m1\.png, named as label in .*cases\.csv"):
        load_datalist(data, table)
    with pytest.raises(ValueError, match="has no column split; make a list of it with: mobileutr split"):
        load_datalist(data, write(data, columns=4))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("imagesTr",), "has imagesTr/ but no volumes"),
        (("study/images", "study/other"), "1 image and no masks: each NAME.png needs NAME_mask.png"),
        (("study/images", "study/masks", "rest"), None),
        (("some",), "1 image and no masks"),
    ],
)
def test_a_folder_close_to_a_layout_is_told_what_is_missing(
    folders: tuple[str, ...], message: str | None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "near"
    for folder in folders:
        (root / folder).mkdir(parents=True)
    shutil.copy(data / "pictures" / "0.png", root / folders[0] / "a.png")
    if message is None:
        shutil.copy(data / "drawn" / "m0.png", root / "study" / "masks" / "a.png")
    code = main(["check", str(root)])
    assert (code, True) == ((0 if message is None else 2), message is None or message in capsys.readouterr().err)
