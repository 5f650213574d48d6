"""Which images a set of DICOM files holds: stills, cines and volumes, grouped and ordered by what the headers say.

No pixels are decoded. Geometry is never guessed: what does not form an even stack of equal slices is an error of that
series, within the tolerances below.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.limits import MAX_VOLUME_MM3, MAX_VOLUME_VOXELS
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import escape
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, check_image, frame_attributes, numbers, read_header

__all__ = [
    "LPS_TO_RAS",
    "DicomCase",
    "DicomProblem",
    "FoundCases",
    "Plane",
    "find_dicom_cases",
    "find_one_case",
    "stack_planes",
]

# Modalities whose single images, where they have a position, are slices of a volume.
SLICE_MODALITIES = ("CT", "MR", "PT")
# Largest difference of a direction cosine within a series: 0.06 degrees.
ORIENTATION_TOLERANCE = 1e-3
# Slices closer than this, in mm, have the same position.
POSITION_TOLERANCE = 1e-2
# How far a slice may lie from its place in an even stack, as a fraction of the distance of slices: positions are often
# rounded to 0.1 mm. One missing slice moves another by a quarter at least.
GAP_TOLERANCE = 0.2
# Largest difference of the pixel spacing within a series, as a fraction.
SPACING_TOLERANCE = 1e-3

_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's axes (left, posterior, superior) to those of NIfTI (right, anterior, superior)."""


@dataclass(frozen=True)
class DicomCase:
    """A still, a cine, or the slices of a volume.

    Attributes:
        kind: a still is one frame, a cine the frames of one file, a series a volume: files, or the frames of one.
        paths: the files; those of a series from its first slice along the normal to its last.
        sop_uids: of the files.
        frames: of the still or cine; slices of the series.
        frame_order: for a series in one file, its frames from the first slice to the last.
        affine: of a series, from (column, row, slice) to RAS in mm.
        why_no_volume: of frames of CT, MR or PET that form none, what is missing; empty for what is no volume anyway.
    """

    kind: CaseKind
    paths: tuple[Path, ...]
    modality: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    frame_order: tuple[int, ...] = ()
    affine: np.ndarray | None = field(default=None, compare=False)
    why_no_volume: str = ""


@dataclass(frozen=True)
class DicomProblem:
    """Files that give no case, and why."""

    paths: tuple[Path, ...]
    reason: Reason
    detail: str
    modality: str = ""
    study_uid: str = ""
    series_uid: str = ""


class FoundCases(NamedTuple):
    """The cases of a set of files, and what is wrong with the other files; each file is in one of them, once."""

    cases: list[DicomCase]
    problems: list[DicomProblem]


