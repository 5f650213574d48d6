"""The results of a case as files: which format goes with which input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from PIL import Image

from mobileutr_monai.data.cases import InputCase, InputKind
from mobileutr_monai.data.dicom import read_volume
from mobileutr_monai.data.dicom_pixels import iter_frames
from mobileutr_monai.data.dicom_scale import read_pixel_size, read_tissue
from mobileutr_monai.inference.dicom_capture import iter_frame_masks, write_frame_masks, write_overlay_capture
from mobileutr_monai.inference.dicom_derived import Algorithm
from mobileutr_monai.inference.dicom_seg import SegmentLabel, write_segmentation
from mobileutr_monai.inference.outputs import save_label_image, save_label_volume, save_picture
from mobileutr_monai.inference.overlay import draw_contours, draw_volume, to_grey

__all__ = ["FORMATS", "CaseWriter"]

FORMATS = ("auto", "plain")
"""``auto``: DICOM stills and series become DICOM SEG. ``plain``: they become PNG and NIfTI, as other inputs do."""


ENDINGS = ("_mask.png", "_mask.nii.gz", "_seg.dcm", "_overlay.png", "_overlay.dcm")
"""What the names of all results end in."""


@dataclass(frozen=True)
class CaseWriter:
    """Writes the label map of a case, and its overlay.

    Attributes:
        folder: the output folder.
        labels: of the bundle.
        algorithm: what DICOM results say they were made by.
        output_format: one of ``FORMATS``.
        overlays: whether to draw contours.
        whole_overlays: also outside of the tissue regions of ultrasound, where names may be burned in.
    """

    folder: Path
    labels: Sequence[SegmentLabel]
    algorithm: Algorithm
    output_format: str
    overlays: bool
    whole_overlays: bool

    def clear(self, case: InputCase) -> None:
        """Removes what an earlier run may have left of a case."""
        for ending in ENDINGS:
            _named(self.folder / case.output, ending).unlink(missing_ok=True)

    def why_no_overlay(self, case: InputCase) -> str:
        """Returns why a case gets no overlay although they are asked for; empty if it gets one."""
        if not self.overlays:
            return ""
        if not self._may_be_shown(case):
            return "no overlay: it states no regions of tissue, and a name may be burned in; --whole-overlays draws it"
        if case.kind is InputKind.CINE and not _can_be_referred_to(case):
            return "no overlay: a capture cannot refer to a file without UIDs"
        return ""

    def write(self, case: InputCase, label: np.ndarray) -> tuple[Path, tuple[float, ...] | None]:
        """Writes a label map of anything but a cine; returns its file and the mm along its axes, if known.

        Shape:
            - label: (rows, columns) or (x, y, z).
        """
        base = self.folder / case.output
        base.parent.mkdir(parents=True, exist_ok=True)
        if self.overlays:
            picture = self._draw(case, label)
            if picture is not None:
                save_picture(picture, _named(base, "_overlay.png"))
        if case.dicom is not None and self.output_format == "auto" and _can_be_referred_to(case):
            output = _named(base, "_seg.dcm")
            write_segmentation(case.dicom, label, self.labels, self.algorithm, output)
        elif case.kind is InputKind.NIFTI or label.ndim == 3:
            output = _named(base, "_mask.nii.gz")
            geometry = _geometry(case)
            save_label_volume(label.T.reshape(geometry.shape) if label.ndim == 2 else label, geometry, output)
        else:
            output = _named(base, "_mask.png")
            save_label_image(label, output)
        return output, _spacing(case, label.ndim)

    def write_cine(self, case: InputCase, labels: Iterable[np.ndarray]) -> Path:
        """Writes the label maps of a cine's frames as a NIfTI stack and, as an overlay, a secondary capture.

        Shape:
            - labels: (rows, columns) each.
        """
        assert case.dicom is not None
        base = self.folder / case.output
        base.parent.mkdir(parents=True, exist_ok=True)
        output = _named(base, "_mask.nii.gz")
        write_frame_masks(case.dicom, labels, output)
        if self.overlays and _can_be_referred_to(case) and self._may_be_shown(case):
            pictures = self._draw_frames(case, iter_frame_masks(output))
            write_overlay_capture(case.dicom, pictures, self.algorithm, _named(base, "_overlay.dcm"))
        return output

    def _draw(self, case: InputCase, label: np.ndarray) -> Image.Image | None:
        if case.kind is InputKind.IMAGE:
            with Image.open(case.paths[0]) as image:
                return draw_contours(image, label)
        if case.kind is InputKind.STILL:
            return next(self._draw_frames(case, [label])) if self._may_be_shown(case) else None
        if case.dicom is not None and case.dicom.affine is not None:
            return draw_volume(read_volume(case.dicom), label, case.dicom.affine)
        source = cast(nib.nifti1.Nifti1Image, nib.load(case.paths[0]))
        values = np.asarray(source.dataobj, dtype=np.float32)
        if label.ndim == 2:
            return draw_contours(Image.fromarray(to_grey(values.reshape(label.T.shape)).T), label)
        return draw_volume(values, label, source.affine)

    def _may_be_shown(self, case: InputCase) -> bool:
        """Whether the picture may be drawn: an ultrasound that does not say where its tissue is may show a name."""
        return (
            self.whole_overlays or case.dicom is None or case.dicom.modality != "US" or bool(read_tissue(case.paths[0]))
        )

    def _draw_frames(self, case: InputCase, labels: Iterable[np.ndarray]) -> Iterator[Image.Image]:
        """Yields the frames of a DICOM still or cine with contours; of an ultrasound its tissue, black around it."""
        tissue = None if self.whole_overlays else read_tissue(case.paths[0])
        for frame, label in zip(iter_frames(case.paths[0], "RGB"), labels, strict=True):
            picture = draw_contours(Image.fromarray(frame), label)
            if tissue is not None:
                top, left, bottom, right = tissue
                inside = picture.crop((left, top, right, bottom))
                picture = Image.new("RGB", picture.size)
                picture.paste(inside, (left, top))
            yield picture


def _can_be_referred_to(case: InputCase) -> bool:
    """Whether DICOM objects can be derived from a case: files without UIDs have no name to be called by."""
    return case.dicom is not None and all(case.dicom.sop_uids) and bool(case.dicom.sop_class_uid)


def _named(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _geometry(case: InputCase) -> nib.nifti1.Nifti1Image:
    """Returns an image with the geometry that a volume's label map has."""
    if case.dicom is None:
        return cast(nib.nifti1.Nifti1Image, nib.load(case.paths[0]))
    image = nib.nifti1.Nifti1Image(np.zeros((1, 1, 1), np.uint8), case.dicom.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(case.dicom.affine, 1)
    image.set_qform(case.dicom.affine, 1)
    return image


def _spacing(case: InputCase, dimensions: int) -> tuple[float, ...] | None:
    """Returns the mm along the axes of the label map, None where the file does not say."""
    if case.kind is InputKind.IMAGE:
        return None
    if case.kind is InputKind.STILL:
        size = read_pixel_size(case.paths[0])
        return None if size is None else (size.row_mm, size.column_mm)
    source = _geometry(case)
    # The unit is often left out; the format's own convention is then mm, provided that the header has a geometry.
    if source.header["sform_code"] <= 0 and source.header["qform_code"] <= 0:
        return None
    unit = {"mm": 1.0, "unknown": 1.0, "micron": 1e-3, "meter": 1e3}[source.header.get_xyzt_units()[0]]
    sides = tuple(float(side) * unit for side in nib.affines.voxel_sizes(source.affine))
    return sides if dimensions == 3 else (sides[1], sides[0])
