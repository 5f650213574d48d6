"""Archives of studies, honest and hostile."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers import archives
from mobileutr_monai.readers.archives import is_archive, unpack_archive

Members = list[tuple[str | zipfile.ZipInfo, bytes]]
MakeZip = Callable[..., Path]


@pytest.fixture
def make_zip(tmp_path: Path) -> MakeZip:
    def make(*members: tuple[str | zipfile.ZipInfo, bytes], name: str = "study.zip", method: int = 8) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, content in members:
                archive.writestr(member, content)
        return path

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "unpacked" / "study.zip"


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    """A member with a Unix mode, whose name stays as it is given."""
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    return info


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def patch(path: Path, signature: bytes, offset: int, value: bytes) -> None:
    """Overwrites bytes of every record of a kind."""
    content = bytearray(path.read_bytes())
    start = content.find(signature)
    while start >= 0:
        content[start + offset : start + offset + len(value)] = value
        start = content.find(signature, start + 4)
    path.write_bytes(content)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def test_unpacks_files_whole_with_the_time_of_the_archive(make_zip: MakeZip, target: Path) -> None:
    path = make_zip(("DICOM/", b""), ("DICOM/IM1", b"one"), ("./b.png", b"two"), ("DICOM\\IM2", b"three"))
    os.utime(path, ns=(10**18, 10**18 + 123_456_700))
    unpacked = unpack_archive(path, target)
    assert unpacked.problems == []
    assert {place.relative_to(target).as_posix(): place.read_bytes() for place in unpacked.paths} == {
        "DICOM/IM1": b"one",
        "DICOM/IM2": b"three",
        "b.png": b"two",
    }
    assert {place.stat().st_mtime_ns for place in unpacked.paths} == {path.stat().st_mtime_ns}


@pytest.mark.parametrize(
    "member",
    [
        "../evil.png",
        "a/../../evil.png",
        "..",
        "/tmp/evil.png",
        "//server/share/evil.png",
        "..\\evil.png",
        "\\evil.png",
        "C:\\evil.png",
        "C:evil.png",
        "a\nb.png",
        "a\x1b[2J.png",
        "a\0.png",
        "a\u2028.png",
        "/".join("a" * 200),
        "a" * 300 + ".png",
        entry("link.png", stat.S_IFLNK | 0o777),
        entry("device.png", stat.S_IFCHR | 0o666),
        entry("pipe.png", stat.S_IFIFO | 0o666),
    ],
)
def test_an_unsafe_member_is_refused_alone_in_one_line(
    make_zip: MakeZip, target: Path, tmp_path: Path, member: str | zipfile.ZipInfo
) -> None:
    info = entry(member) if isinstance(member, str) else member
    path = make_zip((info, b"evil"), ("good.png", b"good"))
    unpacked = unpack_archive(path, target)
    assert unpacked.paths == [target / "good.png"]
    assert [problem.reason for problem in unpacked.problems] == [Reason.UNSAFE_MEMBER]
    assert unpacked.problems[0].member.isprintable()
    assert unpacked.problems[0].detail
    assert files_below(tmp_path) == ["study.zip", "unpacked/study.zip/good.png"]


def test_what_windows_reserves_is_refused_there() -> None:
    names = ("ab:stream.png", "nul.png", "folder/COM1", "end.", "what?.png")
    assert [bool(archives._find_fault(entry(name), windows=True)) for name in names] == [True] * 5
    assert [archives._find_fault(entry(name), windows=False) for name in names] == [""] * 5


@pytest.mark.parametrize("names", [("a.png", "a.png"), ("a.png", "x/../a.png", "./a.png"), ("a.png", "\\a.png")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_none_is_taken(make_zip: MakeZip, target: Path, names: tuple[str, ...]) -> None:
    unpacked = unpack_archive(make_zip(*((entry(name), name.encode()) for name in names)), target)
    assert unpacked.paths == []
    members = [problem.member for problem in unpacked.problems]
    assert len(members) == len(set(members))
    assert "a.png" in members


def test_names_that_the_file_system_holds_for_one_are_not_overwritten(
    make_zip: MakeZip, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(("a.png", b"first"), ("A.png", b"second"))
    to_file = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: to_file(self.with_name(self.name.lower()), mode))
    monkeypatch.setattr(os, "utime", lambda path, ns: None)
    unpacked = unpack_archive(path, target)
    assert (target / "a.png").read_bytes() == b"first"
    assert [(problem.member, problem.detail) for problem in unpacked.problems] == [("A.png", "File exists")]


def test_a_member_that_is_a_file_and_a_folder_costs_one(make_zip: MakeZip, target: Path) -> None:
    unpacked = unpack_archive(make_zip(("a", b"file"), ("a/b.png", b"in it")), target)
    assert [path.name for path in unpacked.paths] == ["a"]
    assert [problem.member for problem in unpacked.problems] == ["a/b.png"]


def lie_about_size(path: Path) -> None:
    for signature, offset in ((LOCAL, 22), (CENTRAL, 24)):
        patch(path, signature, offset, struct.pack("<L", 10))


def break_crc(path: Path) -> None:
    for signature, offset in ((LOCAL, 14), (CENTRAL, 16)):
        patch(path, signature, offset, b"\1\2\3\4")


def name_otherwise(path: Path) -> None:
    patch(path, LOCAL, 30, b"../")


@pytest.mark.parametrize("breaking", [lie_about_size, break_crc, name_otherwise])
def test_a_broken_member_leaves_no_file(
    make_zip: MakeZip, target: Path, tmp_path: Path, breaking: Callable[[Path], None]
) -> None:
    path = make_zip(("bomb.png", b"\0" * 10**6))
    breaking(path)
    unpacked = unpack_archive(path, target)
    assert unpacked.paths == []
    assert [(problem.member, problem.reason) for problem in unpacked.problems] == [
        ("bomb.png", Reason.UNREADABLE_MEMBER)
    ]
    assert files_below(tmp_path) == ["study.zip"]


def test_a_member_never_takes_more_than_it_declares(
    make_zip: MakeZip, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(("bomb.png", b"\0" * 10**6))
    monkeypatch.setattr(archives, "_CHUNK", 1000)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, size: b"\0" * size)
    unpacked = unpack_archive(path, target)
    assert "more than it declares" in unpacked.problems[0].detail


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_inflate_without_bound_are_refused(make_zip: MakeZip, target: Path, method: int) -> None:
    unpacked = unpack_archive(make_zip(("a.png", b"a" * 1000), method=method), target)
    assert [problem.reason for problem in unpacked.problems] == [Reason.UNREADABLE_MEMBER]
    assert "not deflate" in unpacked.problems[0].detail


@pytest.mark.parametrize(
    ("limit", "value"),
    [("MAX_MEMBERS", 2), ("MAX_MEMBER_BYTES", 400), ("MAX_TOTAL_BYTES", 800), ("SPARE_BYTES", 2**60)],
)
def test_an_archive_beyond_a_limit_is_refused_as_a_whole(
    make_zip: MakeZip, target: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    path = make_zip(*((f"{index}.png", b"\0" * 500) for index in range(3)))
    assert len(unpack_archive(path, target).paths) == 3
    shutil.rmtree(target)
    monkeypatch.setattr(archives, limit, value)
    unpacked = unpack_archive(path, target)
    assert unpacked.paths == []
    assert [problem.member for problem in unpacked.problems] == [""]
    assert unpacked.problems[0].reason in (Reason.ARCHIVE_TOO_LARGE, Reason.NO_SPACE)
    assert not target.exists()


def test_a_bomb_is_refused_before_it_is_inflated(
    make_zip: MakeZip, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 2**20)
    path = make_zip(("bomb", b"\0" * (2**20 + 1)))
    assert path.stat().st_size < 2**20 / archives.MAX_RATIO
    assert [problem.reason for problem in unpack_archive(path, target).problems] == [Reason.ARCHIVE_TOO_LARGE]
    assert not target.exists()


def test_a_bomb_of_overlapping_members_is_refused(make_zip: MakeZip, target: Path) -> None:
    path = make_zip(("a.png", b"\0" * 1000), ("b.png", b"\0" * 1000))
    content = bytearray(path.read_bytes())
    second = content.rfind(CENTRAL)
    content[second + 42 : second + 46] = bytes(4)  # where the second member begins
    path.write_bytes(content)
    assert [problem.reason for problem in unpack_archive(path, target).problems] == [Reason.OVERLAPPING_MEMBERS]
    assert not target.exists()


def test_a_list_of_members_without_end_is_not_read(
    make_zip: MakeZip, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(*((f"{index}.png", b"") for index in range(100)))
    monkeypatch.setattr(archives, "_MAX_DIRECTORY_BYTES", 5000)
    assert [problem.reason for problem in unpack_archive(path, target).problems] == [Reason.ARCHIVE_TOO_LARGE]


def test_a_disk_that_fills_up_leaves_nothing(make_zip: MakeZip, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(("a.png", b"a"), ("b.png", b"b"))
    unpack = archives._unpack_member

    def fill_up(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> None:
        if place.name == "b.png":
            raise archives._ArchiveError(archives._reason_of(OSError(28, "No space left on device")), "full")
        unpack(archive, info, place)

    monkeypatch.setattr(archives, "_unpack_member", fill_up)
    unpacked = unpack_archive(path, target)
    assert (unpacked.paths, [problem.reason for problem in unpacked.problems]) == ([], [Reason.NO_SPACE])
    assert not target.exists()


def test_an_encrypted_archive_is_refused_with_its_remedy(make_zip: MakeZip, target: Path) -> None:
    path = make_zip(("a.png", b"a"), ("b.png", b"b"))
    for signature, offset in ((LOCAL, 6), (CENTRAL, 8)):
        patch(path, signature, offset, b"\1\0")
    unpacked = unpack_archive(path, target)
    assert [problem.reason for problem in unpacked.problems] == [Reason.ENCRYPTED_ARCHIVE]
    assert "password" in unpacked.problems[0].detail


def test_an_archive_that_is_cut_off_is_refused_at_any_length(make_zip: MakeZip, target: Path) -> None:
    path = make_zip(("a.png", os.urandom(200)), ("b.png", os.urandom(200)))
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        unpacked = unpack_archive(path, target)
        assert unpacked.paths == []
        assert [problem.reason for problem in unpacked.problems] == [Reason.BROKEN_ARCHIVE]
        assert len(unpacked.problems[0].detail.splitlines()) == 1
        assert not target.exists()


def test_a_folder_that_is_there_is_not_touched(make_zip: MakeZip, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "mine.png").touch()
    unpacked = unpack_archive(make_zip(("a.png", b"a")), target)
    assert unpacked.paths == []
    assert len(unpacked.problems) == 1
    assert files_below(target) == ["mine.png"]


@pytest.mark.parametrize(
    ("name", "members", "expected"),
    [
        ("study.zip", ["notes.txt"], True),
        ("STUDY.ZIP", [], True),
        ("study", ["DICOM/IM1", "DICOMDIR"], True),
        ("study", ["a\\b.DCM"], True),
        ("export.bin", ["scan.nii.gz"], True),
        ("letter.docx", ["[Content_Types].xml", "word/media/image1.png"], False),
        ("model.pt", ["model/data.pkl", "model/data/0"], False),
        ("arrays.npz", ["image.npy"], False),
    ],
)
def test_tells_studies_from_documents_that_are_archives_too(
    make_zip: MakeZip, name: str, members: list[str], expected: bool
) -> None:
    assert is_archive(make_zip(*((member, b"") for member in members), name=name)) is expected


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"PK\x03\x04".ljust(128, b"\0") + b"DICM"])
def test_what_is_no_archive_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study"
    path.write_bytes(content)
    assert not is_archive(path)
    assert not is_archive(tmp_path / "nowhere")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_archives_raise_nothing_and_leave_no_file_unnamed(
    make_zip: MakeZip, target: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    path = make_zip(("DICOM/IM1.dcm", bytes(range(256)) * 4), ("b.nii", b"\0" * 3000), method=8 * (seed % 2))
    whole = path.read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            place = (
                rng.randrange(len(content)) if rng.random() < 0.5 else rng.randrange(len(content) - 160, len(content))
            )
            value = rng.choice([b"\xff\xff\xff\xff", b"\0\0", b"../", b"/", bytes([rng.randrange(256)])])
            content[place : place + len(value)] = value
        path.write_bytes(content)
        assert is_archive(path) in (True, False)
        unpacked = unpack_archive(path, target)
        assert files_below(tmp_path) == sorted(
            ["study.zip", *(place.relative_to(tmp_path).as_posix() for place in unpacked.paths)]
        )
        assert all(len(problem.detail.splitlines()) == 1 for problem in unpacked.problems)
        shutil.rmtree(target, ignore_errors=True)
