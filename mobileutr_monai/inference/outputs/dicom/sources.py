"""The source of a DICOM Segmentation as highdicom gets it, and references to it.

highdicom 0.28 trusts the SOP class about the number of frames, wants patient attributes that sources often lack, and
fails on SOP classes and arrangements of functional groups that it does not know. So it is given plain single-frame
stand-ins, one per slice, that hold geometry only; references are then those of the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import DS

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.outputs.dicom.provenance import check_source, derive_uid, source_series_uid, study_uid
from mobileutr_monai.readers.dicom.calibration import read_pixel_size
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, numbers, read_header
from mobileutr_monai.readers.dicom.series import ORIENTATION_TOLERANCE, DicomCase

__all__ = [
    "SourceSlice",
    "correct_measures",
    "is_placed",
    "make_stand_ins",
    "note_place",
    "read_slices",
    "refer_to_sources",
]

_SYNTHETIC_PLACE = "Place and slice thickness are synthetic, the source has none. "
_SYNTHETIC_SPACING = "PixelSpacing is synthetic, too: lengths are in pixels. "


class SourceSlice:
    """One slice of the source, or its only one.

    Attributes:
        header: of its file.
        frame: its number in the file, from 1; None if the file has no other.
        uid: of the stand-in that highdicom gets; the instance's own where the file has no other frame.
        attributes: of the frame.
    """

    def __init__(self, header: DicomHeader, index: int, is_only: bool) -> None:
        self.header = header
        self.frame = None if is_only else index + 1
        self.uid = header.sop_uid if is_only else derive_uid("frame", header.sop_uid, str(index))
        self.attributes = frame_attributes(header.dataset, index)


def read_slices(case: DicomCase) -> list[SourceSlice]:
    """The slices of the case in the order of the label map."""
    headers = [read_header(path) for path in case.paths]
    for header in headers:
        check_source(header)
    if case.frame_order:
        return [SourceSlice(headers[0], index, is_only=False) for index in case.frame_order]
    if any(header.frames > 1 for header in headers):
        raise DicomError(case.paths[0], Reason.NOT_ONE_FRAME, "a segmentation would lose masks")
    return [SourceSlice(header, 0, is_only=True) for header in headers]


def make_stand_ins(case: DicomCase, slices: Sequence[SourceSlice], *, place_stills: bool = False) -> list[Dataset]:
    """A single-frame image for each slice, with what highdicom needs to know of it.

    Args:
        place_stills: gives a still without a place in the patient a synthetic one.
    """
    frame_of_reference = _find_frame_of_reference(case, slices)
    first, images = slices[0].header, []
    for item in slices:
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, item.uid
        image.StudyInstanceUID, image.SeriesInstanceUID = study_uid(first), source_series_uid(first)
        image.Rows, image.Columns = case.rows, case.columns
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            setattr(image, keyword, "")
        image.AccessionNumber = image.StudyID = image.StudyDate = image.StudyTime = ""
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if value := item.header.dataset.get(keyword):
                setattr(image, keyword, value)
        if frame_of_reference:
            _add_geometry(image, case, item, slices[0], frame_of_reference)
        elif place_stills and case.kind is CaseKind.STILL:
            _place(image, item.header)
        images.append(image)
    return images


def _find_frame_of_reference(case: DicomCase, slices: Sequence[SourceSlice]) -> str:
    """Its UID; derived for a volume that has none, empty for a still that has none or no place in it."""
    uids = {str(item.header.dataset.get("FrameOfReferenceUID") or "") for item in slices}
    if len(uids) > 1:
        raise DicomError(case.paths[0], Reason.MIXED_SERIES, f"{len(uids)} frames of reference")
    uid = uids.pop()
    if case.kind is CaseKind.SERIES:
        return uid or derive_uid("frame of reference", source_series_uid(slices[0].header))
    return uid if _has_place(slices[0].attributes) else ""


def _has_place(attributes: Dataset) -> bool:
    orientation = numbers(attributes, "ImageOrientationPatient", 6)
    spacing = numbers(attributes, "PixelSpacing", 2)
    if orientation is None or spacing is None or min(spacing) <= 0:
        return False
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths_and_angle = np.array([row @ row, column @ column, row @ column])
    is_orthonormal = np.abs(lengths_and_angle - (1, 1, 0)).max() <= 2 * ORIENTATION_TOLERANCE
    return bool(is_orthonormal) and numbers(attributes, "ImagePositionPatient", 3) is not None


def _add_geometry(
    image: Dataset, case: DicomCase, item: SourceSlice, first: SourceSlice, frame_of_reference: str
) -> None:
    image.FrameOfReferenceUID = frame_of_reference
    image.PositionReferenceIndicator = item.header.dataset.get("PositionReferenceIndicator") or ""
    image.ImagePositionPatient = item.attributes.ImagePositionPatient
    # Within the tolerances of a series they are the same; highdicom knows no tolerance.
    image.ImageOrientationPatient = first.attributes.ImageOrientationPatient
    image.PixelSpacing = first.attributes.PixelSpacing
    image.SliceThickness = _find_thickness(case, first)


def _find_thickness(case: DicomCase, first: SourceSlice) -> float | None:
    """Returns the thickness of a slice, or the distance of slices, in mm; None where the source states neither."""
    stated = (numbers(first.attributes, name, 1) for name in ("SliceThickness", "SpacingBetweenSlices"))
    found = next((value[0] for value in stated if value is not None and value[0] > 0), None)
    return _distance_of_slices(case) if found is None else found


def _distance_of_slices(case: DicomCase) -> float | None:
    """Returns the distance of the slices of a volume along their normal, in mm."""
    if case.affine is None:
        return None
    normal = np.cross(case.affine[:3, 0], case.affine[:3, 1])
    return float(abs(case.affine[:3, 2] @ normal) / np.linalg.norm(normal))


def _place(image: Dataset, header: DicomHeader) -> None:
    """Gives a still a place of its own: a Frame of Reference that nothing else is in, and pixels of 1 mm if need be."""
    size = read_pixel_size(header.path)
    image.FrameOfReferenceUID = derive_uid("synthetic frame of reference", header.sop_uid)
    image.PositionReferenceIndicator = ""
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [1, 1] if size is None else [DS(mm, auto_format=True) for mm in (size.row_mm, size.column_mm)]
    image.SliceThickness = 1


def is_placed(image: Dataset, header: DicomHeader) -> bool:
    """Whether the place of a stand-in is synthetic."""
    return str(image.get("FrameOfReferenceUID")) == str(derive_uid("synthetic frame of reference", header.sop_uid))


def note_place(dataset: Dataset, header: DicomHeader) -> None:
    """Says in the derivation of every frame what of its place is synthetic."""
    text = _SYNTHETIC_PLACE + ("" if read_pixel_size(header.path) else _SYNTHETIC_SPACING)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.DerivationImageSequence[0].DerivationDescription = text.strip()


def correct_measures(dataset: Dataset, case: DicomCase, first: SourceSlice) -> None:
    """Leaves out lengths that the source does not state; highdicom writes a distance of 1 mm for a single slice."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "PixelMeasuresSequence" not in shared:
        return
    measures = shared.PixelMeasuresSequence[0]
    if not measures.get("SliceThickness"):  # required in this macro, which is optional
        del shared.PixelMeasuresSequence
        return
    stated = numbers(first.attributes, "SpacingBetweenSlices", 1)
    distance = _distance_of_slices(case) or (stated[0] if stated is not None and stated[0] > 0 else None)
    if distance is not None:
        measures.SpacingBetweenSlices = DS(distance, auto_format=True)
    elif "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices


def refer_to_sources(dataset: Dataset, slices: Sequence[SourceSlice]) -> None:
    """Puts the source's instances and frames in the place of the stand-ins."""
    references = {}
    for item in slices:
        reference = Dataset()
        reference.ReferencedSOPClassUID = item.header.sop_class_uid
        reference.ReferencedSOPInstanceUID = item.header.sop_uid
        references[item.header.sop_uid] = reference
    dataset.SourceImageSequence = list(references.values())
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence = list(references.values())
    by_uid = {item.uid: item for item in slices}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for reference in group.DerivationImageSequence[0].SourceImageSequence:
            # A reference is shared by the frames of all segments, so it may be done already.
            if found := by_uid.get(reference.ReferencedSOPInstanceUID):
                reference.ReferencedSOPClassUID = found.header.sop_class_uid
                reference.ReferencedSOPInstanceUID = found.header.sop_uid
                if found.frame is not None:
                    reference.ReferencedFrameNumber = found.frame
