"""The folder that a run writes to: which files are the run's own, and how results get there without touching others.

Nothing is removed or replaced but what a report lists with its hash. Results are made in a hidden folder of the run and
get their names when the report has them, so that what lies in the output folder is listed in it at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

from mobileutr_monai.core.atomic import hash_file, is_temporary

__all__ = [
    "IN_THE_WAY",
    "WORK_DIR",
    "OutputFolder",
    "find_foreign",
    "fold_name",
    "format_files",
    "hash_files",
    "name_outputs",
    "parse_files",
    "stat_files",
]

WORK_DIR = ".mobileutr"
"""What a run keeps for itself in its output folder: the lock, unpacked archives, thumbnails, results in the making."""

IN_THE_WAY = "is in the output folder and was not written by this run; move it away, or choose another output folder"

_OF_NOBODY = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory", WORK_DIR, "run.json.tmp"})
"""What file managers leave in any folder, and a run that was killed at its beginning, in small letters."""

_UNFINISHED = "unfinished"
_SEPARATOR = " "


def stat_files(paths: Sequence[Path]) -> str:
    """Returns a short hash of sizes, times and places of files; empty without them.

    A file that is replaced by another of the same size and time has another inode or time of change.
    """
    try:
        stats = [path.stat() for path in paths]
    except OSError:  # the reason comes when it is read
        return ""
    facts = [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for stat in stats]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def hash_files(paths: Sequence[Path]) -> str:
    """Returns a short hash of the content of files, in their order; empty without them."""
    try:
        digests = [hash_file(path) for path in paths]
    except OSError:
        return ""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def find_foreign(folder: Path) -> str:
    """Returns the name of something in a folder that holds no results, empty if there is nothing.

    What file managers leave, and what a run that was killed at its beginning leaves, does not count.
    """
    if not folder.is_dir():
        return ""
    names = sorted(path.name for path in folder.iterdir())
    return next((name for name in names if name.lower() not in _OF_NOBODY), "")


def format_files(files: Mapping[str, str]) -> str:
    """Returns the files of a case for a cell of the report: the ending of each name, and its SHA-256.

    Args:
        files: ending -> SHA-256.
    """
    return _SEPARATOR.join(f"{ending}:{digest}" for ending, digest in sorted(files.items()))


def parse_files(cell: str) -> dict[str, str]:
    """Returns ending -> SHA-256 of what ``format_files`` wrote; what is not of that form is left out."""
    pairs = (part.rpartition(":") for part in cell.split(_SEPARATOR))
    return {ending: digest for ending, _, digest in pairs if ending}


class OutputFolder:
    """Where the results of a run are made, published and removed.

    A case's results have names that begin with its stem, a path relative to the folder, and go on with an ending.

    Args:
        path: the output folder; nothing is made until something is staged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / WORK_DIR

    def stage(self, stem: str) -> Path:
        """Returns the empty folder that the results of a case are to be written to, as if it were the output folder."""
        staged = self.find_staged(stem)
        shutil.rmtree(staged, ignore_errors=True)
        (staged / stem).parent.mkdir(parents=True, exist_ok=True)
        return staged

    @property
    def making(self) -> Path:
        """The folder of results in the making."""
        return self.work / _UNFINISHED

    def adopt(self, stem: str, other: OutputFolder) -> None:
        """Takes what was staged for a case in another folder of the same file system."""
        shutil.rmtree(self.find_staged(stem), ignore_errors=True)
        other.find_staged(stem).rename(self.find_staged(stem))

    def list_staged(self, stem: str) -> dict[str, str]:
        """Returns ending -> SHA-256 of what was staged for a case, without what a killed process was writing."""
        base = self.find_staged(stem) / stem
        found = (path for path in base.parent.iterdir() if path.is_file() and path.name.startswith(base.name))
        found = (path for path in found if not is_temporary(path))
        return {path.name[len(base.name) :]: hash_file(path) for path in found}

    def find_obstacle(self, stem: str, files: Mapping[str, str]) -> str:
        """Returns what is wrong with publishing files of a case, in one line; empty if nothing is in their way."""
        parents = [self.path / parent for parent in Path(stem).parents if parent != Path()]
        blocked = [parent for parent in parents if os.path.lexists(parent) and not parent.is_dir()]
        taken = [target for ending in sorted(files) if os.path.lexists(target := self._target(stem, ending))]
        return next((f"{path.relative_to(self.path).as_posix()} {IN_THE_WAY}" for path in (*blocked, *taken)), "")

    def publish(self, stem: str, files: Mapping[str, str]) -> None:
        """Gives the staged files of a case their names; call it when the report has them and nothing is in the way."""
        (self.path / stem).parent.mkdir(parents=True, exist_ok=True)
        staged = self.find_staged(stem)
        for ending in files:
            source = staged / stem
            source.with_name(source.name + ending).rename(self._target(stem, ending))
        self.discard(stem)

    def discard(self, stem: str) -> None:
        """Removes what was staged for a case."""
        shutil.rmtree(self.find_staged(stem), ignore_errors=True)

    def discard_all(self) -> None:
        """Removes whatever was in the making, also of a run that was killed."""
        shutil.rmtree(self.making, ignore_errors=True)

    def is_whole(self, stem: str, files: Mapping[str, str], most_important: str) -> bool:
        """Whether all files of a case are there, and the most important one unchanged."""
        targets = {ending: self._target(stem, ending) for ending in files}
        return (
            most_important in files
            and all(target.is_file() for target in targets.values())
            and hash_file(targets[most_important]) == files[most_important]
        )

    def remove(self, stem: str, files: Mapping[str, str]) -> list[str]:
        """Removes files of a case that are as they were written; returns those that somebody has changed since."""
        changed = []
        for ending, digest in files.items():
            target = self._target(stem, ending)
            if "/" in ending:  # of a report that somebody has changed
                continue
            if not os.path.lexists(target):
                continue
            if target.is_file() and not target.is_symlink() and hash_file(target) == digest:
                target.unlink()
            else:
                changed.append(target.relative_to(self.path).as_posix())
        return changed

    def close(self) -> None:
        """Removes the folder again if there is nothing in it but what a run keeps for itself."""
        if self.path.is_dir() and all(path.name == WORK_DIR for path in self.path.iterdir()):
            shutil.rmtree(self.work, ignore_errors=True)
            self.path.rmdir()

    def find_staged(self, stem: str) -> Path:
        """Returns the folder that the results of a case are staged in."""
        key = hashlib.sha256(stem.encode(errors="surrogateescape")).hexdigest()[:16]
        return self.making / key

    def _target(self, stem: str, ending: str) -> Path:
        target = self.path / stem
        return target.with_name(target.name + ending)


def fold_name(name: str) -> str:
    """Returns what two names share that a file system may take for the same.

    Windows and macOS do not tell small letters from capitals, macOS not composed letters from decomposed ones.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def name_outputs(names: Sequence[str], stems: Sequence[str]) -> list[str]:
    """Returns a stem for each file; its whole name, or that and a number, where others have the same.

    Args:
        names: paths of files, with slashes.
        stems: the same without their suffixes.
    """
    uses = Counter(map(fold_name, stems))
    taken = {stem for stem, number in uses.items() if number == 1}
    outputs = []
    for name, stem in zip(names, stems, strict=True):
        output = stem
        if uses[fold_name(stem)] > 1:
            whole = PurePosixPath(stem).with_name(PurePosixPath(name).name.replace(".", "_")).as_posix()
            candidates = (whole if number == 1 else f"{whole}_{number}" for number in count(1))
            output = next(candidate for candidate in candidates if fold_name(candidate) not in taken)
            taken.add(fold_name(output))
        outputs.append(output)
    return outputs
