"""Label maps of DICOM stills and volumes as DICOM Segmentation objects, by highdicom.

highdicom 0.28 trusts the SOP class about the number of frames, wants patient attributes that sources often lack, and
fails on SOP classes and arrangements of functional groups that it does not know. So it is given plain single-frame
stand-ins, one a slice, that hold geometry only; references, patient and study are then those of the source, and what
was written is read again and compared with the label map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import DS

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import SHORT_NOTICE
from mobileutr_monai.inference.outputs.dicom.provenance import (
    MANUFACTURER,
    Algorithm,
    OutputCheckError,
    check_source,
    copy_patient_and_study,
    derive_uid,
    encode,
    positive_number,
    set_creation,
    short_text,
    source_series_uid,
    study_uid,
    suppress_pydicom_warnings,
)
from mobileutr_monai.inference.outputs.overlay import COLOURS
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, numbers, read_header
from mobileutr_monai.readers.dicom.series import ORIENTATION_TOLERANCE, DicomCase

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

__all__ = ["Annotation", "SegmentLabel", "read_segment_labels", "write_segmentation"]

TISSUE = Code("85756007", "SCT", "Tissue")
"""Category and type of a label whose codes the metadata does not say; the segment still has the label's name."""

_ANNOTATION_NOTICE = "Contours drawn or corrected by a person. Research only."

# Series of results are numbered after those of the study.
_SERIES_OFFSET = 1000


@dataclass(frozen=True)
class SegmentLabel:
    """A label of a bundle, and what it is in coded words.

    Attributes:
        index: in the label map, from 1.
        category: of DICOM's CID 7150, such as an anatomical structure.
        type: what it is, of CID 7151 or one that is more special.
        type_modifier: such as anterior.
        anatomic_region: where it is.
    """

    index: int
    name: str
    category: Code = TISSUE
    type: Code = TISSUE
    type_modifier: Code | None = None
    anatomic_region: Code | None = None


@dataclass(frozen=True)
class Annotation:
    """A person's work, or a result that a person has corrected.

    Attributes:
        creator: the person's name, as far as it is known.
        is_assisted: it began as a result of the algorithm.
    """

    creator: str = ""
    is_assisted: bool = False

    @property
    def algorithm_type(self) -> str:
        return "SEMIAUTOMATIC" if self.is_assisted else "MANUAL"


class _Slice:
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


def read_segment_labels(metadata: Mapping[str, Any]) -> list[SegmentLabel]:
    """Returns the labels of a bundle's metadata, without background, in the order of their indices.

    Codes are in ``network_data_format.outputs.pred.segment_codes``, by label index: ``category``, ``type`` and, if
    wanted, ``type_modifier`` and ``anatomic_region``, each with ``scheme``, ``value`` and ``meaning``. Labels that are
    not there are coded as tissue.

    Raises:
        ValueError: if a code is incomplete, or for no label.
    """
    pred = metadata["network_data_format"]["outputs"]["pred"]
    names = {int(index): str(name) for index, name in pred["channel_def"].items() if int(index) > 0}
    codes = {int(index): entry for index, entry in pred.get("segment_codes", {}).items()}
    if unknown := sorted(set(codes) - set(names)):
        raise ValueError(f"segment_codes has {unknown}, channel_def has the labels {sorted(names)}")
    return [SegmentLabel(index, names[index], **_read_codes(index, codes.get(index, {}))) for index in sorted(names)]


def write_segmentation(
    case: DicomCase,
    label: np.ndarray,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    output: Path,
    *,
    keep_empty_frames: bool = False,
    created: datetime | None = None,
    annotation: Annotation | None = None,
) -> None:
    """Writes a binary DICOM Segmentation of a still or volume atomically.

    Every label is a segment, also one that is nowhere; a label map without any has all its frames, empty. UIDs are
    derived from the source's, the bundle, its weights and the result, so that two runs write the same bytes but for
    ``dicom_derived.CREATION_DATES`` and ContributionDateTime. Source attributes that are missing but required are
    empty.

    Args:
        labels: all that the label map may hold.
        keep_empty_frames: also writes frames without a pixel, for viewers that misplace segments otherwise.
        created: date and time to write; now by default.
        annotation: who drew or corrected the label map; the algorithm alone by default.

    Shape:
        - label: (rows, columns) of a still, (columns, rows, slices) of a volume, as ``DicomReader`` has it.

    Raises:
        DicomError: if the case is a cine, or its files cannot be referred to.
        ValueError: if the label map does not fit the case or the labels.
        OutputCheckError: if what was written is not the label map.
    """
    if case.kind is CaseKind.CINE:
        remedy = "segmentations are of stills and volumes; write a cine's masks with write_frame_masks"
        raise DicomError(case.paths[0], Reason.NOT_ONE_FRAME, f"{case.frames} frames; {remedy}")
    with suppress_pydicom_warnings():
        slices = _read_slices(case)
        segments = _number_segments(case, label, labels)
        with as_dicom_errors(case.paths[0], Reason.INCOMPLETE):
            dataset = _build(case, slices, segments, labels, algorithm, keep_empty_frames, created, annotation)
        content = encode(dataset, case.paths[0])

        def write(file: IO[bytes]) -> None:
            file.write(content)
            file.flush()
            _check_written(Path(file.name), output, slices, segments, len(labels))

        write_atomic(output, write)


