"""ZIP archives of studies, unpacked so that nothing leaves its folder, is overwritten, or fills the disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.kinds import DICOM_SUFFIXES, VOLUME_SUFFIXES
from mobileutr_monai.core.limits import BoundedReader, ReadTooLargeError
from mobileutr_monai.core.reasons import Reason

__all__ = [
    "MAX_MEMBERS",
    "MAX_MEMBER_BYTES",
    "MAX_RATIO",
    "MAX_TOTAL_BYTES",
    "ArchiveProblem",
    "Unpacked",
    "is_archive",
    "unpack_archive",
]

MAX_MEMBERS = 100_000
# Largest member: twice a volume of MAX_VOLUME_VOXELS in float32.
MAX_MEMBER_BYTES = 2**33
MAX_TOTAL_BYTES = 2**36
# How many times its size an archive may inflate to, beyond the bytes that any may: studies reach 20, bombs 1000.
MAX_RATIO = 100
RATIO_FREE_BYTES = 2**28
# Folders in folders; what makes and removes them in Python calls itself for each.
MAX_DEPTH = 100
# Bytes that stay free on the disk, for results.
SPARE_BYTES = 2**28

STUDY_SUFFIXES = (*DICOM_SUFFIXES, *VOLUME_SUFFIXES)

_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
# Longest list of members that is read: zipfile makes 500 bytes of objects of each 46 of it.
_MAX_DIRECTORY_BYTES = 2**24
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1
_CHUNK = 2**20
# zipfile inflates these piece by piece; of bzip2 and LZMA it holds whatever a piece inflates to.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_RESERVED_BY_WINDOWS = re.compile(r'[<>:"|?*]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
# What zipfile raises on broken archives.
_READ_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class ArchiveProblem:
    """A member that was not unpacked, and why.

    Attributes:
        member: its name with slashes; empty if it is the archive, of which then nothing was unpacked.
    """

    member: str
    reason: Reason
    detail: str


class Unpacked(NamedTuple):
    """The files that an archive became, and what did not become one."""

    paths: list[Path]
    problems: list[ArchiveProblem]


class _ArchiveError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def is_archive(path: str | Path) -> bool:
    """Whether a file is a ZIP archive that may hold a study, by its content.

    Documents (.docx), arrays (.npz) and weights (.pt) are ZIP too: one is taken for a study if its name ends in
    ``.zip``, or a member is a DICOMDIR or has the suffix of DICOM or NIfTI.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(132)
        if not start.startswith(_SIGNATURES) or start.endswith(b"DICM"):
            return False
        if path.suffix.lower() == ".zip":
            return True
        with _open(path) as (archive, _):
            names = [name.lower() for name in archive.namelist()]
    except (_ArchiveError, OSError):
        return False
    return any(name.endswith(STUDY_SUFFIXES) or re.split(r"[/\\]", name)[-1] == "dicomdir" for name in names)


def unpack_archive(path: str | Path, folder: str | Path) -> Unpacked:
    """Unpacks a ZIP archive into a new folder.

    Every file gets the archive's time of change, so that unpacking again gives the same. A name with backslashes is
    read as one with slashes. A member is refused whose name is absolute or leads out of the folder, has control
    characters, is given to two members, or that is a link or a device. The archive is refused as a whole if it is
    broken, encrypted, larger than the limits of this module or than the space on the disk, or if its members overlap.

    Args:
        folder: where to; must not exist.

    Returns:
        what was unpacked, and the problems; no archive raises an error.
    """
    folder = Path(folder)
    try:
        with _open(Path(path)) as (archive, facts):
            _check_whole(archive.infolist(), facts.st_size)
            _make_folder(folder)
            try:
                return _unpack(archive, facts.st_mtime_ns, folder)
            except _ArchiveError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except _ArchiveError as error:
        return Unpacked([], [ArchiveProblem("", error.reason, error.detail)])


@contextmanager
def _open(path: Path) -> Iterator[tuple[zipfile.ZipFile, os.stat_result]]:
    """Opens an archive; gives the facts of its file too.

    Raises:
        _ArchiveError: it cannot be opened.
    """
    try:
        file = BoundedReader(path, _MAX_DIRECTORY_BYTES)
    except OSError as error:
        raise _ArchiveError(Reason.BROKEN_ARCHIVE, _one_line(error)) from None
    with file:
        try:
            facts = os.fstat(file.fileno())
            archive = zipfile.ZipFile(file)  # reads the list of members at once, however long an archive declares it
        except ReadTooLargeError as error:
            detail = f"its list of members takes {error.size} bytes"
            raise _ArchiveError(Reason.ARCHIVE_TOO_LARGE, detail) from None
        except _READ_ERRORS as error:
            raise _ArchiveError(Reason.BROKEN_ARCHIVE, _one_line(error)) from None
        with archive:
            yield archive, facts


