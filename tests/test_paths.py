"""A path is data: no folder's name is syntax of MONAI's config parser, or runs."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.__main__ import main

# MONAI's parser takes # and :: for separators of ids, @ for a reference, % for a file to insert and $ for Python.
NAMES = (
    "study #3",
    "@study",
    "%study",
    '$print("x")or"uid"',
    "a::b",
    "@image_size",
    "%dataset_dir",
    "$1+1",
    "~",
    "a,b",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: relative paths begin with the folder's name."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy_bundle(source: Path, target: Path) -> Path:
    shutil.copytree(source / "configs", target / "configs")
    (target / "models").mkdir()
    (target / "models" / "model.pt").symlink_to(source / "models" / "model.pt")
    return target


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)


def make_data(root: Path) -> Path:
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40), dtype=np.uint8)
        for folder, image in (("images", pixels), ("masks/0", pixels // 128 * 255)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root


@pytest.mark.parametrize("name", NAMES)
def test_predict_takes_every_path_as_it_is(
    name: str, here: Path, breast: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = copy_bundle(breast, Path(name) / "bundle")
    draw(Path(name) / "in" / name / "a.png")
    weights = Path(name) / "weights.pt"
    weights.symlink_to((breast / "models" / "model.pt").resolve())
    paths = [str(bundle), f"{name}/in", "--output", f"{name}/out", "--weights", str(weights)]
    assert main(["predict", *paths, "--workers", "0", "--no-overlays", "--no-page"]) == 0
    assert (Path(name) / "out" / name / "a_mask.png").is_file()
    assert sorted(path.name for path in here.iterdir()) == [name]
    said = capfd.readouterr()
    assert not said.out, "something in a name was run"
    with (Path(name) / "out" / "report.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["case"].lstrip("'") == f"{name}/a.png"


@pytest.mark.parametrize("name", NAMES)
def test_verbs_of_data_take_every_path_as_it_is(name: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_data(Path(name))
    table = data / "groups.csv"
    table.write_text("image,group\n" + "".join(f"{index},{index}\n" for index in range(4)))
    lists = f"{name}/datalist.json"
    assert main(["split", name, "--output", lists, "--validation", "0.25", "--groups", str(table)]) == 0
    assert main(["check", name, "--datalist", lists, "--json", f"{name}/report.json"]) == 0
    assert sorted(path.name for path in here.iterdir()) == [name]
    assert "uid" not in capfd.readouterr().out.replace(name, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_made_from_and_in_any_folder(name: str, here: Path, breast: Path) -> None:
    parent = copy_bundle(breast, Path(name) / "parent")
    shutil.copytree(breast / "docs", parent / "docs")
    for file in breast.glob("*"):
        if file.is_file():
            shutil.copy(file, parent)
    assert main(["new-bundle", "mine", "--from", str(parent), "--labels", "lesion", "--output", f"{name}/made"]) == 0
    assert (Path(name) / "made" / "mine" / "models" / "model.pt").is_file()
    assert sorted(path.name for path in here.iterdir()) == [name]


def test_an_unknown_id_leaves_logging_as_it_was(breast: Path, here: Path) -> None:
    from mobileutr_monai.bundle.running import run_bundle

    draw(Path("in/a.png"))
    with pytest.raises(ValueError, match="no id 'nothing'"):
        run_bundle(breast, Path("in"), Path("out"), {"nothing": 1})
    broken = copy_bundle(breast, here / "broken")
    (broken / "configs" / "inference.json").write_text("{")
    with pytest.raises(ValueError):
        run_bundle(broken, Path("in"), Path("out"), {})
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("key", ["dataset_dir", "output_dir", "weights"])
def test_a_path_that_monai_has_renamed_is_refused(
    key: str, breast: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from monai.bundle import ConfigParser

    draw(here / "in #1" / "a.png")
    parser = ConfigParser()
    parser.read_config(str(breast / "configs" / "inference.json"))
    parser.read_meta(str(breast / "configs" / "metadata.json"))
    parser.update({"bundle_root": breast, "dataset_dir": here / "in #1", "output_dir": here / "out", key: "in #1"})
    with pytest.raises(SystemExit) as stop:
        parser.get_parsed_content("runner").main()
    assert stop.value.code == 2
    assert f"{key} 'in ::1' contains '::', which monai.bundle run also makes of '#'" in capfd.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["in #1"]


def test_a_workspace_of_monai_label_has_no_name_that_monai_changes(breast: Path, here: Path) -> None:
    from mobileutr_monai.monai_label.workspace import Workspace

    with pytest.raises(ValueError, match="contains '#' or '::', which MONAI reads as syntax; choose another --work"):
        Workspace.prepare(breast, here / "work #1")
    assert list(here.iterdir()) == []
