"""The batch runner: what it writes, and what bad input gets."""

from __future__ import annotations

import csv
import json
import shutil
import weakref
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from mobileutr_monai.inference.batch import networks
from mobileutr_monai.inference.batch.runner import UsageError
from mobileutr_monai.inference.outputs.writers import CaseWriter
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.networks import MobileUtr


@pytest.fixture(scope="module")
def samples(breast) -> list[Path]:
    return sorted((breast / "sample_data" / "images").iterdir())


@pytest.fixture
def make_runner(open_runner):
    return partial(open_runner, image_size=[32, 32])  # small, since these tests are about files


@pytest.fixture
def folder(tmp_path, samples) -> Path:
    """Three images, one in a subfolder, and a file of another kind."""
    target = tmp_path / "in"
    (target / "sub").mkdir(parents=True)
    shutil.copyfile(samples[0], target / "a.jpg")
    shutil.copyfile(samples[1], target / "B.JPG")
    with Image.open(samples[2]) as image:
        image.convert("RGBA").save(target / "sub" / "c.png")
    (target / "notes.txt").write_text("not an image")
    return target


IMAGES = ("B.JPG", "a.jpg", "sub/c.png")
DONE = "image, done in an earlier run"


def read_report(folder: Path) -> list[dict[str, str]]:
    with (folder / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_of_the_network_is_held_while_a_case_is_written(make_runner, folder, monkeypatch):
    made: list[weakref.ref] = []
    alive: list[int] = []
    infer, write = Segmenter.infer, CaseWriter.write

    def watch_infer(self, data):
        made.extend(weakref.ref(case["image"]) for case in data)
        results = infer(self, data)
        made.extend(weakref.ref(result[key]) for result in results for key in ("image", "pred"))
        return results

    def watch_write(self, result):
        alive.append(sum(tensor() is not None for tensor in made))
        return write(self, result)

    monkeypatch.setattr(Segmenter, "infer", watch_infer)
    monkeypatch.setattr(CaseWriter, "write", watch_write)
    make_runner(workers=0, batch_size=1).main()
    assert alive == [0, 0, 0]
    assert len(made) == 9


def test_writes_a_mirrored_tree_and_a_report(make_runner, folder, tmp_path):
    make_runner().main()
    out = tmp_path / "out"
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    names = ("a", "B", "sub/c")
    reports = {"report.csv", "report.json", "report.html", "run.json", ".mobileutr/lock"}
    thumbnails = {f".mobileutr/thumbnails/{n}.json" for n in names}
    assert written == {f"{n}_{k}.png" for n in names for k in ("mask", "overlay")} | reports | thumbnails
    rows = read_report(out)
    assert [row["case"] for row in rows] == ["B.JPG", "a.jpg", "notes.txt", "sub/c.png"]
    assert (rows[2]["status"], rows[2]["reason"]) == ("skipped", "not an image")
    for row in rows[:2] + rows[3:]:
        mask = np.array(Image.open(out / row["output"]))
        with Image.open(folder / row["case"]) as image:
            assert mask.shape == image.size[::-1]
        assert row["status"] == "ok"
        assert row["shape"] == f"{mask.shape[0]} x {mask.shape[1]}"
        assert int(row["pixels"]) == (mask == 1).sum()
        assert row["volume_ml"] == ""
    summary = json.loads((out / "report.json").read_text())
    assert summary["cases"] == {"ok": 3, "failed": 0, "skipped": 1}
    assert "Research only" in summary["notice"]


def test_overlays_can_be_left_out(make_runner, folder, tmp_path):
    make_runner(overlays=False).main()
    assert not list((tmp_path / "out").rglob("*_overlay.png"))


def test_the_page_can_be_left_out_and_an_old_one_is_gone(make_runner, folder, tmp_path):
    make_runner().main()
    assert (tmp_path / "out" / "report.html").is_file()
    make_runner(report_page=False).main()
    assert not (tmp_path / "out" / "report.html").exists()
    assert not list((tmp_path / "out" / ".mobileutr" / "thumbnails").rglob("*.json"))


@pytest.mark.parametrize("content", ["my,own,table\n1,2,3\n", ""])
def test_a_report_of_something_else_is_not_replaced(make_runner, folder, tmp_path, capsys, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.csv").write_text(content)
    with pytest.raises(SystemExit) as stop:
        make_runner(workers=0).main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("holds other files (report.csv) and no run of mobileutr; choose an empty folder")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == [content]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_masks_do_not_depend_on_the_batch(make_runner, folder, tmp_path, batch_size):
    make_runner(batch_size=8, output_dir=str(tmp_path / "reference")).main()
    make_runner(batch_size=batch_size).main()
    for path in (tmp_path / "reference").rglob("*_mask.png"):
        other = tmp_path / "out" / path.relative_to(tmp_path / "reference")
        assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(other)))


