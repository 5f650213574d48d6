"""The table of outputs: one row per kind of file that a run writes for a case.

A new kind of file is a module next to this one and a row of ``OUTPUTS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image

from mobileutr_monai.core.choices import FURTHER_FORMATS
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.measure import read_mm
from mobileutr_monai.inference.outputs.dicom.presentation_state import write_presentation_state
from mobileutr_monai.inference.outputs.dicom.rtstruct import write_structure_set
from mobileutr_monai.inference.outputs.dicom.secondary_capture import write_overlay_capture
from mobileutr_monai.inference.outputs.dicom.seg import BINARY, write_probabilities, write_segmentation
from mobileutr_monai.inference.outputs.dicom.sr import write_report
from mobileutr_monai.inference.outputs.geojson import write_geojson
from mobileutr_monai.inference.outputs.mask_stack import iter_frame_masks
from mobileutr_monai.inference.outputs.nifti import save_label_volume
from mobileutr_monai.inference.outputs.overlay import draw_contours, draw_views
from mobileutr_monai.inference.outputs.png import save_label_image, save_picture
from mobileutr_monai.inference.outputs.result import Box, CaseResult, CineMasks, OutputOptions, can_be_referred_to
from mobileutr_monai.inference.outputs.slicer import write_slicer_segmentation
from mobileutr_monai.inference.outputs.video import write_frame_table, write_overlay_video
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.nifti_file import named, read_nifti_header
from mobileutr_monai.readers.nifti_geometry import read_geometry, to_nifti_header

__all__ = ["OUTPUTS", "OVERLAY_ENDINGS", "Output", "draw_overlay", "find_missing_formats", "find_outputs"]


PICTURE = "picture"
"""Extra that is drawn on the input."""


class Output(NamedTuple):
    """A kind of file.

    Attributes:
        ending: what the file's name ends in, after that of the case.
        accepts: whether a case gets one, with these options.
        write: writes it to a path, atomically.
        extra: what the report calls it if it is not the label map: what is wrong with it costs neither the other files
            nor the case.
    """

    ending: str
    accepts: Callable[[InputCase, OutputOptions], bool]
    write: Callable[[CaseResult, Path], None]
    extra: str = ""


def find_outputs(case: InputCase, options: OutputOptions, *, extras: bool) -> list[Output]:
    """Returns the rows that accept a case, in the order of the table: extras, or everything else."""
    return [row for row in OUTPUTS.values() if bool(row.extra) is extras and row.accepts(case, options)]


def find_missing_formats(case: InputCase, options: OutputOptions) -> list[str]:
    """Returns the formats that are asked for and that a case cannot be written in."""
    return [
        name
        for name in options.formats
        if not FURTHER_FORMATS[name].of_report
        and not (OUTPUTS[name].accepts(case, options) if name in OUTPUTS else _is_image(case))
    ]


def _is_image(case: InputCase) -> bool:
    return case.kind in (CaseKind.IMAGE, CaseKind.STILL, CaseKind.NIFTI)


def _becomes_seg(case: InputCase, options: OutputOptions) -> bool:
    return case.kind is not CaseKind.CINE and options.output_format == "auto" and can_be_referred_to(case)


def _write_seg(result: CaseResult, path: Path) -> None:
    assert result.case.dicom is not None
    options = result.options
    write_segmentation(
        result.case.dicom,
        result.array,
        options.labels,
        options.algorithm,
        path,
        seg_type=options.seg_type,
        keep_empty_frames=options.keep_empty_frames,
        place_stills=options.place_stills,
    )


def _gets_probabilities(case: InputCase, options: OutputOptions) -> bool:
    return options.probabilities and case.kind is not CaseKind.CINE and can_be_referred_to(case)


def _write_probabilities(result: CaseResult, path: Path) -> None:
    assert result.case.dicom is not None and result.probabilities is not None
    options = result.options
    write_probabilities(
        result.case.dicom,
        result.probabilities,
        options.labels,
        options.algorithm,
        path,
        keep_empty_frames=options.keep_empty_frames,
    )


def _gets_report(case: InputCase, options: OutputOptions) -> bool:
    return options.structured_report and case.kind is not CaseKind.CINE and can_be_referred_to(case)


def _write_structured_report(result: CaseResult, path: Path) -> None:
    assert result.case.dicom is not None
    segmentation = path.with_name(path.name.removesuffix("_sr.dcm") + "_seg.dcm")
    # dcmtk 3.6 and dciodvfy refuse reports that refer to the segments of a LABELMAP.
    is_binary = _becomes_seg(result.case, result.options) and result.options.seg_type == BINARY
    write_report(
        result.case.dicom,
        result.options.labels,
        result.measurements,
        result.assessments,
        result.options.algorithm,
        path,
        segmentation=segmentation if is_binary else None,
    )


def _becomes_nifti(case: InputCase, options: OutputOptions) -> bool:
    is_plain_series = case.kind is CaseKind.SERIES and not _becomes_seg(case, options)
    return case.kind is CaseKind.NIFTI or is_plain_series


def _write_nifti(result: CaseResult, path: Path) -> None:
    save_label_volume(*_prepare_nifti(result.case, result.array), path)


def _prepare_nifti(case: InputCase, label: np.ndarray) -> tuple[np.ndarray, nib.nifti1.Nifti1Header]:
    """Returns a label map with the axes of its NIfTI, and the header whose geometry it has."""
    if case.dicom is not None:
        assert case.dicom.affine is not None
        return label, to_nifti_header(case.dicom.affine)
    header = read_nifti_header(case.paths[0])
    if label.ndim == 3:
        return label, header
    # An image of ITK's colours is (x, y, 1, 1, 3).
    axes = (1,) if int(header["dim"][0]) >= 3 else ()
    return label.T.reshape(*label.T.shape, *axes), header


def _becomes_png(case: InputCase, options: OutputOptions) -> bool:
    is_plain_still = case.kind is CaseKind.STILL and not _becomes_seg(case, options)
    return case.kind is CaseKind.IMAGE or is_plain_still


def _write_png(result: CaseResult, path: Path) -> None:
    save_label_image(result.array, path)


def _gets_overlay(case: InputCase, options: OutputOptions) -> bool:
    return options.overlays and not case.kind.has_frames and options.may_show(case)


def _write_overlay(result: CaseResult, path: Path) -> None:
    save_picture(draw_overlay(result), path)


def draw_overlay(result: CaseResult) -> Image.Image:
    """Returns the contours on the image, on planes of a volume, or on the frame of a cine or video with most label.

    It is black outside of what may be shown, see ``CaseResult.tissue``.
    """
    return _black_out(draw_views(result.views), result.tissue)


def _gets_capture(case: InputCase, options: OutputOptions) -> bool:
    return options.overlays and case.kind is CaseKind.CINE and can_be_referred_to(case) and options.may_show(case)


def _write_capture(result: CaseResult, path: Path) -> None:
    assert result.case.dicom is not None
    pictures = (_black_out(draw_contours(view.picture, view.label), result.tissue) for view in result.iter_views())
    write_overlay_capture(result.case.dicom, pictures, result.options.algorithm, path)


def _gets_overlay_video(case: InputCase, options: OutputOptions) -> bool:
    return options.overlays and case.kind is CaseKind.VIDEO


def _write_overlay_video(result: CaseResult, path: Path) -> None:
    assert isinstance(result.label, CineMasks)
    write_overlay_video(result.case.paths[0], iter_frame_masks(result.label.path), path)


def _gets_frame_table(case: InputCase, _: OutputOptions) -> bool:
    return case.kind is CaseKind.VIDEO


def _write_frame_table(result: CaseResult, path: Path) -> None:
    assert result.frames is not None
    write_frame_table(result.frames, path)


def _black_out(picture: Image.Image, box: Box | None) -> Image.Image:
    """Returns a picture black outside of (top, left, bottom, right)."""
    if box is None:
        return picture
    top, left, bottom, right = box
    result = Image.new("RGB", picture.size)
    result.paste(picture.crop((left, top, right, bottom)), (left, top))
    return result


def _gets_nrrd(case: InputCase, options: OutputOptions) -> bool:
    return "nrrd" in options.formats and not case.kind.has_frames


def _write_nrrd(result: CaseResult, path: Path) -> None:
    write_slicer_segmentation(*_place(result.case, result.array), result.options.labels, path)


def _place(case: InputCase, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a label map with three axes, and its affine to RAS in mm; an image lies as ITK reads its file."""
    if case.kind is CaseKind.NIFTI:
        volume, header = _prepare_nifti(case, label)
        volume = volume.reshape((*volume.shape, 1)[:3])
        return volume, named(case.paths[0], read_geometry, header, volume.shape).affine
    if case.dicom is not None and case.dicom.affine is not None:
        return label, case.dicom.affine
    to_mm = read_mm(case, label.ndim)
    height, width = (1.0, 1.0) if to_mm is None else np.diag(to_mm)
    return label.T[..., np.newaxis], np.diag((-width, -height, 1.0, 1.0))