def _read_codes(index: int, entry: Mapping[str, Mapping[str, str]]) -> dict[str, Code]:
    allowed = ("category", "type", "type_modifier", "anatomic_region")
    codes = {}
    for key, code in entry.items():
        if key not in allowed:
            raise ValueError(f"segment_codes[{index}] has {key!r}, allowed are {', '.join(allowed)}")
        if missing := [part for part in ("value", "scheme", "meaning") if not code.get(part)]:
            raise ValueError(f"segment_codes[{index}].{key} has no {', '.join(missing)}")
        codes[key] = Code(code["value"], code["scheme"], code["meaning"])
    if codes and not {"category", "type"} <= set(codes):
        raise ValueError(f"segment_codes[{index}] needs category and type")
    return codes


def _read_slices(case: DicomCase) -> list[_Slice]:
    """The slices of the case in the order of the label map."""
    headers = [read_header(path) for path in case.paths]
    for header in headers:
        check_source(header)
    if case.frame_order:
        return [_Slice(headers[0], index, is_only=False) for index in case.frame_order]
    if any(header.frames > 1 for header in headers):
        raise DicomError(case.paths[0], Reason.NOT_ONE_FRAME, "a segmentation would lose masks")
    return [_Slice(header, 0, is_only=True) for header in headers]


def _number_segments(case: DicomCase, label: np.ndarray, labels: Sequence[SegmentLabel]) -> np.ndarray:
    """The label map as segment numbers, from 1.

    Shape:
        - output: (slices, rows, columns), uint8 or uint16.
    """
    path, is_still = case.paths[0], case.kind is CaseKind.STILL
    shape = (case.rows, case.columns) if is_still else (case.columns, case.rows, case.frames)
    if label.shape != shape:
        raise ValueError(f"{path}: label map has the shape {label.shape}, the {case.kind.value} has {shape}")
    table = np.zeros(max(item.index for item in labels) + 1, np.uint8 if len(labels) < 256 else np.uint16)
    for number, item in enumerate(labels, 1):
        table[item.index] = number
    segments = np.empty((case.frames, case.rows, case.columns), table.dtype)
    for index in range(case.frames):
        plane = label if is_still else label[..., index].T
        indices = plane.astype(np.uint16)
        is_known = np.array_equal(indices, plane) and indices.max() < len(table)
        segments[index] = table[indices] if is_known else 0
        if np.count_nonzero(segments[index]) != np.count_nonzero(plane):
            raise ValueError(f"{path}: label map holds values that are no label's index")
    return segments


