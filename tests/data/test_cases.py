"""What a folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileutr_monai.data.cases import find_images, find_other_files


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


def test_tells_other_files_apart(folder: Path) -> None:
    assert relative(find_other_files(folder), folder) == ["deep/list.csv", "no_suffix", "notes.txt", "scan.dcm"]


def test_a_hidden_folder_above_hides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "dataset"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert relative(find_images(folder), folder) == ["a.png"]


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert find_images(tmp_path / "nowhere") == []
    assert find_other_files(tmp_path / "nowhere") == []
