"""Label maps of DICOM series as RT Structure Sets, by pydicom alone.

rt-utils was not taken: it needs OpenCV, makes random UIDs and leads contours through the centres of pixels, so that a
filled contour depends on the reader. Here contours run along the edges of pixels: whoever fills them by the centres of
pixels gets the label map. A structure set has no holes; a region with one is cut through it along a row, and its parts
touch there, which is right for readers that join contours of a slice and for those that take them as exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from mobileutr_monai.core.atomic import write_atomic
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
    hash_label_map,
    positive_number,
    set_creation,
    short_text,
    source_series_uid,
    study_uid,
    suppress_pydicom_warnings,
)
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.outputs.overlay import COLOURS
from mobileutr_monai.inference.outputs.polygons import Ring, fill_rings, trace_outlines
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, numbers, read_header
from mobileutr_monai.readers.dicom.series import DicomCase

__all__ = ["write_structure_set"]

_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
# Series of results are numbered after those of the study.
_SERIES_OFFSET = 1000
_LABEL = "MobileUtr"

_CORNER = 0.5
"""Pixels from the first corner of a pixel to its centre, where the position of a slice is."""

_SAME_CORNER = 0.01
"""Largest distance in pixels of a point that was read again from the corner that it is of."""


class _Slice(NamedTuple):
    """A slice of the series.

    Attributes:
        frame: its number in its file, from 1; None if the file has no other.
        position: of the centre of its first pixel, in patient coordinates.
        steps: to the next column and to the next row, as columns, in mm.
    """

    sop_uid: str
    frame: int | None
    position: np.ndarray
    steps: np.ndarray

    def to_patient(self, ring: Ring) -> np.ndarray:
        """Returns the places of corners of pixels, one per row."""
        points: np.ndarray = self.position + (np.array(ring, np.float64) - _CORNER) @ self.steps.T
        return points

    def to_corners(self, points: np.ndarray) -> Ring:
        """Returns the corners of pixels that points are of.

        Raises:
            ValueError: a point is of none.
        """
        found = (points - self.position) @ np.linalg.pinv(self.steps).T + _CORNER
        corners = np.rint(found).astype(int)
        if np.abs(found - corners).max() > _SAME_CORNER:
            raise ValueError("a point is at no corner of a pixel")
        return [(x, y) for x, y in corners.tolist()]


def write_structure_set(
    case: DicomCase,
    label: np.ndarray,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    output: Path,
    *,
    created: datetime | None = None,
) -> None:
    """Writes an RT Structure Set of a volume atomically; its contours are read again and compared with the label map.

    Every label is a structure, also one that is nowhere. UIDs are derived from the source's, the bundle, its weights
    and the result, so that two runs write the same bytes but for dates and times.

    Args:
        labels: all that the label map may hold.
        created: date and time to write; now by default.

    Shape:
        - label: (columns, rows, slices), as ``DicomReader`` has it.

    Raises:
        DicomError: the case is no series, or its files cannot be referred to.
        OutputCheckError: what was written is not the label map.
    """
    if case.affine is None:
        raise DicomError(case.paths[0], Reason.UNSUPPORTED_IMAGE, "structure sets are of series")
    with suppress_pydicom_warnings():
        headers = [read_header(path) for path in case.paths]
        for header in headers:
            check_source(header)
        with as_dicom_errors(case.paths[0], Reason.INCOMPLETE):
            slices = _find_slices(case, headers)
            dataset = _build(case, headers[0], slices, label, labels, algorithm, created)
        content = encode(dataset, case.paths[0])

        def write(file: IO[bytes]) -> None:
            file.write(content)
            file.flush()
            _check_written(Path(file.name), output, slices, label, labels)

        write_atomic(output, write)


def _find_slices(case: DicomCase, headers: Sequence[DicomHeader]) -> list[_Slice]:
    pairs: list[tuple[DicomHeader, int | None]] = [(header, None) for header in headers]
    if case.frame_order:
        pairs = [(headers[0], frame) for frame in case.frame_order]
    slices = []
    for header, frame in pairs:
        attributes = frame_attributes(header.dataset, frame or 0)
        orientation = np.array(attributes.ImageOrientationPatient, np.float64).reshape(2, 3)
        height, width = numbers(attributes, "PixelSpacing", 2) or ()
        steps = (orientation * ((width,), (height,))).T
        position = np.array(attributes.ImagePositionPatient, np.float64)
        slices.append(_Slice(header.sop_uid, None if frame is None else frame + 1, position, steps))
    return slices


def _build(
    case: DicomCase,
    header: DicomHeader,
    slices: Sequence[_Slice],
    label: np.ndarray,
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    created: datetime | None,
) -> Dataset:
    made_by = algorithm.identity
    digest = hash_label_map(label)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    # A contour of more than some 1800 points does not fit into an explicit element.
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    uid = derive_uid("structure set", *made_by, *case.sop_uids, digest, *(str(item) for item in labels))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    copy_patient_and_study(header, dataset)
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = derive_uid("structure set series", *made_by, source_series_uid(header))
    dataset.SeriesNumber = positive_number(header, "SeriesNumber", _SERIES_OFFSET)
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = short_text(f"Research only: {algorithm.name}")
    dataset.OperatorsName = ""
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, short_text(algorithm.name)
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = short_text(algorithm.version), algorithm.weights_sha256
    frame_of_reference = str(
        header.dataset.get("FrameOfReferenceUID") or derive_uid("frame of reference", source_series_uid(header))
    )
    dataset.FrameOfReferenceUID = frame_of_reference
    dataset.PositionReferenceIndicator = header.dataset.get("PositionReferenceIndicator") or ""
    dataset.StructureSetLabel, dataset.StructureSetName = _LABEL, short_text(algorithm.name)
    dataset.StructureSetDescription = SHORT_NOTICE
    dataset.ReferencedFrameOfReferenceSequence = [_refer(case, header, slices, frame_of_reference)]
    dataset.StructureSetROISequence = [_describe(item, frame_of_reference, algorithm) for item in labels]
    dataset.ROIContourSequence = [_outline(case, slices, label, item) for item in labels]
    dataset.RTROIObservationsSequence = [_observe(item) for item in labels]
    dataset.ApprovalStatus = "UNAPPROVED"
    set_creation(dataset, created)
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def _refer(case: DicomCase, header: DicomHeader, slices: Sequence[_Slice], frame_of_reference: str) -> Dataset:
    """Returns the reference to the series and all its slices."""
    series = Dataset()
    series.SeriesInstanceUID = source_series_uid(header)
    series.ContourImageSequence = [_refer_to(case, item) for item in slices]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _DETACHED_STUDY, study_uid(header)
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _refer_to(case: DicomCase, item: _Slice) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = case.sop_class_uid, item.sop_uid
    if item.frame is not None:
        image.ReferencedFrameNumber = item.frame
    return image


def _describe(item: SegmentLabel, frame_of_reference: str, algorithm: Algorithm) -> Dataset:
    structure = Dataset()
    structure.ROINumber, structure.ROIName = item.index, short_text(item.name)
    structure.ReferencedFrameOfReferenceUID = frame_of_reference
    structure.ROIGenerationAlgorithm = "AUTOMATIC"
    structure.ROIGenerationDescription = short_text(f"{algorithm.name} {algorithm.version}")
    return structure


def _outline(case: DicomCase, slices: Sequence[_Slice], label: np.ndarray, item: SegmentLabel) -> Dataset:
    """Returns the contours of a label; an item without contours where it is nowhere."""
    outlined = Dataset()
    contours: list[Dataset] = []
    outlined.ReferencedROINumber = item.index
    outlined.ROIDisplayColor = list(COLOURS[(item.index - 1) % len(COLOURS)])
    for place in np.flatnonzero((label == item.index).any(axis=(0, 1))).tolist():
        plane = label[..., place].T
        for ring in trace_outlines(plane == item.index):
            contour = Dataset()
            contour.ContourImageSequence = [_refer_to(case, slices[place])]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(ring)
            contour.ContourNumber = len(contours) + 1
            contour.ContourData = [f"{value:.5f}" for value in slices[place].to_patient(ring).ravel()]
            contours.append(contour)
    if contours:
        outlined.ContourSequence = contours
    return outlined


def _observe(item: SegmentLabel) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = item.index
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    observation.RTROIIdentificationCodeSequence = [_code(item.type)]
    return observation


def _code(code: Code) -> Dataset:
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return coded


def _check_written(
    path: Path, output: Path, slices: Sequence[_Slice], label: np.ndarray, labels: Sequence[SegmentLabel]
) -> None:
    """Reads the contours again and compares what they fill with the label map.

    Raises:
        OutputCheckError: they do not fill it.
    """
    places = {(item.sop_uid, item.frame): place for place, item in enumerate(slices)}
    for item, outlined in zip(labels, dcmread(path).ROIContourSequence, strict=True):
        rings: list[list[Ring]] = [[] for _ in slices]
        for place, ring in _read_rings(outlined, slices, places):
            rings[place].append(ring)
        for place, found in enumerate(rings):
            plane = label[..., place].T
            if not np.array_equal(fill_rings(found, plane.shape), plane == item.index):
                raise OutputCheckError(f"{output}: the contours do not fill the label map")


def _read_rings(
    outlined: Dataset, slices: Sequence[_Slice], places: dict[tuple[str, int | None], int]
) -> Iterator[tuple[int, Ring]]:
    for contour in outlined.get("ContourSequence", ()):
        image = contour.ContourImageSequence[0]
        frame = image.get("ReferencedFrameNumber")
        place = places[str(image.ReferencedSOPInstanceUID), None if frame is None else int(frame)]
        points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
        yield place, slices[place].to_corners(points)
