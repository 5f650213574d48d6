"""The report as it grows, where what it has to say is hostile, and what it says about the files of a run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mobileutr_monai.core.output_folder import OutputFolder, format_files
from mobileutr_monai.inference.report.csv import GONE, ReportTable, Wanted, check_report, read_cases
from mobileutr_monai.inference.report.row import Row

IDENTITY = {"weights_sha256": "1", "config_sha256": "2", "settings": {"size": 3}, "options": {}, "versions": {"a": "1"}}


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    (tmp_path / "out").mkdir()
    return OutputFolder(tmp_path / "out")


def open_table(folder: OutputFolder, **changes: object) -> ReportTable:
    return ReportTable(folder, {**IDENTITY, **changes}, ["lesion"])


def want(*names: str, content: str = "c", stat: str = "s") -> dict[str, Wanted]:
    return {name: Wanted(Path(name).stem, stat, lambda: content) for name in names}


def add_result(folder: OutputFolder, table: ReportTable, name: str, text: str = "mask") -> Path:
    """Makes a case as a run does: staged, entered, published."""
    stem = Path(name).stem
    (folder.stage(stem) / f"{stem}_mask.png").write_text(text)
    files = folder.list_staged(stem)
    row = Row(case=name, input_id="c", input_stat="s", output=f"{stem}_mask.png", files=format_files(files))
    row.label = "lesion"
    table.append([row])
    folder.publish(stem, files)
    return folder.path / f"{stem}_mask.png"


def test_what_a_file_says_of_itself_cannot_make_the_report_unreadable(folder: OutputFolder) -> None:
    table = open_table(folder)
    table.open({})
    table.append([Row(case="liar", status="failed", reason="not an image object", detail="x" * 200_000)])
    add_result(folder, table, "good")
    # Python's csv gives up at a field of 131072 characters: the cases behind it were done again.
    again = open_table(folder)
    assert again.open(want("liar", "good")) == {"good"}
    again.close()
    assert [rows[0]["case"] for rows in read_cases(folder.path / "report.csv")] == ["good"]


@pytest.mark.parametrize("name", ["=HYPERLINK(A1)", "+1", "-rf", "@x", "\t=1", "'=1", "''+", "plain", "'quoted'"])
def test_no_name_is_a_formula_and_each_is_found_again(name: str, folder: OutputFolder) -> None:
    table = open_table(folder)
    table.open({})
    add_result(folder, table, name)
    table.close()
    with (folder.path / "report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert not row["case"].startswith(("=", "@", "\t", "-r")) and row["case"].lstrip("'") == name.lstrip("'")
    assert open_table(folder).open(want(name)) == {name}


@pytest.mark.parametrize(
    ("wanted", "done", "left"),
    [
        (want("a.png"), {"a.png"}, True),
        (want("a.png", stat="other time"), {"a.png"}, True),
        (want("a.png", stat="other time", content="other"), set(), False),
        ({"a.png": Wanted("a_png", "s", lambda: "c")}, set(), False),
        ({"a.jpg": Wanted("a", "s", lambda: "c")}, set(), False),
        (want("b.png"), set(), True),
    ],
)
def test_a_result_belongs_to_the_content_of_its_input(
    wanted: dict[str, Wanted], done: set[str], left: bool, folder: OutputFolder
) -> None:
    table = open_table(folder)
    table.open({})
    mask = add_result(folder, table, "a.png")
    assert open_table(folder).open(wanted) == done
    assert mask.exists() == left


def test_a_result_whose_input_is_gone_is_listed_as_such(folder: OutputFolder) -> None:
    table = open_table(folder)
    table.open({})
    mask = add_result(folder, table, "a.png")
    table.append([Row(case="broken.png", status="failed")])
    for wanted, flag in (({}, GONE), (want("a.png"), "")):
        table = open_table(folder)
        table.open(wanted)
        table.close()
        ((row,),) = read_cases(folder.path / "report.csv")
        assert (row["case"], row["flag"]) == ("a.png", flag) and mask.is_file()


def test_a_result_that_somebody_has_changed_stays(folder: OutputFolder) -> None:
    table = open_table(folder)
    table.open({})
    mask = add_result(folder, table, "a.png")
    mask.write_text("corrected by hand")
    table = open_table(folder, weights_sha256="9")
    assert table.open(want("a.png")) == set()
    assert mask.read_text() == "corrected by hand"
    assert folder.find_obstacle("a", {"_mask.png": ""}).startswith("a_mask.png is in the output folder and was not")


@pytest.mark.parametrize("output", ["../outside_mask.png", "/tmp/outside_mask.png", "a/../../outside_mask.png"])
def test_a_report_that_somebody_has_changed_removes_nothing_elsewhere(output: str, folder: OutputFolder) -> None:
    table = open_table(folder)
    table.open({})
    digest = format_files({"_mask.png": __import__("hashlib").sha256(b"mine").hexdigest()})
    outside = folder.path.parent / "outside_mask.png"
    outside.write_text("mine")
    table.append([Row(case="a", output=output, files=digest, label="lesion")])
    open_table(folder, weights_sha256="9").open({})
    assert outside.read_text() == "mine"


def test_versions_alone_are_no_other_run(folder: OutputFolder) -> None:
    open_table(folder).open({})
    assert open_table(folder, versions={"a": "2"}).find_changes() == []
    changes = open_table(folder, settings={"size": 4}, weights_sha256="9").find_changes()
    assert changes == ["size (3, now 4)", "weights"]


@pytest.mark.parametrize("text", ["[]", "[1]", "{}", '"run"', "null", "[" * 9999, '{"weights_sha256": "1"}', "\0", ""])
def test_a_run_json_of_something_else_is_no_run(text: str, folder: OutputFolder) -> None:
    (folder.path / "run.json").write_text(text)
    assert open_table(folder).find_changes() == []
    with pytest.raises(ValueError, match=r"holds other files \(run.json\) and no run of mobileutr; choose an empty"):
        check_report(folder.path)


def test_a_folder_is_of_a_run_from_its_first_moment_on(folder: OutputFolder) -> None:
    check_report(folder.path)
    check_report(folder.path / "not there")
    for name in (".DS_Store", "Thumbs.db", "run.json.tmp"):  # of file managers, and of a run killed at its beginning
        (folder.path / name).touch()
        check_report(folder.path)
    open_table(folder).open({})
    check_report(folder.path)
    (folder.path / "report.csv").unlink()
    check_report(folder.path)
    (folder.path / "report.csv").write_text("my,own\n")
    with pytest.raises(ValueError, match=r"report\.csv is not of this version of mobileutr"):
        check_report(folder.path)
