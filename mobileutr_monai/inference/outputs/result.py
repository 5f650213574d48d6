"""What there is to write of a case, and what of it may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.measure import Assessment, Measurement
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.outputs.mask_stack import iter_frame_masks
from mobileutr_monai.inference.outputs.overlay import View, to_grey, view_volume
from mobileutr_monai.inference.outputs.video import FrameTable
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.calibration import read_tissue
from mobileutr_monai.readers.dicom.pixels import iter_frames
from mobileutr_monai.readers.dicom.reader import read_volume
from mobileutr_monai.readers.nifti_file import load_nifti, named
from mobileutr_monai.readers.nifti_geometry import read_geometry
from mobileutr_monai.readers.pillow_io import open_image, to_mode
from mobileutr_monai.readers.video.frames import iter_video

__all__ = [
    "CaseResult",
    "CineMasks",
    "FrameTable",
    "LargestFrame",
    "OutputOptions",
    "can_be_referred_to",
    "missing_uids",
]

Box = tuple[int, int, int, int]


class OutputOptions(NamedTuple):
    """What a run asks of its outputs.

    Attributes:
        labels: of the bundle.
        algorithm: what DICOM results say they were made by.
        output_format: ``auto``: DICOM stills and series become DICOM SEG. ``plain``: they become PNG and NIfTI, as
            other inputs do.
        overlays: whether to draw contours.
        whole_overlays: also outside of the tissue regions of ultrasound, where names may be burned in.
        thumbnails: whether to make the small pictures of the report page.
        structured_report: whether DICOM stills and series get a structured report of their measurements.
        presentation_state: whether DICOM stills and cines get their contours as a presentation state.
        formats: what results are also written in, keys of ``FURTHER_FORMATS``.
        seg_type: of DICOM SEG: ``binary`` or ``labelmap``.
        keep_empty_frames: whether DICOM SEG has frames without a pixel.
        place_stills: whether DICOM SEG of stills without a place in the patient has a synthetic one.
        probabilities: whether DICOM stills and series get their probabilities as a fractional DICOM SEG.
    """

    labels: Sequence[SegmentLabel]
    algorithm: Algorithm
    output_format: str
    overlays: bool
    whole_overlays: bool
    thumbnails: bool = False
    structured_report: bool = False
    presentation_state: bool = False
    formats: tuple[str, ...] = ()
    seg_type: str = "binary"
    keep_empty_frames: bool = False
    place_stills: bool = False
    probabilities: bool = False

    def may_show(self, case: InputCase) -> bool:
        """Whether a case may be drawn: an ultrasound that does not say where its tissue is may show a name."""
        return (
            self.whole_overlays or case.dicom is None or case.dicom.modality != "US" or bool(read_tissue(case.paths[0]))
        )


class LargestFrame:
    """The frame of a cine or video whose label map has most pixels of labels: its index, and the number of frames."""

    def __init__(self) -> None:
        self.index, self.pixels, self.count = 0, -1, 0

    def watch(self, labels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for index, label in enumerate(labels):
            self.count = index + 1
            pixels = int(np.count_nonzero(label))
            if pixels > self.pixels:
                self.index, self.pixels = index, pixels
            yield label


class CineMasks(NamedTuple):
    """The label maps of a cine's or video's frames, which are in a file: all of them do not fit into memory."""

    path: Path
    largest: LargestFrame


@dataclass(frozen=True)
class CaseResult:
    """A case with its label map and measurements, as every writer gets it.

    Attributes:
        label: (rows, columns) or (x, y, z); of a cine or video (rows, columns, frames), or the file with them.
        assessments: one per label; none of a cine or video.
        probabilities: (labels, rows, columns) or (labels, x, y, z), uint8, where 255 is 1; None unless asked for.
        frames: of a cine or video, what was counted of them.
    """

    case: InputCase
    label: np.ndarray | CineMasks
    measurements: Sequence[Measurement]
    options: OutputOptions
    assessments: Sequence[Assessment] = ()
    probabilities: np.ndarray | None = None
    frames: FrameTable | None = None

    @property
    def array(self) -> np.ndarray:
        """The label map of anything but a cine."""
        if isinstance(self.label, CineMasks):
            raise TypeError("the label maps of a cine are in a file")
        return self.label

    @cached_property
    def tissue(self) -> Box | None:
        """What of a picture may be shown, as (top, left, bottom, right); None for all of it."""
        if self.options.whole_overlays or self.case.kind not in (CaseKind.STILL, CaseKind.CINE):
            return None
        return read_tissue(self.case.paths[0])

    @cached_property
    def views(self) -> list[View]:
        """What stands for the case: the image, planes of a volume, the frame of a cine with the largest label."""
        if isinstance(self.label, CineMasks):
            frame = self.label.largest
            name = f"frame {frame.index + 1} of {frame.count}{', largest area' if frame.pixels else ''}"
            labels = islice(iter_frame_masks(self.label.path), frame.index, frame.index + 1)
            return [view._replace(name=name) for view in view_frames(self.case, labels, frame.index)]
        return _view(self.case, self.label)

    def iter_views(self) -> Iterator[View]:
        """Yields the frames of a cine with their label maps."""
        if not isinstance(self.label, CineMasks):
            raise TypeError("only a cine has frames")
        return view_frames(self.case, iter_frame_masks(self.label.path))


def can_be_referred_to(case: InputCase) -> bool:
    """Whether DICOM objects can be derived from a case: files without UIDs have no name to be called by."""
    return case.dicom is not None and not missing_uids(case)


def missing_uids(case: InputCase) -> list[str]:
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


def view_frames(case: InputCase, labels: Iterable[np.ndarray], start: int = 0) -> Iterator[View]:
    """Yields the frames of a DICOM still, cine or video, from one on, as long as there are label maps."""
    path = case.paths[0]
    if case.kind is CaseKind.VIDEO:
        frames = (frame.pixels for frame in iter_video(path, start))
    else:
        frames = iter_frames(path, "RGB", start)
    for label, frame in zip(labels, frames, strict=False):
        yield View(Image.fromarray(frame), label)


def _view(case: InputCase, label: np.ndarray) -> list[View]:
    if case.kind is CaseKind.IMAGE:
        with open_image(case.paths[0], "image") as image:
            return [View(to_mode(image, "RGB").copy(), label)]  # which stays when the file is closed
    if case.kind is CaseKind.STILL:
        return list(view_frames(case, [label]))
    if case.kind.has_frames:
        largest = int(np.count_nonzero(label, axis=(0, 1)).argmax())
        return list(view_frames(case, [label[..., largest]], largest))
    if case.dicom is not None and case.dicom.affine is not None:
        return view_volume(read_volume(case.dicom), label, case.dicom.affine)
    source = load_nifti(case.paths[0])
    values = np.asarray(source.values, dtype=np.float32)
    if label.ndim == 3:
        geometry = named(case.paths[0], read_geometry, source.header, values.shape)
        return view_volume(values, label, geometry.affine)
    return [View(Image.fromarray(to_grey(np.swapaxes(values, 0, 1))), label)]
