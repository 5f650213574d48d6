"""What a folder holds: images, NIfTI volumes, DICOM stills, cines and series, videos, told by content, not by name."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.kinds import IMAGE_SUFFIXES, VOLUME_SUFFIXES, CaseKind, begins_like_image, strip_suffix
from mobileutr_monai.core.output_folder import name_outputs
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.core.text import escape
from mobileutr_monai.core.walk import Listing, is_hidden, list_files, list_inputs
from mobileutr_monai.readers.archives import is_archive, unpack_archive
from mobileutr_monai.readers.converted.itk import can_convert, convert_to_nifti
from mobileutr_monai.readers.dicom.header import is_dicom
from mobileutr_monai.readers.dicom.series import DicomCase, find_dicom_cases
from mobileutr_monai.readers.foreign_formats import explain_format, is_itk, is_video
from mobileutr_monai.readers.nifti_file import count_dimensions
from mobileutr_monai.readers.video.frames import can_read_video

__all__ = [
    "CaseKind",
    "InputCase",
    "UnusedFile",
    "find_cases",
    "find_images",
    "find_volumes",
    "strip_suffix",
]

_NIFTI_HEADER_BYTES = 348
# More than the longest header of gzip takes.
_SNIFFED_BYTES = 2**17
# Folder for what was converted; hidden, so that it is no name of an archive.
_CONVERTED = ".converted"
# The file in which a run says what it is, and more than it has.
_RUN_FILE = "run.json"
_RUN_BYTES = 2**16
# Magic strings of NIfTI-1 and NIfTI-2, one file or a header with its data in another, by their offset.
_NIFTI_MAGIC = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0", b"ni2\0")}


@dataclass(frozen=True)
class InputCase:
    """Something to segment at once.

    Attributes:
        name: path of the file, of a series of its first file by name, relative to the folder, with slashes.
        output: where results go, relative to the output folder, without suffix; no two cases have the same.
        paths: one file, or those of a series in their order.
        dicom: what the headers say, for DICOM.
    """

    name: str
    output: str
    kind: CaseKind
    paths: tuple[Path, ...]
    dicom: DicomCase | None = None

    @property
    def spatial_dims(self) -> int:
        """2 or 3; of a NIfTI file its header is read."""
        if self.kind is CaseKind.NIFTI:
            return count_dimensions(self.paths[0])
        return 3 if self.kind is CaseKind.SERIES else 2


@dataclass(frozen=True)
class UnusedFile:
    """A file, or the files of a series, that give no case.

    Attributes:
        failed: something is wrong with it; otherwise it is no image.
    """

    name: str
    reason: Reason
    detail: str
    failed: bool
    study_uid: str = ""
    series_uid: str = ""


class FoundInputs(NamedTuple):
    """All files of a folder: in a case, or not used."""

    cases: list[InputCase]
    unused: list[UnusedFile]


class _Draft(NamedTuple):
    """A case before it has an output; its place is that of its first file, relative to the folder."""

    place: Path
    kind: CaseKind
    paths: tuple[Path, ...]
    dicom: DicomCase | None = None


class _Sorted(NamedTuple):
    drafts: list[_Draft]
    unused: list[UnusedFile]
    archives: list[Path]
    convertible: list[Path]


def find_cases(
    source: str | Path | Sequence[str | Path],
    unpacked: Path | None = None,
    listing: Listing | None = None,
) -> FoundInputs:
    """Finds the cases of a folder and its subfolders, sorted by name; none if there is no such folder.

    Hidden files, and what is in hidden folders, are left out. A file that is not what its suffix says is taken for what
    it is; one with an image's or NIfTI's suffix and no known content is a case that will fail when it is read. Links to
    files are followed, links to folders are not. What lies in or below a folder of this program's results is not used.

    A ZIP archive of a study is unpacked, and its members are cases like those of a folder of its name. Slices form a
    series only with others of the same archive, so that an archive may lie next to the folder it was made of. NRRD and
    MetaImage become NIfTI there, where SimpleITK is installed. Videos are cases where PyAV is installed.

    Args:
        source: folder to search, a file, or several of both. Names are relative to the folder, of several paths to
            the deepest folder that holds all of them.
        unpacked: empty folder for what is in archives or converted, which must stay while the cases are used; without
            it archives are not opened, and NRRD is not read.
        listing: files within one folder to look at, instead of all of them.
    """
    if listing is not None:
        root = Path(str(source))
    else:
        root, listing = list_inputs([Path(source)] if isinstance(source, (str, Path)) else [Path(p) for p in source])
    unused = [
        UnusedFile(_relative(path, root), reason, detail, failed) for path, reason, detail, failed in listing.ignored
    ]
    found = _sort_out(listing.paths, root)
    for archive in found.archives:
        if unpacked is None:
            detail = "its images are not used unless it is unpacked"
            unused.append(UnusedFile(_relative(archive, root), Reason.ARCHIVE, detail, failed=False))
            continue
        inside = _look_inside(archive, root, unpacked)
        found.drafts.extend(inside.drafts)
        unused += inside.unused
    _convert(found, root, unpacked)
    unused += found.unused
    drafts = sorted(found.drafts, key=lambda draft: draft.place)
    outputs = _name_outputs([Path(_name(draft.place)) for draft in drafts])
    cases = [
        InputCase(_name(draft.place), output, draft.kind, draft.paths, draft.dicom)
        for draft, output in zip(drafts, outputs, strict=True)
    ]
    return FoundInputs(cases, sorted(unused, key=lambda file: file.name))


def find_images(folder: str | Path) -> list[str]:
    """Returns the paths of all files with an image's suffix in a folder and its subfolders, sorted.

    Hidden files, and what is in hidden folders, are left out; there are none if there is no such folder.
    """
    return [str(path) for path in list_files(Path(folder)).paths if _has_suffix(path, IMAGE_SUFFIXES)]


def find_volumes(folder: str | Path) -> list[str]:
    """Returns the paths of all files with NIfTI's suffixes, as ``find_images`` does."""
    return [str(path) for path in list_files(Path(folder)).paths if _has_suffix(path, VOLUME_SUFFIXES)]