def test_images_of_one_name_do_not_overwrite_each_other(make_runner, samples, tmp_path):
    (tmp_path / "in").mkdir()
    for sample, name in zip(samples, ("x.jpg", "x.png", "y.jpg", "x_jpg.png"), strict=False):
        with Image.open(sample) as image:
            image.save(tmp_path / "in" / name)
    make_runner().main()
    assert len(read_report(tmp_path / "out")) == 4
    masks = {path.name for path in (tmp_path / "out").glob("*_mask.png")}
    assert masks == {"x_jpg_2_mask.png", "x_png_mask.png", "y_mask.png", "x_jpg_mask.png"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("truncated.png", "truncate"), ("empty.png", b""), ("text.jpg", b"not an image"), ("zip.tif", b"PK\x03\x04")],
)
def test_a_broken_image_costs_only_itself(make_runner, folder, tmp_path, capsys, name, content):
    if content == "truncate":
        content = (folder / "sub" / "c.png").read_bytes()[:2000]
    (folder / name).write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        make_runner().main()
    assert stop.value.code == 1
    rows = {row["case"]: row for row in read_report(tmp_path / "out")}
    assert rows[name]["status"] == "failed"
    assert rows[name]["reason"] == "unreadable image"
    assert rows[name]["detail"]
    assert sum(row["status"] == "ok" for row in rows.values()) == 3
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert not (tmp_path / "out" / f"{Path(name).stem}_mask.png").exists()
    assert "3 cases segmented, 1 failed, 1 skipped" in capsys.readouterr().err


def save(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: {"dataset_dir": str(p / "nowhere")}, "is not a folder"),
        (lambda p: {"dataset_dir": str(p / "empty")}, "no images for this bundle in"),
        (lambda p: {"output_dir": str(p / "in" / "out")}, "lies inside the input folder"),
        (lambda p: {"output_dir": str(p / "in")}, "lies inside the input folder"),
        (lambda p: {"output_dir": str(p / "in" / "a.jpg" / "x")}, "inside the input folder"),
        (lambda p: {"output_dir": str(p / "file" / "x")}, "cannot make the output folder"),
        (lambda p: {"weights": str(p / "none.pt")}, "no weights at"),
        (lambda p: {"weights": str(p / "file")}, "is not a state dict"),
        (lambda p: {"weights": save([1, 2], p / "list.pt")}, "not a state dict"),
        (lambda p: {"weights": save(MobileUtr(2, 3, 1, "large").state_dict(), p / "l.pt")}, "does not fit the network"),
        (lambda p: {"weights": save(MobileUtr(2, 3, 2).state_dict(), p / "2.pt")}, "check variant, in_channels"),
        (lambda p: {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_what_cannot_be_used_ends_with_one_line_and_code_2(make_runner, folder, tmp_path, capsys, prepare, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        make_runner(**prepare(tmp_path)).main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("mobileutr: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(folder.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_goes_on_and_ends_like_an_uninterrupted_one(make_runner, folder, tmp_path, caplog):
    make_runner(output_dir=str(tmp_path / "whole")).main()
    make_runner().main()
    out = tmp_path / "out"
    lines = (out / "report.csv").read_text().splitlines(keepends=True)
    (out / "report.csv").write_text("".join(lines[:2]) + lines[2][:20])  # killed while it wrote the second case
    for path in (*out.glob("a_*.png"), *out.glob("sub/c_*.png"), out / "report.html"):
        path.unlink()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_mask.png")}
    make_runner().main()
    assert "1 of 3 cases done" in caplog.text
    assert out.joinpath("B_mask.png").stat().st_mtime_ns == times[out / "B_mask.png"]
    for path in (tmp_path / "whole").rglob("*.png"):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "whole")).read_bytes()
    assert (out / "report.html").read_text().count('class="case">') == 4
    assert (out / "report.html").read_text().count("data:image/jpeg") == 3, "also of what was done before the stop"
    without_seconds = [[{**row, "seconds": ""} for row in read_report(run)] for run in (tmp_path / "whole", out)]
    assert without_seconds[0] == without_seconds[1]


def test_what_an_earlier_run_left_of_a_case_is_gone_when_it_is_done_again(make_runner, folder, tmp_path):
    make_runner().main()
    (folder / "a.jpg").write_bytes(b"broken since")
    with pytest.raises(SystemExit):
        make_runner(overlays=False, overwrite=True).main()
    left = {path.name for path in (tmp_path / "out").rglob("*.png")}
    assert left == {"B_mask.png", "c_mask.png"}


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"not an image", "cut off, or not the image that its name says"),
        ("cut.jpg", None, "truncated"),
    ],
)
def test_says_in_plain_words_what_is_wrong_with_a_file(make_runner, folder, tmp_path, name, content, detail):
    (folder / name).write_bytes((folder / "a.jpg").read_bytes()[:3000] if content is None else content)
    with pytest.raises(SystemExit):
        make_runner().main()
    row = next(row for row in read_report(tmp_path / "out") if row["case"] == name)
    assert detail in row["detail"]


