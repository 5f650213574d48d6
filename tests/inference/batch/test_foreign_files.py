"""What somebody else has in an output folder stays as it is."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.__main__ import main
from tests.soak.watch import list_tree

FAST = ["--workers", "0", "--no-page"]
# What people keep next to their images, some of it in the names of results.
FOREIGN = ("a_mask.png", "a_overlay.png", "sub/c_mask.png", "report.csv", "run.json", "report.html", ".lock",
           ".unpacked/x.png", ".thumbnails/a.json", "notes.txt", "a_seg.dcm", "report_pages/page_001.html")  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def predict(breast: Path, inputs: Path, output: Path, *options: str) -> int:
    return main(["predict", str(breast), str(inputs), "--output", str(output), *FAST, *options])


def read_rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "report.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("names", [[name] for name in FOREIGN] + [list(FOREIGN)], ids=[*FOREIGN, "all"])
def test_a_folder_of_somebody_else_is_refused(
    names: list[str], overwrite: list[str], breast: Path, inputs: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in names:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("[]" if name == "run.json" else "mine")
    before = list_tree(tmp_path)
    assert predict(breast, inputs, tmp_path / "out", *overwrite) == 2
    assert "and no run of mobileutr; choose an empty folder" in capsys.readouterr().err
    assert list_tree(tmp_path) == before


def test_files_put_into_the_folder_of_a_run_stay(breast: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moved = shutil.move(inputs / "b.png", tmp_path / "b.png")
    assert predict(breast, inputs, out) == 0
    mine = {
        "b_mask.png": "drawn by hand",
        "sub/notes.txt": "mine",
        "sub/c_mask.png": "corrected by hand",
        "x_seg.dcm": "mine",
    }
    for name, text in mine.items():
        (out / name).write_text(text)
    shutil.move(moved, inputs / "b.png")
    assert predict(breast, inputs, out) == 1
    assert {name: (out / name).read_text() for name in mine} == mine
    rows = read_rows(out)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.png": "ok",
        "b.png": "failed",
        "sub/c.png": "failed",
    }
    assert rows["b.png"]["reason"] == "a file is in the way"
    assert rows["b.png"]["detail"].startswith(
        "b_mask.png is in the output folder and was not written by this run; move"
    )
    assert not (out / "b_overlay.png").exists()
    # Moved away as it says, the same command makes what is missing.
    for name in ("b_mask.png", "sub/c_mask.png"):
        (out / name).unlink()
    assert predict(breast, inputs, out) == 0
    assert {row["status"] for row in read_rows(out).values()} == {"ok"}


def test_other_settings_need_overwrite_and_replace_only_what_a_run_wrote(
    breast: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(breast, inputs, out) == 0
    (out / "mine_mask.png").write_text("mine")
    before = list_tree(out)
    capsys.readouterr()
    assert predict(breast, inputs, out, "--no-overlays") == 2
    said = capsys.readouterr().err
    assert "has the results of a run with other settings: overlays (True, now False); choose another" in said
    assert list_tree(out) == before
    assert predict(breast, inputs, out, "--no-overlays", "--overwrite") == 0
    assert not list(out.rglob("*_overlay.png")) and len(list(out.rglob("*_mask.png"))) == 4
    assert (out / "mine_mask.png").read_text() == "mine"


def test_a_file_replaced_by_one_of_equal_size_and_time_is_done_again(
    breast: Path, inputs: Path, tmp_path: Path
) -> None:
    import os

    out, image = tmp_path / "out", inputs / "a.bmp"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    assert predict(breast, inputs, out) == 0
    stat, before = image.stat(), read_rows(out)["a.bmp"]["input_id"]
    Image.fromarray(pixels[::-1]).save(image)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert image.stat().st_size == stat.st_size
    assert predict(breast, inputs, out) == 0
    assert read_rows(out)["a.bmp"]["input_id"] != before


def test_a_copy_of_the_inputs_is_not_done_again(
    breast: Path, inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    assert predict(breast, inputs, out) == 0
    shutil.copytree(inputs, tmp_path / "copy", copy_function=shutil.copyfile)
    assert predict(breast, tmp_path / "copy", out) == 0
    assert "3 of 3 cases done" in caplog.text


def test_a_case_that_is_removed_keeps_its_row(breast: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(breast, inputs, out) == 0
    (inputs / "b.png").unlink()
    assert predict(breast, inputs, out) == 0
    rows = read_rows(out)
    assert {row["output"] for row in rows.values()} == {
        path.relative_to(out).as_posix() for path in out.rglob("*_mask.png")
    }
    assert rows["b.png"]["flag"].endswith("input is gone") and "gone" not in rows["a.png"]["flag"]


def test_a_picture_that_fails_costs_the_picture_alone(
    breast: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobileutr_monai.inference.outputs import table, writers

    def fail(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(table, "draw_views", fail)
    monkeypatch.setattr(writers, "save_thumbnail", fail)
    assert predict(breast, inputs, tmp_path / "out") == 0
    assert {row["detail"] for row in read_rows(tmp_path / "out").values()} == {"no picture: division by zero"}
    assert len(list((tmp_path / "out").rglob("*_mask.png"))) == 3


def test_names_that_a_file_system_may_take_for_the_same_share_no_result(breast: Path, tmp_path: Path) -> None:
    names = ["a.png", "A.PNG", "a.jpg", "a_png.bmp", "\u00e4.png", "a\u0308.png", "\u017f.png", "s.png"]
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    assert predict(breast, tmp_path / "in", tmp_path / "out", "--no-overlays") == 0
    outputs = [row["output"] for row in read_rows(tmp_path / "out").values()]
    from mobileutr_monai.core.output_folder import fold_name

    assert len(set(map(fold_name, outputs))) == len(names) == len(list((tmp_path / "out").glob("*_mask.png")))