def _unpack(archive: zipfile.ZipFile, time_ns: int, folder: Path) -> Unpacked:
    members = archive.infolist()
    _check_space(sum(info.file_size for info in members), folder)
    names = [_normalise(info.orig_filename) for info in members]
    uses = Counter(names)
    paths: list[Path] = []
    problems: dict[str, ArchiveProblem] = {}
    for info, name in zip(members, names, strict=True):
        is_folder = info.orig_filename.endswith(("/", "\\"))
        fault = _find_fault(info)
        if not fault and is_folder:
            continue
        try:
            if fault or uses[name] > 1:
                raise _ArchiveError(Reason.UNSAFE_MEMBER, fault or f"{uses[name]} members have this name")
            _unpack_member(archive, info, folder / name)
            os.utime(folder / name, ns=(time_ns, time_ns))
            paths.append(folder / name)
        except _ArchiveError as error:
            if error.reason is Reason.NO_SPACE:
                raise
            problems.setdefault(name, ArchiveProblem(name, error.reason, error.detail))
    return Unpacked(paths, list(problems.values()))


def _check_whole(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Says whether an archive may be unpacked, from its list of members alone.

    Raises:
        _ArchiveError: with the reason why not.
    """
    if any(info.flag_bits & _ENCRYPTED for info in members):
        raise _ArchiveError(Reason.ENCRYPTED_ARCHIVE, "unpack it with its password and pass the folder")
    total = sum(info.file_size for info in members)
    limits = (
        (len(members), MAX_MEMBERS, "members"),
        (max((info.file_size for info in members), default=0), MAX_MEMBER_BYTES, "bytes in a member"),
        (total, MAX_TOTAL_BYTES, "bytes in all"),
        (total, max(RATIO_FREE_BYTES, size * MAX_RATIO), f"bytes out of {size}"),
    )
    for found, most, what in limits:
        if found > most:
            detail = f"{found} {what}, limit {most}; if you trust it, unpack it and pass the folder"
            raise _ArchiveError(Reason.ARCHIVE_TOO_LARGE, detail)
    start = size
    for info in sorted(members, key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + _LOCAL_HEADER_BYTES + len(info.orig_filename) + info.compress_size > start:
            raise _ArchiveError(Reason.OVERLAPPING_MEMBERS, "a ZIP bomb, or broken")
        start = info.header_offset


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _ArchiveError(_reason_of(error), _one_line(error)) from None


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if needed > free:
        detail = f"needs {needed} bytes, {max(free, 0)} may be used; free some, or write to another disk"
        raise _ArchiveError(Reason.NO_SPACE, detail)


def _normalise(name: str) -> str:
    """Returns a member's name with slashes only, as the report names it."""
    parts = _CONTROL.sub("?", name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _find_fault(info: zipfile.ZipInfo, windows: bool = os.name == "nt") -> str:
    """Returns why a member may not become a file; empty if it may."""
    name = info.orig_filename.replace("\\", "/")
    parts = name.split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return "a link"
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return "a device"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "an absolute name"
    if len(parts) > MAX_DEPTH:
        return f"in more than {MAX_DEPTH} folders"
    if ".." in parts:
        return "a name that leads out of the archive"
    if _CONTROL.search(name) or not _normalise(name):
        return "a name of control characters, or of nothing"
    if windows and any(_RESERVED_BY_WINDOWS.search(part) for part in parts):
        return "a name that Windows reserves"
    return ""


def _unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Writes a member to a new file atomically.

    Raises:
        _ArchiveError: it cannot be read or written.
    """
    if info.compress_type not in _COMPRESSIONS:
        raise _ArchiveError(
            Reason.UNREADABLE_MEMBER,
            f"compression {info.compress_type}, not deflate; unpack the archive and pass the folder",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except OSError as error:  # another member has the name on this file system, or it is too long
        raise _ArchiveError(_reason_of(error), _one_line(error)) from None
    try:
        with file, archive.open(info) as source:
            written = 0
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if written > info.file_size:  # zipfile stops there, but promises it nowhere
                    raise zipfile.BadZipFile("it inflates to more than it declares")
                file.write(chunk)
    except _READ_ERRORS as error:
        target.unlink()
        reason = _reason_of(error, Reason.UNREADABLE_MEMBER)
        raise _ArchiveError(reason, _one_line(error)) from None


def _reason_of(error: Exception, otherwise: Reason = Reason.UNSAFE_MEMBER) -> Reason:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Reason.NO_SPACE if full else otherwise


def _one_line(error: Exception) -> str:
    """Returns what is wrong, without the path that an OSError names: the report names it already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
