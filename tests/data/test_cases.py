"""What a folder holds."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.data.cases import InputKind, find_cases, find_images, find_volumes, strip_suffix


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
        "1.2.840.4": InputKind.NIFTI,
        "broken.nii.gz": InputKind.NIFTI,
        "broken.png": InputKind.IMAGE,
        "png.dcm": InputKind.IMAGE,
        "tiff": InputKind.IMAGE,
        "volume.nii.gz": InputKind.NIFTI,
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
    for name in ("x.jpg", "x.png", "X.bmp", "x_jpg.png", "y.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    outputs = [case.output.lower() for case in find_cases(tmp_path).cases]
    assert len(set(outputs)) == 5
    assert "y" in outputs