def _build(
    case: DicomCase,
    slices: Sequence[_Slice],
    segments: np.ndarray,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    keep_empty_frames: bool,
    created: datetime | None,
    annotation: Annotation | None,
) -> Segmentation:
    from highdicom.seg import Segmentation

    header = slices[0].header
    made_by = [algorithm.name, algorithm.version, algorithm.weights_sha256]
    if annotation is not None:
        made_by += [annotation.algorithm_type, annotation.creator]
    content = sha256(segments.data).hexdigest()
    options = (str(keep_empty_frames), *(str(label) for label in labels))
    series_uid = derive_uid("segmentation series", *made_by, source_series_uid(header))
    dataset = Segmentation(
        source_images=_stand_ins(case, slices),
        pixel_array=segments,
        segmentation_type="BINARY",
        segment_descriptions=_describe_segments(labels, algorithm, annotation),
        series_instance_uid=series_uid,
        series_number=positive_number(header, "SeriesNumber", _SERIES_OFFSET),
        sop_instance_uid=derive_uid("segmentation", *made_by, *case.sop_uids, content, *options),
        instance_number=positive_number(header, "InstanceNumber"),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=short_text(algorithm.name),
        software_versions=short_text(algorithm.version),
        device_serial_number=algorithm.weights_sha256,
        content_label="SEGMENTATION",
        content_description=SHORT_NOTICE if annotation is None else _ANNOTATION_NOTICE,
        content_creator_name=short_text(annotation.creator) or None if annotation is not None else None,
        series_description=short_text(_describe_series(algorithm, annotation)),
        # highdicom keeps all frames of an empty result anyway, with a warning.
        omit_empty_frames=not keep_empty_frames and bool(segments.any()),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    copy_patient_and_study(header, dataset)
    _refer_to_sources(dataset, slices)
    _correct_measures(dataset, case, slices[0])
    if "FrameOfReferenceUID" not in dataset:
        dataset.PatientOrientation = header.dataset.get("PatientOrientation") or ""
    dimensions = derive_uid("dimensions", dataset.SOPInstanceUID)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    set_creation(dataset, created)
    return dataset


def _describe_series(algorithm: Algorithm, annotation: Annotation | None) -> str:
    if annotation is None:
        return f"Research only: {algorithm.name}"
    return (
        f"Research only: corrected, {algorithm.name}" if annotation.is_assisted else "Research only: drawn by a person"
    )


def _describe_segments(
    labels: Sequence[SegmentLabel], algorithm: Algorithm, annotation: Annotation | None
) -> list[SegmentDescription]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    identification = AlgorithmIdentificationSequence(
        name=short_text(algorithm.name),
        family=Code("123110", "DCM", "Artificial Intelligence"),
        version=short_text(algorithm.version),
        source=MANUFACTURER,
        parameters={"weights_sha256": algorithm.weights_sha256},
    )
    is_manual = annotation is not None and not annotation.is_assisted
    descriptions = []
    for number, label in enumerate(labels, 1):
        description = SegmentDescription(
            segment_number=number,
            segment_label=short_text(label.name),
            segmented_property_category=label.category,
            segmented_property_type=label.type,
            algorithm_type="AUTOMATIC" if annotation is None else annotation.algorithm_type,
            algorithm_identification=None if is_manual else identification,
            anatomic_regions=None if label.anatomic_region is None else [label.anatomic_region],
            display_color=CIELabColor.from_rgb(*COLOURS[(label.index - 1) % len(COLOURS)]),
        )
        if label.type_modifier is not None:
            modifier = [CodedConcept.from_code(label.type_modifier)]
            description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifier
        descriptions.append(description)
    return descriptions


def _stand_ins(case: DicomCase, slices: Sequence[_Slice]) -> list[Dataset]:
    """A single-frame image for each slice, with what highdicom needs to know of it."""
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
        images.append(image)
    return images


def _find_frame_of_reference(case: DicomCase, slices: Sequence[_Slice]) -> str:
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


def _add_geometry(image: Dataset, case: DicomCase, item: _Slice, first: _Slice, frame_of_reference: str) -> None:
    image.FrameOfReferenceUID = frame_of_reference
    image.PositionReferenceIndicator = item.header.dataset.get("PositionReferenceIndicator") or ""
    image.ImagePositionPatient = item.attributes.ImagePositionPatient
    # Within the tolerances of a series they are the same; highdicom knows no tolerance.
    image.ImageOrientationPatient = first.attributes.ImageOrientationPatient
    image.PixelSpacing = first.attributes.PixelSpacing
    image.SliceThickness = _find_thickness(case, first)


def _find_thickness(case: DicomCase, first: _Slice) -> float | None:
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


def _correct_measures(dataset: Dataset, case: DicomCase, first: _Slice) -> None:
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


def _refer_to_sources(dataset: Dataset, slices: Sequence[_Slice]) -> None:
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


def _check_written(path: Path, output: Path, slices: Sequence[_Slice], segments: np.ndarray, count: int) -> None:
    """Reads a segmentation again and compares every frame with its slice.

    By hand and bit by bit, not with highdicom, which wrote it: what a library does wrong in both directions would not
    show.

    Raises:
        OutputCheckError: if frames are missing, twice there, of other slices, or other masks.
    """
    dataset = dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    if int(dataset.NumberOfFrames) != len(groups) or len(dataset.SegmentSequence) != count:
        raise OutputCheckError(f"{output}: segmentation has frames or segments missing")
    places = {(item.header.sop_uid, item.frame): place for place, item in enumerate(slices)}
    pixels, size = np.frombuffer(dataset.PixelData, np.uint8), dataset.Rows * dataset.Columns
    found = set()
    for index, group in enumerate(groups):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = places.get((reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")))
        first, offset = divmod(index * size, 8)
        bits = np.unpackbits(pixels[first : first + size // 8 + 2], bitorder="little")[offset : offset + size]
        mask = None if place is None else (segments[place] == number).ravel()
        if mask is None or (number, place) in found or not np.array_equal(bits, mask):
            raise OutputCheckError(f"{output}: frame {index} of the segmentation is not the mask of its slice")
        found.add((number, place))
    expected = {(number, place) for place, mask in enumerate(segments) for number in np.unique(mask[mask > 0]).tolist()}
    if lost := len(expected - found):
        raise OutputCheckError(f"{output}: {lost} masks are missing in the segmentation")
