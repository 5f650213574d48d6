"""What touches the bytes of an input: reading a case and writing its results, callable in a process of its own."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.transforms.utils import reset_ops_id

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.measure import (
    Assessment,
    Measurement,
    measure_components,
    measure_labels,
    read_affine,
    read_mm,
)
from mobileutr_monai.inference.outputs.result import CaseResult, CineMasks, FrameTable
from mobileutr_monai.inference.outputs.writers import CaseWriter
from mobileutr_monai.inference.quality import Judge
from mobileutr_monai.inference.reading import CaseReader
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import mask_outside_tissue
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.notes import find_notes

__all__ = ["CaseLoader", "CaseWorker", "Written", "is_full_disk", "measure_case", "to_case_error"]

NOTE_SEPARATOR = "; "

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class Written(NamedTuple):
    """What was written of a case.

    Attributes:
        output: the label map's file, relative to the output folder.
        files: ending of each staged file of the case -> SHA-256.
        shape: of the label map.
        detail: what else the report says.
        assessments: one per label.
        components: those of each label, the largest first, if they are asked for.
    """

    output: str
    files: dict[str, str]
    shape: tuple[int, ...]
    measurements: list[Measurement]
    detail: str
    components: list[list[Measurement]] | None = None
    assessments: Sequence[Assessment] = ()


@dataclass(frozen=True)
class CaseLoader:
    """Reads cases. What is wrong with a case is returned.

    Errors are values here: when one case of a batch fails, the others go on, and a worker process sends one answer
    per case.
    """

    reader: CaseReader

    def read(self, case: InputCase) -> dict[str, Any] | CaseError:
        """Returns the preprocessed image of a case."""
        try:
            data = self.reader.read(case.paths)
        except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this case only
            return to_case_error(Reason.UNREADABLE, error, case.paths[0])
        return _from_any_process(data)

    def read_frames(self, case: InputCase) -> Iterator[dict[str, Any] | CaseError]:
        """Yields the preprocessed frames of a cine or video; what is wrong comes last."""
        try:
            for data in self.reader.read_frames(case.paths[0], case.kind):
                yield _from_any_process(data)
        except Exception as error:  # noqa: BLE001 - as above
            yield to_case_error(Reason.UNREADABLE, error, case.paths[0])


@dataclass(frozen=True)
class CaseWorker(CaseLoader):
    """Reads cases and writes their results. What is wrong with a case is returned, a full disk is raised.

    Attributes:
        labels: index -> name.
        measures_components: whether to measure every component of a label too.
    """

    writer: CaseWriter
    labels: Mapping[int, str]
    measures_components: bool = False

    @property
    def folder(self) -> OutputFolder:
        """The output folder, in which results are staged."""
        return OutputFolder(self.writer.folder)

    def write(
        self,
        case: InputCase,
        label: np.ndarray,
        judge: Judge,
        with_extras: bool = True,
        probabilities: np.ndarray | None = None,
    ) -> Written | CaseError:
        """Measures and stages the label map of anything but a cine, then its extras.

        Args:
            with_extras: whether to write those that are asked for.
            probabilities: as in ``CaseResult``, if they are to be written.

        Shape:
            - label: (rows, columns) or (x, y, z).

        Raises:
            OSError: the disk is full.
        """
        try:
            measured = measure_case(case, label, self.labels, judge, with_components=self.measures_components)
            measurements, assessments, components = measured
            writer = self._stage(case)
            result = CaseResult(case, label, measurements, writer.options, assessments, probabilities)
            output, *_ = writer.write(result)
        except Exception as error:
            if is_full_disk(error):
                raise
            return to_case_error(Reason.OUTPUT, error, case.paths[0])
        missing = self._write_extras(writer, result) if with_extras else ""
        name = output.relative_to(writer.folder).as_posix()
        detail = self.describe(case, missing)
        files = self.folder.list_staged(case.output)
        return Written(name, files, label.shape, measurements, detail, components, assessments)

    def describe(self, case: InputCase, missing: str) -> str:
        """Returns what the report says of a case that was segmented.

        Args:
            missing: why an extra is not there; before it comes what was changed in reading.
        """
        try:
            notes = find_notes(case)
        except (OSError, ValueError):  # it changed meanwhile, which ends the case
            notes = ()
        writer = self.writer
        reasons = (writer.why_plain(case), writer.why_not_in_formats(case), writer.why_not_referred(case), missing)
        return NOTE_SEPARATOR.join(filter(None, (*notes, *reasons)))

    def write_cine(self, case: InputCase, labels: Iterable[np.ndarray]) -> CineMasks:
        """Stages the label maps of a cine, as ``CaseWriter.write_cine`` does."""
        return self._stage(case).write_cine(case, labels)

    def finish_cine(
        self, case: InputCase, masks: CineMasks, measurements: Sequence[Measurement], frames: FrameTable | None = None
    ) -> str:
        """Stages what follows from a cine's label maps, frames decoded again; returns what the report says of it.

        Raises:
            OSError: the disk is full.
        """
        writer = self._staged(case)
        result = CaseResult(case, masks, measurements, writer.options, frames=frames)
        writer.write(result)
        return self._write_extras(writer, result)

    def _stage(self, case: InputCase) -> CaseWriter:
        """Returns the writer of an empty folder for the case."""
        return replace(self.writer, folder=self.folder.stage(case.output))

    def _staged(self, case: InputCase) -> CaseWriter:
        return replace(self.writer, folder=self.folder.find_staged(case.output))

    def _write_extras(self, writer: CaseWriter, result: CaseResult) -> str:
        """Writes pictures and reports; returns why some are not there: whatever is wrong with one costs it alone."""
        notes = [writer.why_no_overlay(result.case)]
        for name, write in writer.list_extras(result):
            try:
                write()
            except Exception as error:
                if is_full_disk(error):
                    raise
                notes.append(f"no {name}: {to_case_error(Reason.OUTPUT, error, result.case.paths[0]).detail}")
        return NOTE_SEPARATOR.join(filter(None, dict.fromkeys(notes)))


class _MeasuredCase(NamedTuple):
    measurements: list[Measurement]
    assessments: list[Assessment]
    components: list[list[Measurement]] | None


def measure_case(
    case: InputCase, label: np.ndarray, labels: Mapping[int, str], judge: Judge, *, with_components: bool = False
) -> _MeasuredCase:
    """Measures and assesses the label map of anything but a cine, on the grid that its file defines.

    Args:
        labels: index -> name.
        with_components: also measure every component of each label.

    Shape:
        - label: (rows, columns) or (x, y, z).

    Returns:
        ``measurements`` and ``assessments``, one per label, and ``components``, a list per label, or None.

    Raises:
        ValueError: the file's geometry cannot be read.
    """
    outside = mask_outside_tissue(case.paths[0]) if case.kind is CaseKind.STILL else None
    grid = (read_mm(case, label.ndim), outside, read_affine(case, label.ndim))
    measurements = measure_labels(label, labels, *grid)
    components = measure_components(label, labels, *grid) if with_components else None
    return _MeasuredCase(measurements, judge.assess(dict(zip(labels, measurements, strict=True))), components)


def is_full_disk(error: BaseException) -> bool:
    """Whether nothing more can be written, whatever the case."""
    return isinstance(error, OSError) and error.errno in FULL_DISK


def to_case_error(reason: Reason, error: BaseException, path: Path | None = None) -> CaseError:
    """Returns the first cause of an error in one line; what DICOM says of itself is more precise than ``reason``.

    Args:
        path: of the file, which is left out of it: whoever is told knows which one it is.
    """
    while error.__cause__ is not None:  # MONAI wraps a transform's error in one about the transform
        error = error.__cause__
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, DicomError):
        return CaseError(error.reason, error.detail)
    if isinstance(error, MemoryError) or "can't allocate memory" in detail:  # torch raises a RuntimeError
        return CaseError(Reason.MEMORY, "it does not fit into the memory that a case may take")
    if path is not None:
        detail = detail.removeprefix(f"image {path} cannot be read: ").removeprefix(f"{path}: ")
    return CaseError(reason, detail)


def _from_any_process(data: dict[str, Any]) -> dict[str, Any]:
    """Returns the data so that another process may invert its transforms: MONAI tells them by their address."""
    reset_ops_id(data)
    return data
