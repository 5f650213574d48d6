"""The results of a case as files: which format goes with which input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.dicom.secondary_capture import (
    iter_frame_masks,
    write_frame_masks,
    write_overlay_capture,
)
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel, write_segmentation
from mobileutr_monai.inference.outputs.nifti import save_label_volume
from mobileutr_monai.inference.outputs.overlay import View, draw_contours, draw_views, to_grey, view_volume
from mobileutr_monai.inference.outputs.png import save_label_image, save_picture
from mobileutr_monai.inference.report.thumbnails import save_thumbnail, thumbnail_path
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import explain_missing_tissue, read_pixel_size, read_tissue
from mobileutr_monai.readers.dicom.pixels import iter_frames
from mobileutr_monai.readers.dicom.reader import read_volume
from mobileutr_monai.readers.geometry import Geometry
from mobileutr_monai.readers.nifti_file import load_nifti, named, read_nifti_header, read_volume_geometry
from mobileutr_monai.readers.nifti_geometry import read_geometry, read_pixel_mm, to_nifti_header
from mobileutr_monai.readers.pillow_io import open_image, to_mode

__all__ = ["FORMATS", "OVERLAY_ENDINGS", "CaseWriter"]

Box = tuple[int, int, int, int]

FORMATS = ("auto", "plain")
"""``auto``: DICOM stills and series become DICOM SEG. ``plain``: they become PNG and NIfTI, as other inputs do."""


OVERLAY_ENDINGS = ("_overlay.png", "_overlay.dcm")
"""What the names of overlays end in."""


@dataclass(frozen=True)
class CaseWriter:
    """Writes the label map of a case, and pictures of it.

    Attributes:
        folder: the output folder.
        labels: of the bundle.
        algorithm: what DICOM results say they were made by.
        output_format: one of ``FORMATS``.
        overlays: whether to draw contours.
        whole_overlays: also outside of the tissue regions of ultrasound, where names may be burned in.
        thumbnails: whether to make the small pictures of the report page.
    """

    folder: Path
    labels: Sequence[SegmentLabel]
    algorithm: Algorithm
    output_format: str
    overlays: bool
    whole_overlays: bool
    thumbnails: bool = False

    @property
    def draws(self) -> bool:
        """Whether pictures are asked for."""
        return self.overlays or self.thumbnails

    def why_no_overlay(self, case: InputCase) -> str:
        """Returns why a case gets no overlay or thumbnail although they are asked for; empty if it gets them."""
        if (self.overlays or self.thumbnails) and not self._may_be_shown(case):
            what = "overlay" if self.overlays else "picture"
            why = explain_missing_tissue(case.paths[0])
            return f"no {what}: {why}, and a name may be burned in; --whole-overlays draws it"
        if self.overlays and case.kind is CaseKind.CINE and not _can_be_referred_to(case):
            return "no overlay: a capture cannot refer to a file without UIDs"
        return ""

    def why_plain(self, case: InputCase) -> str:
        """Returns why a DICOM case gets no DICOM Segmentation although it could; empty if it gets one."""
        missing = _missing_uids(case)
        if self.output_format != "auto" or case.kind is CaseKind.CINE or not missing:
            return ""
        return f"a plain mask: no DICOM object can refer to a file without {', '.join(missing)}"

    def write(self, case: InputCase, label: np.ndarray) -> tuple[Path, np.ndarray | None]:
        """Writes a label map of anything but a cine; returns its file and, if known, the mm along its axes.

        Shape:
            - label: (rows, columns) or (x, y, z).
        """
        base = self.folder / case.output
        base.parent.mkdir(parents=True, exist_ok=True)
        if case.dicom is not None and self.output_format == "auto" and _can_be_referred_to(case):
            output = _named(base, "_seg.dcm")
            write_segmentation(case.dicom, label, self.labels, self.algorithm, output)
        elif case.kind is CaseKind.NIFTI or label.ndim == 3:
            output = _named(base, "_mask.nii.gz")
            save_label_volume(*_prepare_nifti(case, label), output)
        else:
            output = _named(base, "_mask.png")
            save_label_image(label, output)
        return output, _read_mm(case, label.ndim)

    def draw(self, case: InputCase, label: np.ndarray) -> None:
        """Writes the pictures of anything but a cine, if asked: its overlay and its thumbnail.

        Shape:
            - label: as for ``write``.
        """
        if (self.overlays or self.thumbnails) and self._may_be_shown(case):
            views, tissue = _view(case, label), self._find_tissue(case)
            if self.overlays:
                overlay = _named(self.folder / case.output, "_overlay.png")
                save_picture(_black_out(draw_views(views), tissue), overlay)
            if self.thumbnails:
                self._save_thumbnail(case, views, tissue)

    def write_cine(self, case: InputCase, labels: Iterable[np.ndarray]) -> tuple[Path, LargestFrame]:
        """Writes the label maps of a cine's frames as a NIfTI stack; returns it, and the frame with most of labels.

        Shape:
            - labels: (rows, columns) each.
        """
        assert case.dicom is not None
        base = self.folder / case.output
        base.parent.mkdir(parents=True, exist_ok=True)
        output = _named(base, "_mask.nii.gz")
        largest = LargestFrame()
        write_frame_masks(case.dicom, largest.watch(labels), output)
        return output, largest

    def draw_cine(self, case: InputCase, masks: Path, largest: LargestFrame) -> None:
        """Writes the pictures of a cine, if asked: its overlay, a secondary capture, and its thumbnail.

        Args:
            masks: what ``write_cine`` wrote.
            largest: the frame to show where one stands for all.
        """
        assert case.dicom is not None
        if self.overlays and _can_be_referred_to(case) and self._may_be_shown(case):
            pictures = self._draw_frames(case, iter_frame_masks(masks), largest)
            output = _named(self.folder / case.output, "_overlay.dcm")
            write_overlay_capture(case.dicom, pictures, self.algorithm, output)
        elif self.thumbnails and self._may_be_shown(case):
            labels = islice(iter_frame_masks(masks), largest.index, largest.index + 1)
            for view in _view_frames(case, labels, largest.index):
                self._save_frame(case, view, largest)

    def _may_be_shown(self, case: InputCase) -> bool:
        """Whether the picture may be drawn: an ultrasound that does not say where its tissue is may show a name."""
        return (
            self.whole_overlays or case.dicom is None or case.dicom.modality != "US" or bool(read_tissue(case.paths[0]))
        )

    def _find_tissue(self, case: InputCase) -> Box | None:
        """Returns what of a picture may be shown, None for all of it."""
        if self.whole_overlays or case.kind not in (CaseKind.STILL, CaseKind.CINE):
            return None
        return read_tissue(case.paths[0])

    def _draw_frames(
        self, case: InputCase, labels: Iterable[np.ndarray], largest: LargestFrame
    ) -> Iterator[Image.Image]:
        """Yields the frames of a cine with contours, and saves the thumbnail of the one with the largest labels."""
        tissue = self._find_tissue(case)
        for index, view in enumerate(_view_frames(case, labels)):
            if self.thumbnails and index == largest.index:
                self._save_frame(case, view, largest)
            yield _black_out(draw_contours(view.picture, view.label), tissue)

    def _save_frame(self, case: InputCase, view: View, frame: LargestFrame) -> None:
        name = f"frame {frame.index + 1} of {frame.count}{', largest area' if frame.pixels else ''}"
        self._save_thumbnail(case, [view._replace(name=name)], self._find_tissue(case))

    def _save_thumbnail(self, case: InputCase, views: Sequence[View], tissue: Box | None) -> None:
        save_thumbnail([_crop(view, tissue) for view in views], thumbnail_path(self.folder, case.output))


class LargestFrame:
    """The frame of a cine whose label map has most pixels of labels: its index, and the number of frames."""

    def __init__(self) -> None:
        self.index, self.pixels, self.count = 0, -1, 0

    def watch(self, labels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for index, label in enumerate(labels):
            self.count = index + 1
            pixels = int(np.count_nonzero(label))
            if pixels > self.pixels:
                self.index, self.pixels = index, pixels
            yield label


def _view(case: InputCase, label: np.ndarray) -> list[View]:
    """Returns what is shown of anything but a cine."""
    if case.kind is CaseKind.IMAGE:
        with open_image(case.paths[0], "image") as image:
            return [View(to_mode(image, "RGB").copy(), label)]  # which stays when the file is closed
    if case.kind is CaseKind.STILL:
        return list(_view_frames(case, [label]))
    if case.dicom is not None and case.dicom.affine is not None:
        return view_volume(read_volume(case.dicom), label, case.dicom.affine)
    source = load_nifti(case.paths[0])
    values = np.asarray(source.values, dtype=np.float32)
    if label.ndim == 3:
        geometry = named(case.paths[0], read_geometry, source.header, values.shape)
        return view_volume(values, label, geometry.affine)
    return [View(Image.fromarray(to_grey(np.swapaxes(values, 0, 1))), label)]


def _view_frames(case: InputCase, labels: Iterable[np.ndarray], start: int = 0) -> Iterator[View]:
    """Yields the frames of a DICOM still or cine, from one on, as long as there are label maps."""
    for label, frame in zip(labels, iter_frames(case.paths[0], "RGB", start), strict=False):
        yield View(Image.fromarray(frame), label)


def _black_out(picture: Image.Image, box: Box | None) -> Image.Image:
    """Returns a picture black outside of (top, left, bottom, right)."""
    if box is None:
        return picture
    top, left, bottom, right = box
    result = Image.new("RGB", picture.size)
    result.paste(picture.crop((left, top, right, bottom)), (left, top))
    return result


def _crop(view: View, box: Box | None) -> View:
    if box is None:
        return view
    top, left, bottom, right = box
    picture = view.picture.crop((left, top, right, bottom))
    return view._replace(picture=picture, label=view.label[top:bottom, left:right])


def _can_be_referred_to(case: InputCase) -> bool:
    """Whether DICOM objects can be derived from a case: files without UIDs have no name to be called by."""
    return case.dicom is not None and not _missing_uids(case)


def _missing_uids(case: InputCase) -> list[str]:
    """Returns the UIDs that a DICOM object needs of its source and that are not there."""
    if case.dicom is None:
        return []
    found = {
        "SOPInstanceUID": all(case.dicom.sop_uids),
        "SOPClassUID": bool(case.dicom.sop_class_uid),
        "StudyInstanceUID": bool(case.dicom.study_uid),
        "SeriesInstanceUID": bool(case.dicom.series_uid),
    }
    return [name for name, is_there in found.items() if not is_there]


def _named(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


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


def _read_mm(case: InputCase, dimensions: int) -> np.ndarray | None:
    """Returns the step along each axis of the label map in mm, as columns; None where the file does not state it."""
    if case.kind is CaseKind.IMAGE:
        return None
    if case.kind is CaseKind.STILL:
        size = read_pixel_size(case.paths[0])
        return None if size is None else np.diag((size.row_mm, size.column_mm))
    if case.dicom is not None and case.dicom.affine is not None:
        return Geometry(case.dicom.affine).to_mm
    if dimensions == 3:
        return read_volume_geometry(case.paths[0]).to_mm
    pixel = read_pixel_mm(read_nifti_header(case.paths[0]))
    return None if pixel is None else np.diag(pixel)
