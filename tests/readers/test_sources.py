"""Inputs that are listed: which belong together, and how they come from a list or an address."""

from __future__ import annotations

import io
import sys

import pytest

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.sources.local import LocalSource, read_list
from mobileutr_monai.readers.sources.units import Entry, Grouping, Unit, gather_parts, group_units

pytest.importorskip("fsspec")

from mobileutr_monai.readers.sources.remote import RemoteSource, open_url

IMAGES = Grouping(volumes=False, channels=False)
VOLUMES = Grouping(volumes=True, channels=False)
CHANNELS = Grouping(volumes=True, channels=True)


def names_of(units: list[Unit]) -> list[list[str]]:
    return [[entry.name for entry in unit.entries] for unit in units]


@pytest.mark.parametrize(
    ("grouping", "names", "expected"),
    [
        (IMAGES, ["a.png", "b.png", "x/a.png"], [["a.png"], ["b.png"], ["x/a.png"]]),
        # Names that only differ in their suffix get results of different names.
        (IMAGES, ["a.jpg", "a.png", "b.png"], [["a.jpg", "a.png"], ["b.png"]]),
        (IMAGES, ["a.png", "a.png"], [["a.png"]]),
        (IMAGES, ["f_0001.png", "f_0002.png"], [["f_0001.png"], ["f_0002.png"]]),
        (CHANNELS, ["f_0000.nii", "f_0001.nii", "g.nii"], [["f_0000.nii", "f_0001.nii"], ["g.nii"]]),
        # Slices of a folder are one unit, also with an image among them.
        (VOLUMES, ["s/1.dcm", "s/2.png", "s/3.dcm", "t/1"], [["s/2.png"], ["s/1.dcm", "s/3.dcm"], ["t/1"]]),
    ],
)
def test_what_belongs_together_is_one_unit(grouping, names, expected):
    assert names_of(list(group_units(map(Entry, names), grouping))) == expected


def test_a_folder_of_many_stills_is_several_units_and_one_of_slices_is_one():
    entries = [Entry(f"{number:04}.dcm") for number in range(600)]
    assert [len(unit.entries) for unit in group_units(entries, IMAGES)] == [256, 256, 88]
    assert [len(unit.entries) for unit in group_units(entries, VOLUMES)] == [600]


def test_units_are_yielded_before_the_list_ends():
    def entries():
        yield Entry("a.png")
        yield Entry("b.png")
        raise AssertionError("the list was read ahead")

    assert next(group_units(entries(), IMAGES)).key == "a.png"


def test_parts_keep_to_both_limits_unless_a_unit_is_larger():
    units = [Unit(str(number), (Entry(str(number), size),)) for number, size in enumerate([4, 4, 4, 99, 1, 1, 1])]
    assert [[unit.key for unit in part] for part in gather_parts(units, 3, 8)] == [
        ["0", "1"],
        ["2"],
        ["3"],
        ["4", "5", "6"],
    ]


@pytest.mark.parametrize("change", [{"size": 2}, {"stamp": "later"}, {"name": "b"}])
def test_the_stamp_of_a_unit_differs_when_a_file_does(change):
    entry = Entry("a", 1, "now")
    assert Unit("k", (entry,)).stamp == Unit("k", (entry,)).stamp != Unit("k", (entry._replace(**change),)).stamp


def test_a_list_is_read_as_it_comes_and_says_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(b"a")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"a.png\r\n\n{tmp_path}/in/./gone.png\nsub\n"))
    source = LocalSource(tmp_path / "in", "-")
    units = list(source.list_units(IMAGES))
    root, listing = source.fetch(units, tmp_path / "unused")
    assert root == tmp_path / "in"
    assert [path.name for path in listing.paths] == ["a.png"]
    assert [(ignored.path.name, ignored.reason) for ignored in listing.ignored] == [
        ("gone.png", Reason.NOT_FOUND),
        ("sub", Reason.NOT_FOUND),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [("../b.png", "line 1 of the list .* is not in"), ("out/a_mask.png", "lies in the output folder")],
)
def test_a_list_cannot_lead_elsewhere(tmp_path, line, message):
    (tmp_path / "list").write_text(line)
    source = LocalSource(tmp_path / "in", str(tmp_path / "list"), excluded=tmp_path / "in" / "out")
    with pytest.raises(ValueError, match=message):
        list(source.list_units(IMAGES))


@pytest.mark.parametrize("piped", [False, True])
def test_the_mark_that_windows_puts_before_a_list_is_no_name(tmp_path, monkeypatch, piped):
    (tmp_path / "list.txt").write_text("a.png\r\nb.png\r\n", encoding="utf-8-sig")
    if piped:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "list.txt").read_bytes())))
    assert list(read_list("-" if piped else str(tmp_path / "list.txt"))) == ["a.png", "b.png"]


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"DICM\0\0")
    with pytest.raises(ValueError, match="it holds a byte 0"):
        LocalSource(tmp_path, str(tmp_path / "list.txt")).check()


def test_an_address_is_listed_as_a_folder_is_and_fetched(tmp_path):
    files, _ = open_url("memory://bucket")
    for name in ("b.png", "a.png", ".hidden", "sub/c.png", ".git/d.png", "@eaDir/e.png"):
        files.pipe_file(f"/bucket/p/{name}", name.encode())
    source = RemoteSource("memory://bucket/p")
    units = list(source.list_units(IMAGES))
    assert [unit.key for unit in units] == ["a.png", "b.png", "@eaDir", "sub/c.png"]
    root, listing = source.fetch(units, tmp_path / "part")
    assert sorted(path.relative_to(root).as_posix() for path in listing.paths) == ["a.png", "b.png", "sub/c.png"]
    assert (tmp_path / "part" / "sub" / "c.png").read_text() == "sub/c.png"
    assert [ignored.reason for ignored in listing.ignored] == [Reason.SYSTEM_FOLDER]


def test_what_cannot_be_fetched_is_said_and_nothing_leads_out_of_the_folder(tmp_path):
    files, _ = open_url("memory://bucket")
    files.pipe_file("/bucket/q/a.png", b"abc")
    source = RemoteSource("memory://bucket/q")
    entries = [Entry("a.png", 3), Entry("../evil.png", 1), Entry("gone.png", 1)]
    _, listing = source.fetch([Unit("u", tuple(entries))], tmp_path / "part")
    assert [path.name for path in listing.paths] == ["a.png"]
    assert [ignored.reason for ignored in listing.ignored] == [Reason.NOT_FETCHED, Reason.NOT_FOUND]
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["a.png"]
    _, listing = source.fetch([Unit("u", (Entry("a.png", 4),))], tmp_path / "again")
    assert listing.ignored[0].detail == "3 bytes came, 4 were listed"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:secret@bucket/p", "credentials come from the environment"),
        ("nosuch://bucket", "cannot be opened"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_url(url)
    assert "secret" not in str(caught.value)
