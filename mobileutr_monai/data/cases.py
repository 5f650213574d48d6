"""What a folder holds: images, NIfTI volumes, DICOM stills, cines and series, told by content, not by name."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.data.datalist import IMAGE_SUFFIXES
from mobileutr_monai.data.dicom_header import is_dicom
from mobileutr_monai.data.dicom_series import CaseKind, DicomCase, find_dicom_cases
from mobileutr_monai.data.nifti import count_dimensions

__all__ = [
    "VOLUME_SUFFIXES",
    "InputCase",
    "InputKind",
    "UnusedFile",
    "find_cases",
    "find_images",
    "find_volumes",
    "strip_suffix",
]

VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
_NIFTI_HEADER_BYTES = 348
# Magic strings of NIfTI-1 and NIfTI-2, one file or a header with its data in another, by their offset.
_NIFTI_MAGIC = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0", b"ni2\0")}


class InputKind(str, Enum):
    """What kind of input a case is."""

    IMAGE = "image"
    NIFTI = "NIfTI"
    STILL = "DICOM still"
    CINE = "DICOM cine"
    SERIES = "DICOM series"


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
    kind: InputKind
    paths: tuple[Path, ...]
    dicom: DicomCase | None = None

    @property
    def spatial_dims(self) -> int:
        """2 or 3; of a NIfTI file its header is read."""
        if self.kind is InputKind.NIFTI:
            return count_dimensions(self.paths[0])
        return 3 if self.kind is InputKind.SERIES else 2


@dataclass(frozen=True)
class UnusedFile:
    """A file, or the files of a series, that give no case.

    Attributes:
        failed: something is wrong with it; otherwise it is no image.
    """

    name: str
    reason: str
    detail: str
    failed: bool
    study_uid: str = ""
    series_uid: str = ""


class FoundInputs(NamedTuple):
    """All files of a folder: in a case, or not used."""

    cases: list[InputCase]
    unused: list[UnusedFile]


def find_cases(folder: str | Path) -> FoundInputs:
    """Finds the cases of a folder and its subfolders, sorted by name; none if there is no such folder.

    Hidden files, and what is in hidden folders, are left out. A file that is not what its suffix says is taken for what
    it is; one with an image's or NIfTI's suffix and no known content is a case that will fail when it is read.
    """
    root = Path(folder)
    images: list[tuple[InputKind, Path]] = []
    dicom: list[Path] = []
    unused: list[UnusedFile] = []
    for path in _files(root):
        kind = _sniff(path)
        if kind is None:
            unused.append(UnusedFile(_relative(path, root), "not an image", "", failed=False))
        elif kind is InputKind.STILL:
            dicom.append(path)
        else:
            images.append((kind, path))
    found = find_dicom_cases(dicom)
    kinds = {CaseKind.STILL: InputKind.STILL, CaseKind.CINE: InputKind.CINE, CaseKind.SERIES: InputKind.SERIES}
    drafts: list[tuple[Path, InputKind, tuple[Path, ...], DicomCase | None]] = [
        (path, kind, (path,), None) for kind, path in images
    ]
    drafts += [(min(case.paths), kinds[case.kind], case.paths, case) for case in found.cases]
    drafts.sort(key=lambda draft: draft[0])
    outputs = _name_outputs([first.relative_to(root) for first, *_ in drafts])
    cases = [
        InputCase(_relative(first, root), output, kind, paths, case)
        for (first, kind, paths, case), output in zip(drafts, outputs, strict=True)
    ]
    unused += [
        UnusedFile(
            name=_relative(min(problem.paths), root),
            reason=problem.reason.value,
            detail=f"{problem.detail}; {len(problem.paths)} files" if len(problem.paths) > 1 else problem.detail,
            failed=not problem.reason.is_skip,
            study_uid=problem.study_uid,
            series_uid=problem.series_uid,
        )
        for problem in found.problems
    ]
    return FoundInputs(cases, sorted(unused, key=lambda file: file.name))


def find_images(folder: str | Path) -> list[str]:
    """Returns the paths of all files with an image's suffix in a folder and its subfolders, sorted.

    Hidden files, and what is in hidden folders, are left out; there are none if there is no such folder.
    """
    return [str(path) for path in _files(Path(folder)) if _has_suffix(path, IMAGE_SUFFIXES)]


def find_volumes(folder: str | Path) -> list[str]:
    """Returns the paths of all files with NIfTI's suffixes, as ``find_images`` does."""
    return [str(path) for path in _files(Path(folder)) if _has_suffix(path, VOLUME_SUFFIXES)]


def strip_suffix(path: Path) -> Path:
    """Returns the path without the suffix of an image, NIfTI or DICOM file; ``.nii.gz`` is one, a UID's end none."""
    for suffix in (*reversed(VOLUME_SUFFIXES), *IMAGE_SUFFIXES, *DICOM_SUFFIXES):
        if _has_suffix(path, (suffix,)) and len(path.name) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    return path


def _sniff(path: Path) -> InputKind | None:
    """Returns what a file is; all of DICOM is ``STILL``, whether more is in it or belongs to it is found later."""
    try:
        with path.open("rb") as file:
            start = file.read(_NIFTI_HEADER_BYTES)
    except OSError:
        start = b""
    if start[128:132] == b"DICM":  # first: the 128 bytes before it may be those of a TIFF
        return InputKind.STILL
    if start.startswith(_IMAGE_SIGNATURES):
        return InputKind.IMAGE
    if start.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as inflated:
                start = inflated.read(_NIFTI_HEADER_BYTES)
        except (OSError, EOFError, zlib.error):
            start = b""
    if any(start[offset : offset + 4] in magic for offset, magic in _NIFTI_MAGIC.items()):
        return InputKind.NIFTI
    if is_dicom(path):
        return InputKind.STILL
    if _has_suffix(path, IMAGE_SUFFIXES):
        return InputKind.IMAGE
    return InputKind.NIFTI if _has_suffix(path, VOLUME_SUFFIXES) else None


def _name_outputs(names: Sequence[Path]) -> list[str]:
    """Returns each path without suffix; with it, or a number, where two would have the same on any file system."""
    uses = Counter(str(strip_suffix(name)).lower() for name in names)
    taken = {output for output, number in uses.items() if number == 1}
    outputs = []
    for name in names:
        output = strip_suffix(name)
        if str(output).lower() not in taken:
            stem = name.name.replace(".", "_")
            candidates = (output.with_name(stem if n == 1 else f"{stem}_{n}") for n in count(1))
            output = next(candidate for candidate in candidates if str(candidate).lower() not in taken)
            taken.add(str(output).lower())
        outputs.append(output.as_posix())
    return outputs


def _has_suffix(path: Path, suffixes: Iterable[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(root)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
