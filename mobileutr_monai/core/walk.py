"""Which files a folder holds: one way for inputs of a run, and for images and masks of a data set."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.reasons import Reason

__all__ = [
    "Ignored",
    "Listing",
    "find_common_folder",
    "is_file",
    "is_hidden",
    "is_system_folder",
    "iter_folders",
    "list_files",
    "list_inputs",
]

_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "__macosx", "lost+found"}
)
"""Folders, in small letters, that storage and file systems keep for thumbnails and deleted files."""

SYSTEM_FOLDER_DETAIL = "kept by storage for thumbnails or deleted files"


class Ignored(NamedTuple):
    """A path that is not listed.

    Attributes:
        failed: something is wrong with it; otherwise it is left out on purpose.
    """

    path: Path
    reason: Reason
    detail: str
    failed: bool


@dataclass
class Listing:
    """The regular files of a folder, sorted, and what was not looked at."""

    paths: list[Path] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """Lists the files of a folder and its subfolders; none if there is no such folder.

    Hidden files and folders are left out. Links to files are followed. Links to folders are not: they may lead out of
    the folder, or round in circles; each is in ``ignored``.
    """
    listing = Listing()
    for part in iter_folders(root):
        listing.paths += part.paths
        listing.ignored += part.ignored
    listing.paths.sort()
    return listing


def iter_folders(root: Path) -> Iterator[Listing]:
    """Yields what ``list_files`` returns, one folder at a time, each before its subfolders and these by name."""
    folders = [root]
    while folders:
        folder = folders.pop()
        listing, inner = _list_folder(folder, is_root=folder == root)
        yield listing
        folders += sorted(inner, reverse=True)


def _list_folder(folder: Path, is_root: bool) -> tuple[Listing, list[Path]]:
    """Returns the files of one folder, sorted, and its subfolders."""
    listing = Listing()
    inner: list[Path] = []

    def ignore(path: Path, reason: Reason, detail: str | None, failed: bool) -> None:
        listing.ignored.append(Ignored(path, reason, detail or "", failed))

    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        if not is_root:
            ignore(folder, Reason.FOLDER, error.strerror, failed=True)
        return listing, inner
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            is_broken = error.errno in (errno.ENOENT, errno.ELOOP)
            ignore(path, Reason.BROKEN_LINK if is_broken else Reason.FILE, error.strerror, failed=True)
            continue
        if stat.S_ISREG(mode):
            listing.paths.append(path)
        elif stat.S_ISDIR(mode) and path.is_symlink():
            ignore(path, Reason.FOLDER_LINK, "not followed; pass the folder itself", failed=False)
        elif stat.S_ISDIR(mode) and is_system_folder(path.name):
            ignore(path, Reason.SYSTEM_FOLDER, SYSTEM_FOLDER_DETAIL, failed=False)
        elif stat.S_ISDIR(mode):
            inner.append(path)
        else:
            ignore(path, Reason.NOT_A_FILE, "a pipe, socket or device", failed=False)
    listing.paths.sort()
    return listing, inner


def is_system_folder(name: str) -> bool:
    """Whether storage keeps thumbnails or deleted files in a folder of this name."""
    return name.lower() in _SYSTEM_FOLDERS


def list_inputs(paths: Sequence[Path]) -> tuple[Path, Listing]:
    """Lists files that are given, and those of folders that are given; each once.

    Returns:
        the folder that names are relative to, which is the deepest one that holds all of it, and the listing.

    Raises:
        ValueError: no path is given.
    """
    if not paths:
        raise ValueError("no input is given; give a file or a folder at least")
    if len(paths) == 1 and not paths[0].is_file():
        return paths[0], list_files(paths[0])
    root, whole = find_common_folder(paths)
    listing = Listing()
    for path in whole:
        found = Listing([path]) if path.is_file() else list_files(path)
        listing.paths += found.paths
        listing.ignored += found.ignored
    listing.paths = sorted(set(listing.paths))
    listing.ignored = list(dict.fromkeys(listing.ignored))
    return root, listing


def find_common_folder(paths: Sequence[Path]) -> tuple[Path, list[Path]]:
    """Returns the deepest folder that holds all files and folders, and their absolute paths, links as they are."""
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - which does not follow links
    return Path(os.path.commonpath([path.parent if path.is_file() else path for path in whole])), whole


def is_file(path: Path) -> bool:
    """Whether a path that somebody wrote down names a file; for a name that is too long pathlib raises an error."""
    return os.path.isfile(path)  # noqa: PTH113


def is_hidden(path: Path) -> bool:
    """Whether a relative path, or a folder of it, is hidden."""
    return any(part.startswith(".") for part in path.parts)