def _gets_geojson(case: InputCase, options: OutputOptions) -> bool:
    return "geojson" in options.formats and _is_image(case)


def _write_geojson(result: CaseResult, path: Path) -> None:
    write_geojson(result.array, result.options.labels, path)


def _gets_structure_set(case: InputCase, options: OutputOptions) -> bool:
    return "rtstruct" in options.formats and case.kind is CaseKind.SERIES and can_be_referred_to(case)


def _write_structure_set(result: CaseResult, path: Path) -> None:
    assert result.case.dicom is not None
    write_structure_set(result.case.dicom, result.array, result.options.labels, result.options.algorithm, path)


def _gets_presentation_state(case: InputCase, options: OutputOptions) -> bool:
    return options.presentation_state and case.kind is not CaseKind.SERIES and can_be_referred_to(case)


def _write_presentation_state(result: CaseResult, path: Path) -> None:
    assert result.case.dicom is not None
    found = result.label
    label_maps = iter_frame_masks(found.path) if isinstance(found, CineMasks) else [found]
    write_presentation_state(result.case.dicom, label_maps, result.options.labels, result.options.algorithm, path)


OUTPUTS: dict[str, Output] = {
    "dicom_seg": Output("_seg.dcm", _becomes_seg, _write_seg),
    "nifti": Output("_mask.nii.gz", _becomes_nifti, _write_nifti),
    "png": Output("_mask.png", _becomes_png, _write_png),
    "overlay": Output("_overlay.png", _gets_overlay, _write_overlay, PICTURE),
    "structured_report": Output("_sr.dcm", _gets_report, _write_structured_report, "structured report"),
    "presentation_state": Output("_pr.dcm", _gets_presentation_state, _write_presentation_state, "presentation state"),
    "nrrd": Output("_mask.seg.nrrd", _gets_nrrd, _write_nrrd, "nrrd"),
    "geojson": Output(".geojson", _gets_geojson, _write_geojson, "geojson"),
    "rtstruct": Output("_rtstruct.dcm", _gets_structure_set, _write_structure_set, "rtstruct"),
    "probabilities": Output("_probabilities.dcm", _gets_probabilities, _write_probabilities, "probabilities"),
    "overlay_capture": Output("_overlay.dcm", _gets_capture, _write_capture, PICTURE),
    "overlay_video": Output("_overlay.mp4", _gets_overlay_video, _write_overlay_video, PICTURE),
    "frames": Output("_frames.csv", _gets_frame_table, _write_frame_table),
}
"""Name, of further formats that of ``FURTHER_FORMATS`` -> row. The first row that accepts a case and is no extra writes
its label map. The label maps of a cine's or video's frames are written as they come, by ``CaseWriter.write_cine``."""

OVERLAY_ENDINGS = tuple(row.ending for row in OUTPUTS.values() if row.extra == PICTURE)
