"""Writes the files of a case, as the table of outputs says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.outputs.dicom.secondary_capture import write_frame_masks
from mobileutr_monai.inference.outputs.mask_stack import write_mask_stack
from mobileutr_monai.inference.outputs.overlay import View
from mobileutr_monai.inference.outputs.result import (
    Box,
    CaseResult,
    CineMasks,
    LargestFrame,
    OutputOptions,
    can_be_referred_to,
    missing_uids,
)
from mobileutr_monai.inference.outputs.table import Output, find_missing_formats, find_outputs
from mobileutr_monai.inference.report.thumbnails import save_thumbnail, thumbnail_path
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import explain_missing_tissue

__all__ = ["CaseWriter"]

FRAMES_ENDING = "_mask.nii.gz"
"""Of the label maps of a cine's frames, a stack."""


@dataclass(frozen=True)
class CaseWriter:
    """Writes the label map of a case, and its extras: pictures and reports.

    Attributes:
        folder: the output folder.
    """

    folder: Path
    options: OutputOptions

    @property
    def has_extras(self) -> bool:
        """Whether anything is asked for besides the label map."""
        options = self.options
        asked = (options.structured_report, options.presentation_state, options.probabilities, options.formats)
        return self._draws or any(asked)

    @property
    def _draws(self) -> bool:
        return self.options.overlays or self.options.thumbnails

    def why_no_overlay(self, case: InputCase) -> str:
        """Returns why a case gets no overlay or thumbnail although they are asked for; empty if it gets them."""
        if self._draws and not self.options.may_show(case):
            what = "overlay" if self.options.overlays else "picture"
            why = explain_missing_tissue(case.paths[0])
            return f"no {what}: {why}, so a burned-in name cannot be ruled out; use --whole-overlays to draw anyway"
        if self.options.overlays and case.kind is CaseKind.CINE and not can_be_referred_to(case):
            return "no overlay: a capture cannot refer to a file without UIDs"
        return ""

    def why_plain(self, case: InputCase) -> str:
        """Returns why a DICOM case gets no DICOM Segmentation although it could; empty if it gets one."""
        missing = missing_uids(case)
        if self.options.output_format != "auto" or case.kind is CaseKind.CINE or not missing:
            return ""
        return f"a plain mask: no DICOM object can refer to a file without {', '.join(missing)}"

    def why_not_referred(self, case: InputCase) -> str:
        """Returns why a DICOM case lacks an object beside its label map that is asked for; empty if it lacks none."""
        if self.options.structured_report and case.kind is CaseKind.CINE:
            return "no structured report: they are for stills and series, and this is a cine"
        if self.options.presentation_state and case.kind is CaseKind.SERIES:
            return "no presentation state: they are for stills and cines, and this is a series"
        return ""

    def why_not_in_formats(self, case: InputCase) -> str:
        """Returns why a case is not in a format that is asked for; empty if it is in all of them."""
        missing = ", ".join(find_missing_formats(case, self.options))
        if not missing:
            return ""
        if case.kind.has_frames:
            what = "video" if case.kind is CaseKind.VIDEO else "cine"
            return f"no {missing}: the label maps of a {what} are only in its NIfTI"
        return f"no {missing}: it refers to the slices of a DICOM series with UIDs"

    def write(self, result: CaseResult) -> list[Path]:
        """Writes all files of a case but its extras; returns them, that of the label map first.

        The label maps of a cine are written before by ``write_cine``.
        """
        rows = find_outputs(result.case, self.options, extras=False)
        return [self._write(row, result) for row in rows]

    def list_extras(self, result: CaseResult) -> list[tuple[str, Callable[[], object]]]:
        """Returns what a case gets besides, if asked, by name: overlay, thumbnail, reports; and what writes each."""
        rows = find_outputs(result.case, self.options, extras=True)
        extras: list[tuple[str, Callable[[], object]]] = [
            (row.extra, partial(self._write, row, result)) for row in rows
        ]
        if self.options.thumbnails and self.options.may_show(result.case):
            extras.append(("picture", partial(self._write_thumbnail, result)))
        return extras

    def write_cine(self, case: InputCase, labels: Iterable[np.ndarray]) -> CineMasks:
        """Writes the label maps of a cine's or video's frames as they come.

        Shape:
            - labels: (rows, columns) each.
        """
        output = self._path(case, FRAMES_ENDING)
        largest = LargestFrame()
        if case.dicom is None:
            write_mask_stack(case.paths[0], largest.watch(labels), output)
        else:
            write_frame_masks(case.dicom, largest.watch(labels), output)
        return CineMasks(output, largest)

    def _write(self, row: Output, result: CaseResult) -> Path:
        path = self._path(result.case, row.ending)
        row.write(result, path)
        return path

    def _write_thumbnail(self, result: CaseResult) -> None:
        views = [_crop(view, result.tissue) for view in result.views]
        save_thumbnail(views, thumbnail_path(self.folder, result.case.output))

    def _path(self, case: InputCase, ending: str) -> Path:
        base = self.folder / case.output
        base.parent.mkdir(parents=True, exist_ok=True)
        return base.with_name(base.name + ending)


def _crop(view: View, box: Box | None) -> View:
    if box is None:
        return view
    top, left, bottom, right = box
    picture = view.picture.crop((left, top, right, bottom))
    return view._replace(picture=picture, label=view.label[top:bottom, left:right])
