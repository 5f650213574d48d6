"""Files of this machine, or of a file system that it shares with others: a folder, or a list of its files."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from mobileutr_monai.core.output_folder import stat_files
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import escape
from mobileutr_monai.core.walk import Ignored, Listing, iter_folders
from mobileutr_monai.readers.sources.units import Entry, Fetched, Grouping, Unit, group_units

__all__ = ["STANDARD_INPUT", "LocalSource", "check_list", "read_list"]

STANDARD_INPUT = "-"


class LocalSource:
    """A folder, read where it is.

    Args:
        root: the folder.
        file_list: file with one path per line, relative to the folder or absolute, or ``-`` for standard input;
            without one everything in the folder is listed.
        excluded: folder whose files are no inputs.
    """

    is_local = True

    def __init__(self, root: Path, file_list: str = "", excluded: Path | None = None) -> None:
        self.root, self.file_list = Path(os.path.abspath(root)), file_list  # noqa: PTH100 - links stay as they are
        self.excluded = None if excluded is None else Path(os.path.abspath(excluded))  # noqa: PTH100
        self.place = f"the list {file_list}" if file_list else str(root)

    def check(self) -> None:
        check_list(self.file_list)

    def list_units(self, grouping: Grouping) -> Iterator[Unit]:
        if self.file_list:
            yield from group_units(self._read_entries(), grouping)
            return
        for listing in iter_folders(self.root):
            for ignored in listing.ignored:
                yield Unit(self._name(ignored.path), ignored=(ignored,))
            yield from group_units((self._entry(path) for path in listing.paths), grouping)

    def fetch(self, units: Sequence[Unit], folder: Path) -> Fetched:
        listing = Listing()
        for unit in units:
            listing.ignored += unit.ignored
            for entry in unit.entries:
                path = self.root / entry.name
                problem = _find_problem(path)
                if problem is None:
                    listing.paths.append(path)
                else:
                    listing.ignored.append(Ignored(path, *problem, True))
        return Fetched(self.root, listing)

    def _read_entries(self) -> Iterator[Entry]:
        for number, line in enumerate(read_list(self.file_list), start=1):
            path = Path(os.path.normpath(self.root / line))
            if self.root not in path.parents:
                raise ValueError(
                    f"line {number} of {self.place}: {escape(line)} is not in {self.root}; give the folder that all "
                    "paths lie in"
                )
            if self.excluded is not None and self.excluded in path.parents:
                raise ValueError(
                    f"line {number} of {self.place}: {escape(line)} lies in the output folder; choose another one"
                )
            yield self._entry(path)

    def _entry(self, path: Path) -> Entry:
        return Entry(path.relative_to(self.root).as_posix(), stamp=stat_files([path]))

    def _name(self, path: Path) -> str:
        return escape(path.relative_to(self.root).as_posix())


def check_list(file_list: str) -> None:
    """Checks that a list can be read, if there is one.

    Raises:
        ValueError: it cannot.
    """
    if file_list not in ("", STANDARD_INPUT):
        next(read_list(file_list), None)


def read_list(file_list: str) -> Iterator[str]:
    """Yields the lines of a file or of standard input, without empty ones, as they are read.

    Names of files need not be UTF-8; their bytes are kept.

    Raises:
        ValueError: the file cannot be read.
    """
    if file_list == STANDARD_INPUT:
        yield from _strip_lines(_as_names(sys.stdin))
        return
    try:
        with Path(file_list).open(encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from _strip_lines(file)
    except OSError as error:
        raise ValueError(f"the list {file_list} cannot be read: {error.strerror}") from None


def _as_names(stream: TextIO) -> TextIO:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    return stream


def _strip_lines(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        name = line.rstrip("\r\n")
        if number == 0:
            name = name.removeprefix("\ufeff")  # of standard input; a file's is left out by its encoding
        if "\0" in name:
            raise ValueError("the list of inputs is no text: it holds a byte 0; give a file with one path per line")
        if name.strip():
            yield name


def _find_problem(path: Path) -> tuple[Reason, str] | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Reason.NOT_FOUND, error.strerror or ""
    if stat.S_ISDIR(mode):
        return Reason.NOT_FOUND, "it is a folder; list its files"
    return None if stat.S_ISREG(mode) else (Reason.NOT_A_FILE, "a pipe, socket or device")
