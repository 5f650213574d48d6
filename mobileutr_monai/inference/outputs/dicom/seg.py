"""Label maps and probabilities of DICOM stills and volumes as DICOM Segmentation objects, by highdicom.

References, patient and study are those of the source. What was written is read again and compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import SHORT_NOTICE
from mobileutr_monai.inference.outputs.dicom.provenance import (
    MANUFACTURER,
    Algorithm,
    copy_patient_and_study,
    derive_uid,
    encode,
    positive_number,
    set_creation,
    short_text,
    source_series_uid,
    suppress_pydicom_warnings,
)
from mobileutr_monai.inference.outputs.dicom.seg_check import check_written
from mobileutr_monai.inference.outputs.dicom.sources import (
    SourceSlice,
    correct_measures,
    is_placed,
    make_stand_ins,
    note_place,
    read_slices,
    refer_to_sources,
)
from mobileutr_monai.inference.outputs.overlay import COLOURS
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.series import DicomCase

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

__all__ = [
    "BINARY",
    "FRACTIONAL",
    "LABELMAP",
    "MAX_FRACTION",
    "Annotation",
    "SegmentLabel",
    "read_segment_labels",
    "write_probabilities",
    "write_segmentation",
]

TISSUE = Code("85756007", "SCT", "Tissue")
"""Category and type of a label whose codes the metadata does not say; the segment still has the label's name."""

_ANNOTATION_NOTICE = "Contours drawn or corrected by a person. Research only."

BINARY, LABELMAP, FRACTIONAL = "binary", "labelmap", "fractional"

# Series of results are numbered after those of the study; 2000 and 3000 are captures and reports.
_SERIES_OFFSETS = {BINARY: 1000, LABELMAP: 1000, FRACTIONAL: 4000}

MAX_FRACTION = 255
"""Value of a fractional segmentation that stands for a probability of 1."""


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
    seg_type: str = BINARY,
    keep_empty_frames: bool = False,
    place_stills: bool = False,
    created: datetime | None = None,
    annotation: Annotation | None = None,
) -> None:
    """Writes a DICOM Segmentation of a still or volume atomically.

    Every label is a segment, also one that is nowhere; a label map without any has all its frames, empty. UIDs are
    derived from the source's, the bundle, its weights and the result, so that two runs write the same bytes but for
    ``provenance.CREATION_DATES`` and ContributionDateTime. Source attributes that are missing but required are
    empty.

    Args:
        labels: all that the label map may hold.
        seg_type: ``binary``: one frame per label and slice. ``labelmap``: one frame per slice, which holds segment
            numbers (Label Map Segmentation Storage, Supplement 243 of 2024).
        keep_empty_frames: also writes frames without a pixel, for viewers that misplace segments otherwise.
        place_stills: gives a still without a place in the patient a synthetic one, for viewers that need it, and says
            so in DerivationDescription.
        created: date and time to write; now by default.
        annotation: who drew or corrected the label map; the algorithm alone by default.

    Shape:
        - label: (rows, columns) of a still, (columns, rows, slices) of a volume, as ``DicomReader`` has it.

    Raises:
        DicomError: if the case is a cine, or its files cannot be referred to.
        ValueError: if the label map does not fit the case or the labels.
        OutputCheckError: if what was written is not the label map.
    """
    if seg_type not in (BINARY, LABELMAP):
        raise ValueError(f"seg_type must be {BINARY} or {LABELMAP}, got {seg_type!r}")
    _refuse_cine(case)
    segments = _number_segments(case, label, labels)
    kept, placed = keep_empty_frames, place_stills
    _write(case, segments, seg_type, labels, algorithm, output, kept, created, annotation, place_stills=placed)


def write_probabilities(
    case: DicomCase,
    probabilities: np.ndarray,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    output: Path,
    *,
    keep_empty_frames: bool = False,
    created: datetime | None = None,
) -> None:
    """Writes the probabilities of a still or volume as a fractional DICOM Segmentation, as ``write_segmentation`` does.

    Shape:
        - probabilities: (labels, rows, columns) of a still, (labels, columns, rows, slices) of a volume, uint8, where
          ``MAX_FRACTION`` is 1.

    Raises:
        DicomError: if the case is a cine, or its files cannot be referred to.
        ValueError: if the probabilities do not fit the case or the labels.
        OutputCheckError: if what was written is not the probabilities.
    """
    _refuse_cine(case)
    is_still = case.kind is CaseKind.STILL
    shape = (len(labels), *((case.rows, case.columns) if is_still else (case.columns, case.rows, case.frames)))
    if probabilities.shape != shape or probabilities.dtype != np.uint8:
        found = f"{probabilities.shape} of {probabilities.dtype}"
        raise ValueError(f"{case.paths[0]}: probabilities are {found}, the {case.kind.value} needs {shape} of uint8")
    planes = probabilities[..., None] if is_still else probabilities.transpose(0, 2, 1, 3)
    pixels = np.ascontiguousarray(planes.transpose(3, 1, 2, 0))
    _write(case, pixels, FRACTIONAL, labels, algorithm, output, keep_empty_frames, created, None)


