"""What a folder holds."""

from __future__ import annotations

from pathlib import Path

from mobileutr_monai.data.datalist import IMAGE_SUFFIXES

__all__ = ["VOLUME_SUFFIXES", "find_images", "find_other_files", "find_volumes", "strip_suffix"]

VOLUME_SUFFIXES = (".nii", ".nii.gz")


def find_images(folder: str | Path) -> list[str]:
    """Returns the paths of all images in a folder and its subfolders, sorted; none if there is no such folder.

    Hidden files, and what is in hidden folders, are left out.
    """
    return [str(path) for path in _files(folder) if has_suffix(path, IMAGE_SUFFIXES)]


def find_volumes(folder: str | Path) -> list[str]:
    """Returns the paths of all NIfTI files, as ``find_images`` does."""
    return [str(path) for path in _files(folder) if has_suffix(path, VOLUME_SUFFIXES)]


def find_other_files(folder: str | Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[str]:
    """Returns the paths of all files with other suffixes, sorted."""
    return [str(path) for path in _files(folder) if not has_suffix(path, suffixes)]


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Tells whether a name ends in one of the suffixes, in any case of letters; ``.nii.gz`` is one suffix."""
    return path.name.lower().endswith(suffixes)


def strip_suffix(path: Path) -> Path:
    """Returns the path without its suffix, ``.nii.gz`` as a whole."""
    return path.with_name(path.name[:-7]) if has_suffix(path, (".nii.gz",)) else path.with_suffix("")


def _files(folder: str | Path) -> list[Path]:
    root = Path(folder)
    return sorted(path for path in root.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(root)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
