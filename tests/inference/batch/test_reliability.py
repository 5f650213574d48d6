"""The batch runner where something breaks under it: decoders, files, the disk, another run."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from tests.soak.seeds import make_dicom, make_image


@pytest.fixture
def make_runner(open_runner):
    return partial(open_runner, image_size=[32, 32])


@pytest.fixture
def folder(breast, tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    samples = sorted((breast / "sample_data" / "images").iterdir())
    for name, sample in zip(("a", "b", "c"), samples, strict=False):
        shutil.copyfile(sample, tmp_path / "in" / f"{name}.jpg")
    return tmp_path / "in"


def read_rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "report.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 300 kB, which only root may make."""
    (tmp_path / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path / "disk")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


@pytest.mark.parametrize(
    ("deed", "reason", "detail"),
    [
        ("crash", "decoder crashed", "SIGSEGV"),
        ("hang", "took too long", "more than 10 s"),
        ("swell", "needs too much memory", "does not fit"),
        ("change", "input changed", "changed or vanished during the run"),
        ("vanish", "input changed", "changed or vanished during the run"),
    ],
)
def test_what_a_file_does_to_its_decoder_costs_that_case_only(make_runner, folder, tmp_path, deed, reason, detail):
    shutil.copyfile(folder / "a.jpg", folder / f"{deed}.jpg")
    hostile = {"hostile": [{"_target_": "hostile.DoWhatItsNameSays"}]}
    transforms = {"preprocessing": {"_target_": "Compose", "transforms": "$@image_transforms + @hostile"}}
    runner = make_runner(**hostile, **transforms, time_limit=10, memory_limit=2)
    with pytest.raises(SystemExit) as stop:
        runner.main()
    assert stop.value.code == 1
    rows = read_rows(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.jpg": "ok",
        "b.jpg": "ok",
        "c.jpg": "ok",
        f"{deed}.jpg": "failed",
    }
    assert rows[f"{deed}.jpg"]["reason"] == reason
    assert detail in rows[f"{deed}.jpg"]["detail"]
    assert not list((tmp_path / "out").rglob(f"{deed}*"))


def test_a_name_that_results_cannot_have_costs_its_case_only(make_runner, folder, tmp_path):
    long = f"{'x' * 245}.jpg"
    shutil.copyfile(folder / "a.jpg", folder / long)
    for _ in range(2):  # the second run clears what the first one left of it
        with pytest.raises(SystemExit) as stop:
            make_runner().main()
        assert stop.value.code == 1
        rows = read_rows(tmp_path / "out")
        assert {name for name, row in rows.items() if row["status"] == "ok"} == {"a.jpg", "b.jpg", "c.jpg"}
        assert "too long" in rows[long]["detail"]


def test_a_cine_that_breaks_off_does_not_answer_for_the_next_one(make_runner, tmp_path):
    (tmp_path / "in").mkdir()
    encoded = [make_image("JPEG", "L")] * 4
    for name, uid, declared in (("a.dcm", "1.2.1", "7"), ("b.dcm", "1.2.2", "4")):
        uids = {"SOPInstanceUID": uid, "SeriesInstanceUID": uid}
        data = make_dicom(np.zeros((4, 24, 40), np.uint8), encoded, JPEGBaseline8Bit, NumberOfFrames=declared, **uids)
        (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(SystemExit) as stop:
        make_runner(overlays=False).main()
    assert stop.value.code == 1
    rows = read_rows(tmp_path / "out")
    assert (rows["a.dcm"]["reason"], rows["b.dcm"]["status"]) == ("pixels cannot be decoded", "ok")


@pytest.mark.parametrize(("lost", "flagged"), [((), False), ((3, 4), True)])
def test_a_cine_whose_label_is_lost_in_between_is_flagged(make_runner, breast, tmp_path, lost, flagged):
    with Image.open(breast / "sample_data" / "images" / "benign (351).jpg") as sample:
        image = np.asarray(sample.convert("L"))
    # It moves by a pixel a frame, and where it is lost all is as dark as in an acoustic shadow.
    frames = np.stack([np.roll(image, index, axis=1) // (20 if index in lost else 1) for index in range(8)])
    frames[list(lost)] = frames[list(lost), :1, :1]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cine.dcm").write_bytes(make_dicom(frames))
    make_runner(overlays=False, image_size=[256, 256]).main()
    row = read_rows(tmp_path / "out")["cine.dcm"]
    assert int(row["frames"]) == 8 - len(lost)
    assert ("jumps between frames" in row["flag"]) is flagged


def test_a_second_run_into_the_same_folder_is_refused_and_a_dead_one_is_not_in_the_way(
    make_runner, folder, tmp_path, capsys
):
    (tmp_path / "out" / ".mobileutr").mkdir(parents=True)
    with FileLock(tmp_path / "out" / ".mobileutr" / "lock"), pytest.raises(SystemExit) as stop:
        make_runner().main()
    assert stop.value.code == 2
    assert "another run is writing to" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".mobileutr", "lock"]
    make_runner().main()  # the lock's file is still there, its owner is not
    assert len(read_rows(tmp_path / "out")) == 3


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(make_runner, folder, small_disk, tmp_path, capsys):
    out = small_disk / "out"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    with pytest.raises(SystemExit) as stop:
        make_runner(output_dir=str(out)).main()
    assert stop.value.code == 1
    assert "is full; make room; run the same command again to resume" in capsys.readouterr().err
    assert not list(out.rglob("*.tmp"))
    filler.unlink()
    make_runner(output_dir=str(out), overlays=False, overwrite=True).main()
    make_runner(overlays=False).main()
    masks = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*_mask.png")}
    assert len(masks) == 3
    assert {path.name: path.read_bytes() for path in out.glob("*_mask.png")} == masks


def test_an_output_folder_without_permission_is_refused(make_runner, folder, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for output in (small_disk, small_disk / "new"):
        with pytest.raises(SystemExit) as stop:
            make_runner(output_dir=str(output)).main()
        assert stop.value.code == 2
        assert "cannot" in capsys.readouterr().err