def _look_inside(archive: Path, root: Path, unpacked: Path) -> _Sorted:
    """Unpacks an archive and returns what is in it, as if it were a folder."""
    place = archive.relative_to(root)
    paths, problems = unpack_archive(archive, unpacked / place)
    found = _sort_out([path for path in paths if not is_hidden(path.relative_to(unpacked / place))], unpacked)
    _convert(found, unpacked, unpacked)
    for nested in found.archives:
        detail = "not opened; unpack the outer one and pass the folder"
        found.unused.append(UnusedFile(_relative(nested, unpacked), Reason.NESTED_ARCHIVE, detail, failed=True))
    for problem in problems:
        name = "/".join(filter(None, (_relative(archive, root), escape(problem.member))))
        found.unused.append(UnusedFile(name, problem.reason, problem.detail, failed=True))
    if not found.drafts and not found.unused:
        found.unused.append(UnusedFile(_relative(archive, root), Reason.EMPTY_ARCHIVE, "", failed=False))
    return found


def _convert(found: _Sorted, root: Path, unpacked: Path | None) -> None:
    """Converts what was found and can be converted; the cases have the names of the files as they were."""
    for path in found.convertible:
        place = path.relative_to(root)
        if unpacked is None or not can_convert():
            detail = explain_format(path) + ("" if unpacked is None else '; or pip install "mobileutr-monai[itk]"')
            found.unused.append(UnusedFile(_name(place), Reason.FOREIGN_FORMAT, detail, failed=False))
            continue
        target = unpacked / _CONVERTED / place.with_name(f"{place.name}.nii")
        try:
            convert_to_nifti(path, target)
        except CaseError as error:
            found.unused.append(UnusedFile(_name(place), error.reason, error.detail, failed=True))
        else:
            found.drafts.append(_Draft(place, CaseKind.NIFTI, (target,)))


