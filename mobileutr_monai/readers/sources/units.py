"""Inputs that are listed one after the other, and which of them have to be read together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from mobileutr_monai.core.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VOLUME_SUFFIXES, strip_suffix
from mobileutr_monai.core.text import escape
from mobileutr_monai.core.walk import Ignored, Listing

__all__ = ["Entry", "Fetched", "Grouping", "Source", "Unit", "gather_parts", "group_units"]

MOST_IN_ONE = 256
"""Files that are a unit at most where nothing has to be read together."""

_ALONE = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, *VIDEO_SUFFIXES, ".zip")
_CHANNEL = re.compile(r"_\d{4}$")


class Entry(NamedTuple):
    """A file of a source, as its listing says.

    Attributes:
        name: relative to the source, with slashes.
        size: in bytes; -1 where it is not known.
        stamp: differs when the content does, such as an ETag or a time.
    """

    name: str
    size: int = -1
    stamp: str = ""


@dataclass(frozen=True)
class Unit:
    """Files that are fetched and read together.

    Attributes:
        key: identifies it in the source.
        entries: its files; none for what is only to be reported.
        ignored: paths of the source that are not looked at.
        expected: number of files, where their names are known when they are fetched.
        expected_bytes: about how many they are, as far as can be told.
    """

    key: str
    entries: tuple[Entry, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    expected: int = 0
    expected_bytes: int = 0

    @property
    def stamp(self) -> str:
        """A hash that differs when its files do."""
        facts: list[object] = [*map(tuple, self.entries)]
        facts += [(str(path), reason.value) for path, reason, _, _ in self.ignored]
        if self.expected:
            facts.append(self.expected)
        return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Bytes of its files, as far as they are known."""
        return sum(max(0, entry.size) for entry in self.entries) + self.expected_bytes

    @property
    def count(self) -> int:
        """Number of its files; at least 1."""
        return max(1, len(self.entries), self.expected)


class Fetched(NamedTuple):
    """Files of a source on this machine.

    Attributes:
        root: folder that their names are relative to.
        listing: the files, and what was not fetched.
    """

    root: Path
    listing: Listing


class Grouping(NamedTuple):
    """What has to be read together.

    Attributes:
        volumes: whether files of a folder may be slices of a volume.
        channels: whether files NAME_0000, NAME_0001 ... are channels of one image.
    """

    volumes: bool
    channels: bool


class Source(Protocol):
    """Somewhere that inputs are listed and fetched from.

    Attributes:
        place: what messages call it.
        is_local: whether files are read where they are, and ``fetch`` only looks at them.
    """

    place: str
    is_local: bool

    def check(self) -> None:
        """Checks that it can be listed, before anything is written.

        Raises:
            ValueError: it cannot.
        """

    def list_units(self, grouping: Grouping) -> Iterator[Unit]:
        """Yields what there is; a million names are never held at once.

        Raises:
            ValueError: it cannot be listed.
        """

    def fetch(self, units: Sequence[Unit], folder: Path) -> Fetched:
        """Brings the files of units into an empty folder; a file that cannot be fetched is in ``ignored``.

        Raises:
            OSError: the disk is full.
        """


def group_units(entries: Iterable[Entry], grouping: Grouping) -> Iterator[Unit]:
    """Groups files that follow one another.

    Images, NIfTI files and archives are units of their own, or with the other files of their name. All others of a
    folder, which may be slices of a volume, are one unit; of images, at most ``MOST_IN_ONE`` are.

    Args:
        entries: those of a folder follow one another, by name.
    """
    folder = None
    alone: list[Entry] = []
    together: list[Entry] = []
    base = ""
    for entry in entries:
        path = PurePosixPath(entry.name)
        if path.parent != folder:
            yield from _finish(alone, together, grouping)
            folder, alone, together = path.parent, [], []
        if not entry.name.lower().endswith(_ALONE):
            together.append(entry)
            if not grouping.volumes and len(together) == MOST_IN_ONE:
                yield from _finish([], together, grouping)
                together = []
            continue
        previous, base = base, _base(entry.name, grouping.channels)
        if alone and (base != previous or len(alone) == MOST_IN_ONE):
            yield from _finish(alone, [], grouping)
            alone = []
        alone.append(entry)
    yield from _finish(alone, together, grouping)


def _finish(alone: Sequence[Entry], together: Sequence[Entry], grouping: Grouping) -> Iterator[Unit]:
    if alone:
        yield Unit(escape(alone[0].name), tuple(dict.fromkeys(alone)))
    if together:
        first = PurePosixPath(together[0].name)
        yield Unit(escape(f"{first.parent}/" if grouping.volumes else first.as_posix()), tuple(dict.fromkeys(together)))


def _base(name: str, channels: bool) -> str:
    base = strip_suffix(Path(name)).as_posix()
    return _CHANNEL.sub("", base) if channels else base


def gather_parts(units: Iterable[Unit], most_files: int, most_bytes: int) -> Iterator[list[Unit]]:
    """Yields units in parts, each within the limits unless a single unit is beyond them."""
    part: list[Unit] = []
    files = size = 0
    for unit in units:
        number = unit.count
        if part and (files + number > most_files or size + unit.size > most_bytes):
            yield part
            part, files, size = [], 0, 0
        part.append(unit)
        files, size = files + number, size + unit.size
    if part:
        yield part
