"""What a folder holds."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.core.kinds import CaseKind, strip_suffix
from mobileutr_monai.readers import cases
from mobileutr_monai.readers.cases import FoundInputs, find_cases, find_images, find_volumes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.png",
        "a.JPG",
        "c.tiff",
        "notes.txt",
        "scan.dcm",
        "no_suffix",
        "deep/er/d.bmp",
        "deep/list.csv",
        ".hidden.png",
        "deep/._b.png",
        ".DS_Store",
        ".thumbnails/b.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def relative(paths: list[str], folder: Path) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def test_finds_images_in_subfolders_too_sorted_and_without_hidden_ones(folder: Path) -> None:
    assert relative(find_images(folder), folder) == ["a.JPG", "b.png", "c.tiff", "deep/er/d.bmp"]


def test_a_hidden_folder_above_hides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "dataset"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert relative(find_images(folder), folder) == ["a.png"]


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert find_images(tmp_path / "nowhere") == []
    assert find_volumes(tmp_path / "nowhere") == []
    assert find_cases(tmp_path / "nowhere") == ([], [])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Files of every kind, named for something else or for nothing."""
    Image.new("L", (8, 8)).save(tmp_path / "png.dcm", format="PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "tiff", format="TIFF")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "volume.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "plain.nii")
    (tmp_path / "plain.nii").rename(tmp_path / "1.2.840.4")
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8bnot gzip")
    (tmp_path / "archive.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "notes.txt").write_text("text")
    return tmp_path


def test_tells_by_content_what_a_file_is(mixed: Path) -> None:
    found = find_cases(mixed)
    assert {case.name: case.kind for case in found.cases} == {
        "1.2.840.4": CaseKind.NIFTI,
        "broken.nii.gz": CaseKind.NIFTI,
        "broken.png": CaseKind.IMAGE,
        "png.dcm": CaseKind.IMAGE,
        "tiff": CaseKind.IMAGE,
        "volume.nii.gz": CaseKind.NIFTI,
    }
    assert [(file.name, file.reason, file.failed) for file in found.unused] == [
        ("archive.gz", "not an image", False),
        ("notes.txt", "not an image", False),
    ]


def test_every_file_is_in_one_case_or_unused(mixed: Path, dicom_folder: Path) -> None:
    found = find_cases(dicom_folder)
    named = [path for case in found.cases for path in case.paths]
    assert len(named) == len(set(named))
    assert len(named) + len(found.unused) == sum(path.is_file() for path in dicom_folder.rglob("*"))


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("a.nii.gz", "a"),
        ("a.NII", "a"),
        ("a.b.png", "a.b"),
        ("1.2.3.4", "1.2.3.4"),
        ("IM0001", "IM0001"),
        ("x.dcm", "x"),
        (".png", ".png"),
    ],
)
def test_strips_known_suffixes_only(name: str, stripped: str) -> None:
    assert strip_suffix(Path("folder") / name) == Path("folder") / stripped


def test_no_two_cases_share_an_output_on_any_file_system(tmp_path: Path) -> None:
    for name in ("x.jpg", "x.png", "X.bmp", "x_jpg.png", "y.png", "z", "z.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / name, format="PNG")
    outputs = {case.name: case.output for case in find_cases(tmp_path).cases}
    assert len({output.lower() for output in outputs.values()}) == 7
    assert [outputs[name] for name in ("y.png", "z", "z.jpg")] == ["y", "z", "z_jpg"]


def reasons(found: FoundInputs) -> list[tuple[str, str, bool]]:
    return [(file.name, file.reason, file.failed) for file in found.unused]


def zip_files(archive: Path, files: dict[str, bytes | Path]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content.read_bytes() if isinstance(content, Path) else content)


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    Image.new("L", (8, 8)).save(tmp_path / "made.png")
    content = (tmp_path / "made.png").read_bytes()
    (tmp_path / "made.png").unlink()
    return content


def test_members_of_an_archive_are_cases_like_files_of_a_folder(tmp_path: Path, png: bytes) -> None:
    folder, unpacked = tmp_path / "in", tmp_path / "unpacked"
    zip_files(
        folder / "sub" / "study.zip",
        {
            "a.png": png,
            "deep/a.jpg": png,
            "notes.txt": b"text",
            ".hidden.png": png,
            "__MACOSX/._a.png": b"",
            "../b": png,
        },
    )
    zip_files(folder / "empty.zip", {})
    (folder / "sub" / "a.png").write_bytes(png)
    found = find_cases(folder, unpacked)
    assert [(case.name, case.output) for case in found.cases] == [
        ("sub/a.png", "sub/a"),
        ("sub/study.zip/a.png", "sub/study.zip/a"),
        ("sub/study.zip/deep/a.jpg", "sub/study.zip/deep/a"),
    ]
    assert found.cases[1].paths == (unpacked / "sub" / "study.zip" / "a.png",)
    assert found.cases[1].paths[0].read_bytes() == png
    assert reasons(found) == [
        ("empty.zip", "an empty archive", False),
        ("sub/study.zip/../b", "unsafe archive member", True),
        ("sub/study.zip/notes.txt", "not an image", False),
    ]


def test_an_archive_is_named_and_left_closed_where_nothing_may_be_unpacked(tmp_path: Path, png: bytes) -> None:
    zip_files(tmp_path / "study.zip", {"a.png": png})
    found = find_cases(tmp_path)
    assert (found.cases, reasons(found)) == ([], [("study.zip", "an archive", False)])
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]