def _sort_out(files: Sequence[Path], root: Path) -> _Sorted:
    """Tells what each file is."""
    found = _Sorted([], [], [], [])
    dicom: list[Path] = []
    results = {path.parent for path in files if path.name == _RUN_FILE and _says_run(path)}
    for path in files:
        if results and not results.isdisjoint(path.parents):
            found.unused.append(UnusedFile(_relative(path, root), Reason.RESULT, "", failed=False))
        elif is_archive(path):
            found.archives.append(path)
        elif (kind := _sniff(path)) is CaseKind.STILL:
            dicom.append(path)
        elif kind is not None:
            found.drafts.append(_Draft(path.relative_to(root), kind, (path,)))
        elif path.suffix.lower() == ".zip":
            found.unused.append(UnusedFile(_relative(path, root), Reason.BROKEN_ARCHIVE, "not ZIP", failed=True))
        elif is_itk(path):
            found.convertible.append(path)
        elif foreign := explain_format(path):
            if is_video(path):
                foreign = f'{foreign}; or read it with pip install "mobileutr-monai[video]"'
            found.unused.append(UnusedFile(_relative(path, root), Reason.FOREIGN_FORMAT, foreign, failed=False))
        else:
            found.unused.append(UnusedFile(_relative(path, root), Reason.NOT_AN_IMAGE, "", failed=False))
    cases, problems = find_dicom_cases(dicom)
    found.drafts.extend(_Draft(min(case.paths).relative_to(root), case.kind, case.paths, case) for case in cases)
    found.unused.extend(
        UnusedFile(
            name=_relative(min(problem.paths), root),
            reason=problem.reason,
            detail=f"{problem.detail}; {len(problem.paths)} files" if len(problem.paths) > 1 else problem.detail,
            failed=not problem.reason.is_skip,
            study_uid=problem.study_uid,
            series_uid=problem.series_uid,
        )
        for problem in problems
    )
    return found


def _says_run(path: Path) -> bool:
    """Whether a file is the one in which a run of this program says what it is."""
    try:
        with path.open("rb") as file:
            return b'"weights_sha256"' in file.read(_RUN_BYTES)
    except OSError:
        return False


def _sniff(path: Path) -> CaseKind | None:
    """Returns what a file is; all of DICOM is ``STILL``, whether more is in it or belongs to it is found later."""
    try:
        with path.open("rb") as file:
            start = file.read(_SNIFFED_BYTES)
    except OSError:
        start = b""
    if start[128:132] == b"DICM":  # first: the 128 bytes before it may be those of a TIFF
        return CaseKind.STILL
    if begins_like_image(start):
        return CaseKind.IMAGE
    if start.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, _NIFTI_HEADER_BYTES)
        except zlib.error:
            start = b""
    if any(start[offset : offset + 4] in magic for offset, magic in _NIFTI_MAGIC.items()):
        return CaseKind.NIFTI
    if is_dicom(path):
        return CaseKind.STILL
    if is_video(path) and can_read_video():
        return CaseKind.VIDEO
    if _has_suffix(path, IMAGE_SUFFIXES):
        return CaseKind.IMAGE
    return CaseKind.NIFTI if _has_suffix(path, VOLUME_SUFFIXES) else None


def _name_outputs(names: Sequence[Path]) -> list[str]:
    """Returns each path without suffix; with it, or a number, where two would have the same on any file system."""
    return name_outputs([name.as_posix() for name in names], [strip_suffix(name).as_posix() for name in names])


def _has_suffix(path: Path, suffixes: Iterable[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def _relative(path: Path, root: Path) -> str:
    return _name(path.relative_to(root))


def _name(place: Path) -> str:
    """Returns a path in the words of the report: with slashes, in one line, and in characters that UTF-8 has."""
    return escape(place.as_posix())