def test_the_library_neither_prints_nor_exits(make_runner, folder, tmp_path, capfd):
    (folder / "empty.png").touch()
    result = make_runner(report_page=False).run()
    assert result == ({"ok": 3, "failed": 1, "skipped": 1}, tmp_path / "out" / "report.csv", (), "")
    foreseen = make_runner(dry_run=True).run().foreseen
    assert len(foreseen) == 5
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        make_runner(batch_size=0).run()
    assert "Segmenting" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("size", [[100, 100], [256], "large", [256, 0]])
def test_a_size_that_the_network_cannot_take_ends_the_run_before_it_begins(make_runner, tmp_path, size):
    runner = make_runner()
    runner.settings["image_size"] = size
    with pytest.raises(UsageError, match=r"image_size must be 2 multiples of 16, such as \[256, 256\], got"):
        runner.run()
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_named_and_not_used_is_said(make_runner, folder, caplog):
    named = [folder / "a.jpg", folder / "notes.txt"]
    assert make_runner(inputs=[str(path) for path in named]).run().counts["skipped"] == 1
    assert "notes.txt: not an image" in [record.getMessage() for record in caplog.records]


def test_a_dry_run_names_every_file_and_writes_nothing(make_runner, folder, tmp_path, capsys):
    (folder / "empty.png").touch()
    with pytest.raises(SystemExit) as stop:
        make_runner(dry_run=True, weights=str(tmp_path / "none.pt")).main()
    told = capsys.readouterr()
    assert stop.value.code == 2
    assert told.err.splitlines()[-1].startswith(f"mobileutr: error: no weights at {tmp_path / 'none.pt'}")
    lines = told.out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["B.JPG", "a.jpg", "empty.png", "sub/c.png", "notes.txt"]
    assert lines[1] == "a.jpg: image, would be segmented"
    assert lines[2] == "empty.png: image, would fail: the file is empty"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_ends_as_the_run_would(make_runner, folder, tmp_path, samples, capsys):
    def foresee(**options: object) -> tuple[int, dict[str, str]]:
        try:
            make_runner(dry_run=True, **options).main()
        except SystemExit as stop:
            return stop.code, read_lines()
        return 0, read_lines()

    def read_lines() -> dict[str, str]:
        return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())

    assert foresee() == (
        0,
        {**dict.fromkeys(IMAGES, "image, would be segmented"), "notes.txt": "would be skipped: not an image"},
    )
    make_runner(report_page=False).main()
    assert foresee(engine="auto") == (0, {**dict.fromkeys(IMAGES, DONE), "notes.txt": "would be skipped: not an image"})
    assert foresee(image_size=[48, 48])[0] == 2  # results of other settings are there
    assert foresee(image_size=[48, 48], overwrite=True)[1]["a.jpg"] == "image, would be segmented"
    # Another content, and a file that is cut off after its header.
    shutil.copyfile(samples[3], folder / "a.jpg")
    (folder / "cut.jpg").write_bytes(samples[0].read_bytes()[:3000])
    code, lines = foresee()
    assert (code, lines["a.jpg"], lines["B.JPG"]) == (0, "image, would be segmented", DONE)
    assert lines["cut.jpg"] == "image, would be segmented"
    with pytest.raises(SystemExit):
        make_runner(report_page=False).main()
    code, lines = foresee()
    assert (code, lines["a.jpg"]) == (1, DONE)
    assert lines["cut.jpg"].startswith("image, would fail as in an earlier run: unreadable image: ")
    (tmp_path / "out" / "a_mask.png").unlink()
    assert foresee()[1]["a.jpg"] == "image, would be segmented"
    before = sorted(tmp_path.rglob("*"))
    for path in folder.rglob("*.*"):
        path.rename(path.with_name(f".{path.name}"))  # hidden
    assert foresee()[0] == 2  # no images
    assert len(before) == len(list(tmp_path.rglob("*")))