def test_an_archive_that_cannot_be_used_costs_one_row(tmp_path: Path, png: bytes) -> None:
    folder = tmp_path / "in"
    zip_files(folder / "inner.zip", {"a.png": png})
    zip_files(folder / "outer.zip", {"inner.zip": folder / "inner.zip", "a.png": png})
    (folder / "inner.zip").write_bytes((folder / "inner.zip").read_bytes()[:50])
    (folder / "text.zip").write_bytes(b"text")
    zip_files(folder / "letter.docx", {"[Content_Types].xml": b"", "word/media/image1.png": png})
    found = find_cases(folder, tmp_path / "unpacked")
    assert [case.name for case in found.cases] == ["outer.zip/a.png"]
    assert reasons(found) == [
        ("inner.zip", "broken archive", True),
        ("letter.docx", "not an image", False),
        ("outer.zip/inner.zip", "an archive in an archive", True),
        ("text.zip", "broken archive", True),
    ]


def test_unpacking_again_gives_files_of_the_same_size_and_time(tmp_path: Path, png: bytes) -> None:
    zip_files(tmp_path / "in" / "study.zip", {"a.png": png})
    facts = []
    for name in ("once", "again"):
        (case,) = find_cases(tmp_path / "in", tmp_path / name).cases
        facts.append((case.name, case.output, case.paths[0].stat().st_size, case.paths[0].stat().st_mtime_ns))
    assert facts[0] == facts[1]


def test_a_series_beside_its_own_archive_is_two_cases(tmp_path: Path, dicom_folder: Path) -> None:
    source = dicom_folder / "mr_series_Study1_13_HCropVolume"
    slices = sorted(source.iterdir())
    for path in slices:
        (tmp_path / "in" / "study").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "study" / path.name).write_bytes(path.read_bytes())
    zip_files(tmp_path / "in" / "study.zip", {f"DICOM/{path.name}": path for path in slices})
    found = find_cases(tmp_path / "in", tmp_path / "unpacked")
    loose, zipped = found.cases
    assert (loose.kind, zipped.kind) == (CaseKind.SERIES, CaseKind.SERIES)
    assert [path.name for path in loose.paths] == [path.name for path in zipped.paths]
    assert zipped.name.startswith("study.zip/DICOM/")
    assert found.unused == []


def test_a_series_in_two_folders_is_an_error_that_names_both(tmp_path: Path, dicom_folder: Path) -> None:
    for copy in ("old\ncopy", "new"):
        shutil.copytree(dicom_folder / "mr_series_Study1_13_HCropVolume", tmp_path / "in" / "study" / copy)
    found = find_cases(tmp_path / "in")
    assert found.cases == []
    (problem,) = found.unused
    assert (problem.reason, problem.failed) == ("duplicate positions in a series", True)
    first, second = problem.detail.split(" are both at ")[0].split(" and ")
    assert (Path(first).parent, Path(second)) == (Path("new"), Path("old\\ncopy") / Path(first).name)
    assert problem.name.startswith("study/new/")


def test_real_dicom_of_every_kind_is_found_alike_in_an_archive(tmp_path: Path, dicom_folder: Path) -> None:
    paths = [path for path in dicom_folder.rglob("*") if path.is_file()]
    zip_files(tmp_path / "in" / "all.zip", {path.relative_to(dicom_folder).as_posix(): path for path in paths})
    loose, zipped = find_cases(dicom_folder), find_cases(tmp_path / "in", tmp_path / "unpacked")
    assert [case.name for case in zipped.cases] == [f"all.zip/{case.name}" for case in loose.cases]
    assert [case.kind for case in zipped.cases] == [case.kind for case in loose.cases]
    assert [case.dicom and case.dicom.sop_uids for case in zipped.cases] == [
        case.dicom and case.dicom.sop_uids for case in loose.cases
    ]
    assert reasons(zipped) == [(f"all.zip/{name}", *rest) for name, *rest in reasons(loose)]


