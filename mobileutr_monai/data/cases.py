"""What a folder holds."""

from __future__ import annotations

from pathlib import Path

from mobileutr_monai.data.datalist import IMAGE_SUFFIXES

__all__ = ["find_images", "find_other_files"]


def find_images(folder: str | Path) -> list[str]:
    """Returns the paths of all images in a folder and its subfolders, sorted; none if there is no such folder.

    Hidden files, and what is in hidden folders, are left out.
    """
    return [str(path) for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def find_other_files(folder: str | Path) -> list[str]:
    """Returns the paths of all other files, sorted."""
    return [str(path) for path in _files(folder) if path.suffix.lower() not in IMAGE_SUFFIXES]


def _files(folder: str | Path) -> list[Path]:
    root = Path(folder)
    return sorted(path for path in root.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(root)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
