"""Runs over lists and addresses give what a run over a folder gives."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from mobileutr_monai.__main__ import main
from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.inference.batch import streaming
from mobileutr_monai.inference.batch.delivery import RemoteFolder
from mobileutr_monai.inference.batch.runner import BatchRunner, UsageError
from mobileutr_monai.inference.report.csv import GONE
from mobileutr_monai.inference.report.stream_table import StreamTable
from mobileutr_monai.readers.sources.remote import RemoteSource, open_url

pytest.importorskip("fsspec")


@pytest.fixture
def make_runner(open_runner):
    return partial(open_runner, image_size=[32, 32], workers=0, overlays=False, report_page=False)


@pytest.fixture
def folder(tmp_path, breast) -> Path:
    """Three images, one of which has the name of another, a broken one, and a file of another kind."""
    target = tmp_path / "in"
    (target / "sub").mkdir(parents=True)
    samples = sorted((breast / "sample_data" / "images").iterdir())
    for sample, name in zip(samples, ("a.jpg", "a.png", "sub/c.jpg"), strict=False):
        shutil.copyfile(sample, target / name)
    (target / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    (target / "notes.txt").write_text("not an image")
    return target


def read_rows(report: Path | bytes, *left_out: str) -> list[dict[str, str]]:
    text = report.decode() if isinstance(report, bytes) else report.read_text()
    rows = list(csv.DictReader(text.splitlines()))
    return [{key: value for key, value in row.items() if key not in ("seconds", *left_out)} for row in rows]


def list_results(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*_mask.png"))}


def upload(folder: Path, url: str) -> None:
    files, root = open_url(url)
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def plain(make_runner, folder, tmp_path) -> Path:
    make_runner(output_dir=str(tmp_path / "plain")).run()
    return tmp_path / "plain"


def watch_fetches(monkeypatch) -> list[str]:
    fetched: list[str] = []
    fetch = RemoteSource._fetch

    def watch(self, entry, folder):
        fetched.append(entry.name)
        return fetch(self, entry, folder)

    monkeypatch.setattr(RemoteSource, "_fetch", watch)
    return fetched


def test_a_list_gives_what_the_folder_gives(make_runner, folder, plain, tmp_path, monkeypatch):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (tmp_path / "list").write_text("\n".join(names))
    monkeypatch.setattr(streaming, "MOST_FILES", 2)  # several parts
    result = make_runner(file_list=str(tmp_path / "list")).run()
    assert dict(result.counts) == {"ok": 3, "failed": 1, "skipped": 1}
    assert read_rows(tmp_path / "out" / "report.csv") == read_rows(plain / "report.csv")
    assert list_results(tmp_path / "out") == list_results(plain)
    assert len(list_results(plain)) == 3
    # Run again: nothing is segmented again, and a file that is missing now is said to be.
    (tmp_path / "list").write_text("\n".join([*names, "gone.png", "a.jpg"]))
    monkeypatch.setattr("mobileutr_monai.inference.segmenter.Segmenter.infer", lambda *_: pytest.fail("done before"))
    assert dict(make_runner(file_list=str(tmp_path / "list")).run().counts) == {"ok": 3, "failed": 2, "skipped": 1}
    reasons = {row["case"]: row["reason"] for row in read_rows(tmp_path / "out" / "report.csv")}
    assert reasons["gone.png"] == "file not found"


def test_an_address_gives_what_the_folder_gives_and_fetches_nothing_twice(
    make_runner, folder, plain, tmp_path, monkeypatch
):
    upload(folder, "memory://in1/p")
    fetched = watch_fetches(monkeypatch)
    run = make_runner(dataset_dir="memory://in1/p").run
    assert dict(run().counts) == {"ok": 3, "failed": 1, "skipped": 1}
    rows = read_rows(tmp_path / "out" / "report.csv", "input_stat")
    assert rows == read_rows(plain / "report.csv", "input_stat")
    assert list_results(tmp_path / "out") == list_results(plain)
    assert len(fetched) == 5
    work = [path.name for path in (tmp_path / "out" / ".mobileutr").rglob("*") if path.is_file()]
    assert sorted(work) == ["lock", "units.jsonl"]
    # Only what failed is fetched again.
    fetched.clear()
    make_runner(dataset_dir="memory://in1/p").run()
    assert fetched == ["broken.png"]
    assert read_rows(tmp_path / "out" / "report.csv", "input_stat") == rows


def test_inputs_that_changed_or_are_gone_are_noticed_at_an_address(make_runner, folder, tmp_path, caplog):
    upload(folder, "memory://in2/p")
    make_runner(dataset_dir="memory://in2/p").run()
    before = list_results(tmp_path / "out")
    files, _ = open_url("memory://in2")
    files.pipe_file("/in2/p/a.jpg", (folder / "sub" / "c.jpg").read_bytes())
    files.rm_file("/in2/p/sub/c.jpg")
    make_runner(dataset_dir="memory://in2/p").run()
    after = list_results(tmp_path / "out")
    assert after["a_jpg_mask.png"] == before["sub/c_mask.png"] != before["a_jpg_mask.png"]
    flags = {row["case"]: row["flag"] for row in read_rows(tmp_path / "out" / "report.csv")}
    assert GONE in flags["sub/c.jpg"]
    assert not any(GONE in flag for case, flag in flags.items() if case != "sub/c.jpg")


def test_a_run_that_was_stopped_resumes_and_ends_like_another(make_runner, folder, plain, tmp_path, monkeypatch):
    upload(folder, "memory://in3/p")
    publish = BatchRunner.publish

    def stop(self, case, rows, ledger):
        if case.name == "sub/c.jpg":
            raise KeyboardInterrupt
        return publish(self, case, rows, ledger)

    monkeypatch.setattr(BatchRunner, "publish", stop)
    with pytest.raises(KeyboardInterrupt):
        make_runner(dataset_dir="memory://in3/p").run()
    assert len(list_results(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / ".mobileutr" / "unpacked").exists()
    monkeypatch.setattr(BatchRunner, "publish", publish)
    make_runner(dataset_dir="memory://in3/p").run()
    rows = read_rows(tmp_path / "out" / "report.csv", "input_stat")
    assert rows == read_rows(plain / "report.csv", "input_stat")
    assert list_results(tmp_path / "out") == list_results(plain)


def test_results_go_to_an_address_and_the_same_command_resumes(make_runner, folder, plain, tmp_path, monkeypatch):
    options = {"output_dir": "memory://sink1/r", "work_dir": str(tmp_path / "work")}
    sent: list[str] = []
    put = RemoteFolder._put
    fail = ["a_png_mask.png"]

    def watch(self, path, name):
        if name in fail:
            raise PermissionError(13, "Access Denied")
        sent.append(name)
        put(self, path, name)

    monkeypatch.setattr(RemoteFolder, "_put", watch)
    assert dict(make_runner(**options).run().counts) == {"ok": 2, "failed": 2, "skipped": 1}
    row = next(row for row in read_rows(tmp_path / "work" / "report.csv") if row["case"] == "a.png")
    assert (row["reason"], row["detail"]) == ("result cannot be delivered", "memory://sink1/r: Access Denied")
    assert not list_results(tmp_path / "work")
    fail.clear()
    sent.clear()
    make_runner(**options).run()
    assert sorted(name for name in sent if name.endswith(".png")) == ["a_png_mask.png"]
    files, root = open_url("memory://sink1/r")
    masks = {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root) if path.endswith(".png")}
    assert masks == list_results(plain)
    assert read_rows(files.cat_file(f"{root}/report.csv"), "input_stat") == read_rows(
        plain / "report.csv", "input_stat"
    )
    assert json.loads(files.cat_file(f"{root}/report.json"))["cases"] == {"ok": 3, "failed": 1, "skipped": 1}
    # A result whose input changed and is broken now is removed there, too.
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    make_runner(**options).run()
    assert not files.exists(f"{root}/a_png_mask.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_dir": "memory://sink2/r"}, "--work"),
        ({"work_dir": "work"}, "is a folder"),
        ({"dataset_dir": "memory://nothing"}, "cannot be listed: there is nothing at this address"),
        ({"file_list": "no/such/list"}, "cannot be read: No such file"),
        ({"file_list": "empty"}, "there are no files in the list"),
        ({"output_dir": "memory://taken/r", "work_dir": "work"}, "holds files that are not of a run"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(make_runner, folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    files, _ = open_url("memory://taken")
    files.pipe_file("/taken/r/somebody.txt", b"else")
    with pytest.raises(UsageError, match=message) as caught:
        make_runner(**options).run()
    assert "\n" not in str(caught.value)
    assert files.cat_file("/taken/r/somebody.txt") == b"else"


def test_the_command_takes_a_list_and_says_what_it_lacks(breast, folder, tmp_path, capsys):
    command = ["predict", str(breast), "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "no SOURCE: name the folder or the address" in capsys.readouterr().err
    (tmp_path / "list").write_text("sub/c.jpg\nnotes.txt\n")
    small = ["--workers", "0", "--no-overlays", "--no-page", "--set", "image_size=[32,32]"]
    assert main([*command, str(folder), "--list", str(tmp_path / "list"), *small]) == 0
    assert "1 case segmented, 0 failed, 1 skipped" in capsys.readouterr().err
    assert list(list_results(tmp_path / "out")) == ["sub/c_mask.png"]


def test_a_dry_run_of_an_address_leaves_nothing(make_runner, folder, tmp_path):
    upload(folder, "memory://dry/p")
    lines = make_runner(dataset_dir="memory://dry/p", dry_run=True).run().foreseen
    assert "sub/c.jpg: image, would be segmented" in lines
    assert len(lines) == 5
    assert not (tmp_path / "out").exists()


def test_a_name_that_another_case_has_in_an_earlier_part_is_not_given_again(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.work.mkdir()
    table = StreamTable(folder, {}, ["lesion"])
    taken: set[str] = set()
    stems = [table.place(name, stem, taken) for name, stem in (("a.png", "a"), ("A.jpg", "A"), ("a.jpg", "a"))]
    assert stems == ["a", "A_jpg", "a_jpg_2"]


def test_a_folder_whose_slices_are_in_two_places_of_a_list_is_noticed(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.work.mkdir()
    table = StreamTable(folder, {}, ["lesion"])
    assert [table.is_repeated(key) for key in ("s/", "t/", "s/")] == [False, False, True]