def test_links_that_lead_nowhere_or_round_and_what_is_no_file_are_named(tmp_path: Path, png: bytes) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.png").write_bytes(png)
    for name, to in {
        "gone.png": "nowhere",
        "me.png": "me.png",
        "round": ".",
        "far": elsewhere,
        "a.png": elsewhere / "a.png",
    }.items():
        (folder / name).symlink_to(to)
    os.mkfifo(folder / "pipe.png")
    found = find_cases(folder)
    assert [case.name for case in found.cases] == ["a.png"]
    assert reasons(found) == [
        ("far", "a link to a folder", False),
        ("gone.png", "broken link", True),
        ("me.png", "broken link", True),
        ("pipe.png", "not a file", False),
        ("round", "a link to a folder", False),
    ]


def test_a_folder_that_cannot_be_read_fails_by_name(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(png)
    iterate = Path.iterdir

    def refuse(self: Path) -> object:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return iterate(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["a.png"]
    assert reasons(found) == [("closed", "folder cannot be read", True)]


def test_folders_in_folders_without_end_are_found(tmp_path: Path, png: bytes) -> None:
    folders = [str(tmp_path) + "/d" * depth for depth in range(1, 1101)]  # deeper than Python calls itself
    for folder in folders:
        os.mkdir(folder)
    image = Path(folders[-1], "a.png")
    image.write_bytes(png)
    found = find_cases(tmp_path)
    image.unlink()
    for folder in reversed(folders):  # pytest cannot remove it either
        os.rmdir(folder)
    assert [case.name.count("/") for case in found.cases] == [1100]


def test_names_that_utf_8_does_not_have_are_written_in_characters_that_it_has(tmp_path: Path, png: bytes) -> None:
    for name in (b"\xe9.png", b"two\nlines.png", rb"\udce9.png", "\u00e9.png".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(png)
    cases = find_cases(tmp_path).cases
    assert sorted(case.name for case in cases) == [r"\\udce9.png", r"\udce9.png", r"two\nlines.png", "\u00e9.png"]
    assert len({case.output for case in cases}) == 4
    assert all(case.paths[0].is_file() for case in cases)


def test_results_of_an_earlier_run_are_no_input(tmp_path: Path, png: bytes) -> None:
    for folder in ("results", "results/sub", "own"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a_mask.png").write_bytes(png)
    (tmp_path / "results" / "run.json").write_text('{"weights_sha256": "0"}')
    (tmp_path / "own" / "run.json").write_text('{"sex": "own"}')
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["own/a_mask.png"]
    assert {file.name for file in found.unused if file.reason == "in a folder of results"} == {
        "results/a_mask.png",
        "results/run.json",
        "results/sub/a_mask.png",
    }


def test_a_gzip_header_without_end_is_no_image(tmp_path: Path) -> None:
    named = b"\x1f\x8b\x08\x08" + bytes(6)
    (tmp_path / "endless").write_bytes(named + b"a" * 2**20)
    assert reasons(find_cases(tmp_path)) == [("endless", "not an image", False)]


def test_formats_that_are_not_read_are_skipped_with_what_converts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "can_read_video", lambda: False)
    files = {
        "a.mha": b"ObjectType = Image\nNDims = 3\n",
        "b.nrrd": b"NRRD0004\n",
        "c.mp4": b"\0\0\0\x18ftypisom",
        "d.heic": b"\0\0\0\x18ftypheic",
        "e.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "f.avif": b"\0\0\0\x18ftypavif",
        "g": b"\x1aE\xdf\xa3",
        "h.txt": b"text",
        "i.wmv": b"0&\xb2u\x8ef\xcf\x11",
        "j.m4a": b"\0\0\0\x18ftypM4A ",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content + bytes(32))
    found = find_cases(tmp_path)
    assert found.cases == []
    details = {file.name: file.detail for file in found.unused if not file.failed}
    frames = "save its frames as PNG, for example with ffmpeg"
    video = f'video is not supported; {frames}; or read it with pip install "mobileutr-monai[video]"'
    assert details == {
        "a.mha": "MetaImage is not supported; convert it to NIfTI, for example with 3D Slicer or SimpleITK",
        "b.nrrd": "NRRD is not supported; convert it to NIfTI, for example with 3D Slicer or SimpleITK",
        "c.mp4": video,
        "d.heic": "HEIC is not supported; convert it to PNG, for example with ImageMagick",
        "e.jp2": "JPEG 2000 is not supported; convert it to PNG, for example with ImageMagick",
        "f.avif": "AVIF is not supported; convert it to PNG, for example with ImageMagick",
        "g": video,
        "h.txt": "",
        "i.wmv": f"video that is not MP4, MOV, AVI, Matroska or WebM is not supported; {frames}",
        "j.m4a": "audio is not supported; it has no image",
    }


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN"])
def test_thumbnails_and_deleted_files_of_a_storage_system_are_no_input(tmp_path: Path, png: bytes, folder: str) -> None:
    (tmp_path / folder / "a.png").mkdir(parents=True)
    (tmp_path / folder / "a.png" / "SYNOPHOTO_THUMB_M.png").write_bytes(png)
    (tmp_path / "a.png").write_bytes(png)
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["a.png"]
    assert [(file.name, file.failed) for file in found.unused] == [(folder, False)]