def test_components_have_rows_of_their_own_and_are_not_done_again(make_runner, folder, tmp_path, caplog):
    options = {"workers": 0, "image_size": [256, 256], "overlays": False, "components": True}
    make_runner(**options).main()
    rows = [row for row in read_report(tmp_path / "out") if row["status"] == "ok"]
    for case in {row["case"] for row in rows}:
        whole, *pieces = [row for row in rows if row["case"] == case]
        assert (whole["component"], whole["components"]) == ("", str(len(pieces)))
        assert [row["component"] for row in pieces] == [str(number) for number in range(1, len(pieces) + 1)]
        assert sum(int(row["pixels"]) for row in pieces) == int(whole["pixels"])
        assert not any(row["confidence"] or row["flag"] for row in pieces)
    assert len(rows) > 3
    before = (tmp_path / "out" / "report.csv").read_bytes()
    make_runner(**options).main()
    assert "3 of 3 cases done" in caplog.text
    assert (tmp_path / "out" / "report.csv").read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_nothing_but_the_time(make_runner, folder, tmp_path, workers):
    make_runner(output_dir=str(tmp_path / "reference")).main()
    make_runner(workers=workers).main()
    rows = [[{**row, "seconds": ""} for row in read_report(tmp_path / run)] for run in ("reference", "out")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1)])
def test_a_nifti_image_gets_the_mask_of_the_same_pixels_as_png(make_runner, tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)  # columns, rows
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels.T).save(tmp_path / "in" / "a.png")
    affine = np.diag([0.5, 0.25, 1.0, 1.0])
    nib.save(nib.Nifti1Image(pixels.reshape(shape), affine), tmp_path / "in" / "b.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), affine), tmp_path / "in" / "volume.nii.gz")
    make_runner().main()
    rows = {row["case"]: row for row in read_report(tmp_path / "out")}
    mask = nib.load(tmp_path / "out" / rows["b.nii.gz"]["output"])
    assert mask.shape == shape
    assert np.allclose(mask.affine, affine)
    png = np.array(Image.open(tmp_path / "out" / rows["a.png"]["output"]))
    assert np.array_equal(np.asarray(mask.dataobj).reshape(40, 30).T, png)
    assert float(rows["b.nii.gz"]["area_mm2"]) == pytest.approx(int(rows["b.nii.gz"]["pixels"]) * 0.125, abs=1e-3)
    assert rows["volume.nii.gz"]["status"] == "skipped"
    assert "the bundle takes images" in rows["volume.nii.gz"]["detail"]


def test_weights_of_another_bundle_are_said_to_be(make_runner, breast, caplog):
    runner = make_runner(weights=str(breast.parent / "skin_dermoscopy_segmentation" / "models" / "model.pt"))
    runner.load_network()
    (record,) = (record for record in caplog.records if record.name == networks.__name__)
    assert "another bundle, 'Skin dermoscopy segmentation'" in record.getMessage()


def test_own_weights_and_those_of_no_bundle_are_taken_in_silence(make_runner, breast, tmp_path, caplog):
    shutil.copyfile(breast / "models" / "model.pt", tmp_path / "mine.pt")
    for overrides in ({}, {"weights": str(tmp_path / "mine.pt")}):
        make_runner(**overrides).load_network()
    assert networks.__name__ not in {record.name for record in caplog.records}