def _refuse_cine(case: DicomCase) -> None:
    if case.kind is CaseKind.CINE:
        remedy = "segmentations are of stills and volumes; write a cine's masks with write_frame_masks"
        raise DicomError(case.paths[0], Reason.NOT_ONE_FRAME, f"{case.frames} frames; {remedy}")


def _write(
    case: DicomCase,
    pixels: np.ndarray,
    seg_type: str,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    output: Path,
    keep_empty_frames: bool,
    created: datetime | None,
    annotation: Annotation | None,
    *,
    place_stills: bool = False,
) -> None:
    """Writes a segmentation.

    Shape:
        - pixels: (slices, rows, columns), segment numbers; (slices, rows, columns, segments) of ``FRACTIONAL``.
    """
    with suppress_pydicom_warnings():
        slices = read_slices(case)
        with as_dicom_errors(case.paths[0], Reason.INCOMPLETE):
            images = make_stand_ins(case, slices, place_stills=place_stills)
            kept = keep_empty_frames
            dataset = _build(case, slices, images, pixels, seg_type, labels, algorithm, kept, created, annotation)
        content = encode(dataset, case.paths[0])

        def write(file: IO[bytes]) -> None:
            file.write(content)
            file.flush()
            check_written(Path(file.name), output, slices, pixels, len(labels))

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
    slices: Sequence[SourceSlice],
    images: Sequence[Dataset],
    pixels: np.ndarray,
    seg_type: str,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    keep_empty_frames: bool,
    created: datetime | None,
    annotation: Annotation | None,
) -> Segmentation:
    from highdicom.seg import Segmentation

    header = slices[0].header
    made_by = list(algorithm.identity)
    if annotation is not None:
        made_by += [annotation.algorithm_type, annotation.creator]
    content = sha256(pixels.data).hexdigest()
    options = [str(keep_empty_frames), *(str(label) for label in labels)]
    if seg_type != BINARY:
        options.append(seg_type)
    if is_placed(images[0], header):
        options.append("synthetic place")
    series = "probability series" if seg_type == FRACTIONAL else "segmentation series"
    series_uid = derive_uid(series, *made_by, source_series_uid(header))
    dataset = Segmentation(
        source_images=images,
        pixel_array=pixels / np.float32(MAX_FRACTION) if seg_type == FRACTIONAL else pixels,
        segmentation_type=seg_type.upper(),
        fractional_type="PROBABILITY",
        max_fractional_value=MAX_FRACTION,
        segment_descriptions=_describe_segments(labels, algorithm, annotation),
        series_instance_uid=series_uid,
        series_number=positive_number(header, "SeriesNumber", _SERIES_OFFSETS[seg_type]),
        sop_instance_uid=derive_uid("segmentation", *made_by, *case.sop_uids, content, *options),
        instance_number=positive_number(header, "InstanceNumber"),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=short_text(algorithm.name),
        software_versions=short_text(algorithm.version),
        device_serial_number=algorithm.weights_sha256,
        content_label="PROBABILITIES" if seg_type == FRACTIONAL else "SEGMENTATION",
        content_description=SHORT_NOTICE if annotation is None else _ANNOTATION_NOTICE,
        content_creator_name=short_text(annotation.creator) or None if annotation is not None else None,
        series_description=short_text(_describe_series(algorithm, annotation, seg_type)),
        # highdicom keeps all frames of an empty result anyway, with a warning.
        omit_empty_frames=not keep_empty_frames and bool(pixels.any()),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    copy_patient_and_study(header, dataset)
    refer_to_sources(dataset, slices)
    correct_measures(dataset, case, slices[0])
    if is_placed(images[0], header):
        note_place(dataset, header)
    if "FrameOfReferenceUID" not in dataset:
        dataset.PatientOrientation = header.dataset.get("PatientOrientation") or ""
    dimensions = derive_uid("dimensions", dataset.SOPInstanceUID)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    set_creation(dataset, created)
    return dataset


def _describe_series(algorithm: Algorithm, annotation: Annotation | None, seg_type: str) -> str:
    if annotation is None:
        return f"Research only: {algorithm.name}{', probabilities' if seg_type == FRACTIONAL else ''}"
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