class Plane(NamedTuple):
    """Where a slice lies: position of its first pixel, direction cosines of its rows and columns, pixel spacing; mm."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]


class _Image(NamedTuple):
    header: DicomHeader
    planes: list[Plane]

    @property
    def series(self) -> tuple[str, str, str]:
        """What the images of a series share; without a UID, the folder."""
        dataset = self.header.dataset
        uid = str(dataset.get("SeriesInstanceUID") or "") or str(self.header.path.parent)
        return str(dataset.get("StudyInstanceUID") or ""), uid, self.header.modality


def find_dicom_cases(paths: Iterable[str | Path]) -> FoundCases:
    """Finds the cases in DICOM files of any names, whatever folders they are in.

    CT, MR and PET slices of one series form a volume, as do the frames of an enhanced multi-frame image. Slices that
    all lie in one place, and whatever has no place, are stills; multi-frame images without places are cines.

    Returns:
        cases and problems, each in the order of their first paths.
    """
    stills: list[_Image] = []
    slices: defaultdict[tuple[str, str, str], list[_Image]] = defaultdict(list)
    cases: list[DicomCase] = []
    problems: list[DicomProblem] = []
    for path in sorted(map(Path, paths)):
        try:
            image = _read_image(path)
            if image.header.frames > 1:
                cases.append(_multi_frame_case(image))
            elif image.planes:
                slices[image.series].append(image)
            else:
                stills.append(image)
        except DicomError as error:
            problems.append(_problem([path], error))
    for images in slices.values():
        if _is_one_place([image.planes[0] for image in images]):
            stills += images
            continue
        try:
            cases.append(_series_case(images))
        except DicomError as error:
            problems.append(_problem([image.header.path for image in images], error, images[0].header))
    cases += [_case(CaseKind.STILL, [image.header], 1) for image in stills]
    return FoundCases(
        sorted(cases, key=lambda case: min(case.paths)), sorted(problems, key=lambda problem: problem.paths)
    )


def find_one_case(paths: Sequence[Path]) -> DicomCase:
    """Returns the one still, cine or volume that files are; objects without an image may be among them.

    Raises:
        DicomError: the files are none, more than one, or something is wrong with them.
    """
    cases, problems = find_dicom_cases(paths)
    failed = [problem for problem in problems if not (problem.reason.is_skip and cases)]
    if failed:
        raise DicomError(failed[0].paths[0], failed[0].reason, failed[0].detail)
    if len(cases) > 1:
        names = sorted({case.series_uid or "without a UID" for case in cases})
        raise DicomError(paths[0], Reason.MIXED_SERIES, f"{len(cases)} images, of the series {', '.join(names)}")
    return cases[0]


def stack_planes(path: Path, planes: Sequence[Plane], names: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """Orders slices along their normal.

    Args:
        path: named by the errors.
        planes: two or more, in any order.
        names: what the errors call each.

    Returns:
        the order, as indices, and the affine from (column, row, slice) to RAS in mm.

    Raises:
        DicomError: unless they are equal, parallel, in different places, and evenly spaced on a line; where they are on
            one that is not their normal (a tilted gantry) the affine is sheared.
    """
    orientations = np.array([plane.orientation for plane in planes])
    if np.abs(orientations - orientations[0]).max() > ORIENTATION_TOLERANCE:
        raise DicomError(path, Reason.MIXED_ORIENTATIONS, f"{len(planes)} slices")
    spacings = np.array([plane.spacing for plane in planes])
    if np.abs(spacings / spacings[0] - 1).max() > SPACING_TOLERANCE:
        raise DicomError(path, Reason.MIXED_SIZES, "pixel spacings differ")
    along_row, along_column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(along_row, along_column)
    positions = np.array([plane.position for plane in planes])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    distances = positions @ normal
    nearest = int(np.argmin(np.diff(distances)))
    if distances[nearest + 1] - distances[nearest] < POSITION_TOLERANCE:
        first, second = (names[index] for index in order[nearest : nearest + 2])
        detail = f"{first} and {second} are both at {_at(positions[nearest])}"
        raise DicomError(path, Reason.DUPLICATE_POSITIONS, detail)
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    places = positions[0] + np.arange(len(planes))[:, None] * step
    away = np.linalg.norm(positions - places, axis=1) / np.linalg.norm(step)
    if away.max() > GAP_TOLERANCE:
        gap = int(np.argmax(np.linalg.norm(np.diff(positions, axis=0), axis=1)))
        between = f"the widest gap is between {_at(positions[gap])} and {_at(positions[gap + 1])}"
        raise DicomError(path, Reason.SLICE_GAP, f"{len(planes)} slices, {between}")
    affine = np.eye(4)
    affine[:3, 0] = along_row * spacings[0, 1]
    affine[:3, 1] = along_column * spacings[0, 0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return order.tolist(), LPS_TO_RAS @ affine


def _check_extent(path: Path, shape: tuple[int, int, int], affine: np.ndarray) -> None:
    sides = np.linalg.norm(affine[:3, :3], axis=0) * shape
    if not sides.prod() <= MAX_VOLUME_MM3:
        named = " x ".join(f"{side:.4g}" for side in sides)
        raise DicomError(path, Reason.TOO_LARGE, f"{named} mm, more than any patient")


def _read_image(path: Path) -> _Image:
    header = read_header(path, _KEYWORDS)
    check_image(header)
    with as_dicom_errors(path, Reason.BAD_HEADER):
        return _Image(header, _read_planes(header))


def _read_planes(header: DicomHeader) -> list[Plane]:
    """Where the frames lie, nothing if that is not known of all, or they are not slices."""
    is_slice = header.modality in SLICE_MODALITIES and header.frames == 1
    is_enhanced = len(header.dataset.get("PerFrameFunctionalGroupsSequence") or ()) == header.frames
    if header.samples > 1 or not (is_slice or is_enhanced):
        return []
    planes = [_read_plane(frame_attributes(header.dataset, index)) for index in range(header.frames)]
    return [plane for plane in planes if plane is not None] if None not in planes else []


def _read_plane(attributes: Dataset) -> Plane | None:
    position = numbers(attributes, "ImagePositionPatient", 3)
    orientation = numbers(attributes, "ImageOrientationPatient", 6)
    spacing = numbers(attributes, "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths_and_angle = np.array([row @ row, column @ column, row @ column])
    if np.abs(lengths_and_angle - (1, 1, 0)).max() > 2 * ORIENTATION_TOLERANCE:
        return None
    return Plane(position, orientation, spacing)


def _is_one_place(planes: Sequence[Plane]) -> bool:
    positions = np.array([plane.position for plane in planes])
    return bool(np.abs(positions - positions[0]).max() < POSITION_TOLERANCE)


def _multi_frame_case(image: _Image) -> DicomCase:
    header = image.header
    if not image.planes or _is_one_place(image.planes):
        case = _case(CaseKind.CINE, [header], header.frames)
        with as_dicom_errors(header.path, Reason.BAD_HEADER):
            return replace(case, why_no_volume=_explain_cine(image)) if header.modality in SLICE_MODALITIES else case
    _check_volume(header, header.frames)
    order, affine = stack_planes(header.path, image.planes, [f"frame {n + 1}" for n in range(header.frames)])
    _check_extent(header.path, (header.columns, header.rows, header.frames), affine)
    return _case(CaseKind.SERIES, [header], header.frames, tuple(order), affine)


def _explain_cine(image: _Image) -> str:
    """Returns why the frames of a CT, MR or PET image are no volume."""
    what = f"{image.header.frames} frames of {image.header.modality}"
    if image.planes:
        return f"{what}, all in the same place"
    groups = image.header.dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if len(groups) not in (0, image.header.frames):
        return f"{what} with positions of {len(groups)} in PerFrameFunctionalGroups"
    planes = [frame_attributes(image.header.dataset, index) for index in range(len(groups) and image.header.frames)]
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    missing = [keyword for keyword in needed if not planes or any(not plane.get(keyword) for plane in planes)]
    return f"{what} without {', '.join(missing) or 'usable positions'} of each"


def _series_case(images: Sequence[_Image]) -> DicomCase:
    headers = [image.header for image in images]
    sizes = sorted({(header.rows, header.columns) for header in headers})
    if len(sizes) > 1:
        named = ", ".join(f"{rows} x {columns}" for rows, columns in sizes)
        raise DicomError(headers[0].path, Reason.MIXED_SIZES, f"rows x columns are {named}")
    _check_volume(headers[0], len(headers))
    shared = os.path.commonpath([header.path.parent for header in headers])
    names = [escape(header.path.relative_to(shared).as_posix()) for header in headers]
    order, affine = stack_planes(headers[0].path, [image.planes[0] for image in images], names)
    _check_extent(headers[0].path, (headers[0].columns, headers[0].rows, len(headers)), affine)
    _check_uids(headers)
    return _case(CaseKind.SERIES, [headers[index] for index in order], len(headers), affine=affine)


def _check_uids(headers: Sequence[DicomHeader]) -> None:
    """Says at reading what a writer could not: to which of its files a slice of the result belongs."""
    uid, count = Counter(header.sop_uid for header in headers).most_common(1)[0]
    if uid and count > 1:
        detail = f"{count} of {len(headers)} slices have the SOPInstanceUID {uid}; give each a UID of its own"
        raise DicomError(headers[0].path, Reason.DUPLICATE_UIDS, detail)


def _check_volume(header: DicomHeader, slices: int) -> None:
    voxels = header.rows * header.columns * slices
    if voxels > MAX_VOLUME_VOXELS:
        raise DicomError(header.path, Reason.TOO_LARGE, f"{voxels} voxels, limit {MAX_VOLUME_VOXELS}")


def _case(
    kind: CaseKind,
    headers: Sequence[DicomHeader],
    frames: int,
    frame_order: tuple[int, ...] = (),
    affine: np.ndarray | None = None,
) -> DicomCase:
    first = headers[0]
    return DicomCase(
        kind=kind,
        paths=tuple(header.path for header in headers),
        modality=first.modality,
        sop_class_uid=first.sop_class_uid,
        study_uid=str(first.dataset.get("StudyInstanceUID") or ""),
        series_uid=str(first.dataset.get("SeriesInstanceUID") or ""),
        sop_uids=tuple(header.sop_uid for header in headers),
        rows=first.rows,
        columns=first.columns,
        frames=frames,
        frame_order=frame_order,
        affine=affine,
    )


def _problem(paths: Sequence[Path], error: DicomError, header: DicomHeader | None = None) -> DicomProblem:
    if header is None:
        return DicomProblem(tuple(paths), error.reason, error.detail)
    study_uid, series_uid = (str(header.dataset.get(f"{of}InstanceUID") or "") for of in ("Study", "Series"))
    return DicomProblem(tuple(paths), error.reason, error.detail, header.modality, study_uid, series_uid)


def _at(position: np.ndarray) -> str:
    return "({}) mm".format(", ".join(f"{value:g}" for value in position))
