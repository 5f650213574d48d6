"""Measurements as a DICOM structured report (TID 1500), by highdicom.

One measurement group per label: the finding and its site in coded words, the segment, what made it, its confidence, and
its flags; and one with the lines of its axes, which the group of a segment (TID 1410, 1411) must not have. Where no
segmentation is written both are one group. A label that is nowhere has a group that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import NOTICE
from mobileutr_monai.inference.measure import Assessment, Measurement
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
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.outputs.dicom.sr_values import EXPECTED_DICE, SCHEME, list_values
from mobileutr_monai.readers.dicom.errors import as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, read_header
from mobileutr_monai.readers.dicom.series import DicomCase

if TYPE_CHECKING:
    from highdicom import sr

__all__ = ["EXPECTED_DICE", "write_report"]

# Reports are numbered after captures.
_SERIES_OFFSET = 3000

_PRESENCE = Code("705057003", "SCT", "Presence")
_QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


class _Segment(NamedTuple):
    """A segment of the segmentation that was written of the case: its number, and its frames from 1."""

    uid: str
    number: int
    frames: tuple[int, ...]


def write_report(
    case: DicomCase,
    labels: Sequence[SegmentLabel],
    measurements: Sequence[Measurement],
    assessments: Sequence[Assessment],
    algorithm: Algorithm,
    output: Path,
    *,
    segmentation: Path | None = None,
    created: datetime | None = None,
) -> None:
    """Writes the measurements of a still or volume as a Comprehensive SR atomically.

    Lengths and sizes are in mm where the source is calibrated, otherwise in pixels. UIDs are derived from the source's,
    the bundle, its weights and the values, so that two runs write the same bytes but for ``CREATION_DATES``.

    Args:
        measurements: one per label.
        assessments: one per label, or none.
        segmentation: file of the label map's DICOM Segmentation, to which groups then refer.
        created: date and time to write; now by default.

    Raises:
        DicomError: if the files cannot be referred to.
        OutputCheckError: if what was written has other values.
    """
    assessments = assessments or [Assessment(None, []) for _ in labels]
    with suppress_pydicom_warnings():
        header = read_header(case.paths[0])
        check_source(header)
        with as_dicom_errors(case.paths[0], Reason.INCOMPLETE):
            segments = _read_segments(segmentation, len(labels))
            report = _build(case, header, labels, measurements, assessments, algorithm, segments, created)
            expected = {
                found.label: sorted(float(item.value) for values in lists for item in values)
                for found, assessment in zip(measurements, assessments, strict=True)
                for lists in [list_values(case, found, assessment, is_region=False)]
            }
        content = encode(report, case.paths[0])

        def write(file: Any) -> None:
            file.write(content)
            file.flush()
            _check_written(Path(file.name), output, expected)

        write_atomic(output, write)


def _read_segments(path: Path | None, number: int) -> list[_Segment | None]:
    """Returns each label's segment; None where there is none, or it has no pixel."""
    if path is None:
        return [None] * number
    dataset = dcmread(path, stop_before_pixels=True)
    frames: list[list[int]] = [[] for _ in range(number)]
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        holder = group if "SegmentIdentificationSequence" in group else shared
        frames[int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber) - 1].append(index)
    return [
        _Segment(str(dataset.SOPInstanceUID), place + 1, tuple(found)) if found else None
        for place, found in enumerate(frames)
    ]


def _build(
    case: DicomCase,
    header: DicomHeader,
    labels: Sequence[SegmentLabel],
    measurements: Sequence[Measurement],
    assessments: Sequence[Assessment],
    algorithm: Algorithm,
    segments: Sequence[_Segment | None],
    created: datetime | None,
) -> Dataset:
    from highdicom import sr

    made_by = algorithm.identity
    values = [
        str((astuple(label), astuple(m), tuple(a)))
        for label, m, a in zip(labels, measurements, assessments, strict=True)
    ]
    referred = [segment.uid for segment in segments if segment is not None]
    uid = derive_uid("report", *made_by, *case.sop_uids, *referred, *values)
    groups = [
        group
        for each in zip(labels, measurements, assessments, segments, strict=True)
        for group in _describe(case, uid, *each, algorithm)
    ]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_describe_device(algorithm)),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.append(_make_notice())
    # highdicom does not know every SOP class that a source may have, so stand-ins are of one that it knows.
    evidence = [_stand_in(case, header, SecondaryCaptureImageStorage, sop_uid) for sop_uid in case.sop_uids]
    for found in sorted(set(referred)):
        series_uid = derive_uid("segmentation series", *made_by, source_series_uid(header))
        evidence.append(_stand_in(case, header, SegmentationStorage, found, series_uid))
    report = sr.ComprehensiveSR(
        evidence=evidence,
        content=content,
        series_instance_uid=derive_uid("report series", *made_by, source_series_uid(header)),
        series_number=positive_number(header, "SeriesNumber", _SERIES_OFFSET),
        sop_instance_uid=uid,
        instance_number=positive_number(header, "InstanceNumber"),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=short_text(algorithm.name),
        software_versions=short_text(algorithm.version),
        device_serial_number=algorithm.weights_sha256,
        is_complete=True,
        series_description=short_text(f"Research only: {algorithm.name}, measurements"),
    )
    copy_patient_and_study(header, report)
    _restore_classes(report, case)
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "Private codes of MobileUtr MONAI"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    report.CodingSchemeIdentificationSequence = [scheme]
    set_creation(report, created)
    return report


def _restore_classes(report: Dataset, case: DicomCase) -> None:
    """Puts the SOP class of the sources in the place of the stand-ins'."""
    own = set(case.sop_uids)
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword, ()):
            for series in study.ReferencedSeriesSequence:
                for reference in series.ReferencedSOPSequence:
                    if reference.ReferencedSOPInstanceUID in own:
                        reference.ReferencedSOPClassUID = case.sop_class_uid


def _describe(
    case: DicomCase,
    uid: str,
    label: SegmentLabel,
    measurement: Measurement,
    assessment: Assessment,
    segment: _Segment | None,
    algorithm: Algorithm,
) -> list[Any]:
    """Returns the measurement groups of a label: one, and one of its axes where that refers to a segment."""
    from highdicom import sr

    is_there = measurement.pixels > 0
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(derive_uid("tracking", uid, str(label.index)), label.name),
        "finding_category": label.category,
        "finding_type": label.type,
        "algorithm_id": sr.AlgorithmIdentification(
            name=short_text(algorithm.name),
            version=short_text(algorithm.version),
            parameters=[f"weights_sha256={algorithm.weights_sha256}"],
            family=codes.DCM.ArtificialIntelligence,
            manufacturer=MANUFACTURER,
        ),
        "finding_sites": None if label.anatomic_region is None else [sr.FindingSite(label.anatomic_region)],
    }
    values, axes = list_values(case, measurement, assessment, is_region=segment is not None)
    presence = sr.QualitativeEvaluation(_PRESENCE, codes.SCT.Present if is_there else codes.SCT.Absent)
    whole: dict[str, Any] = {**common, "measurements": values, "qualitative_evaluations": [presence]}
    group: Any  # one of three classes, which are sequences of one item
    if segment is None or not is_there:
        sources = [sr.SourceImageForMeasurementGroup(case.sop_class_uid, sop_uid) for sop_uid in case.sop_uids]
        group = sr.MeasurementsAndQualitativeEvaluations(**whole, source_images=sources)
    elif case.kind is CaseKind.STILL:
        source = sr.SourceImageForSegmentation(case.sop_class_uid, case.sop_uids[0])
        referenced = sr.ReferencedSegmentationFrame(
            SegmentationStorage, segment.uid, segment.frames[0], segment.number, source
        )
        # highdicom says both, the standard allows one (PS3.3 C.10.3.1.1); a frame of a segmentation is of one segment.
        del referenced[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(**whole, referenced_segment=referenced)
    else:
        series = sr.SourceSeriesForSegmentation(case.series_uid)
        volume = sr.ReferencedSegment(SegmentationStorage, segment.uid, segment.number, source_series=series)
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(**whole, referenced_segment=volume)
    if assessment.flags:
        group[0].ContentSequence.append(_make_comment(f"flags: {', '.join(assessment.flags)}"))
    return [group, sr.MeasurementsAndQualitativeEvaluations(**common, measurements=axes)] if axes else [group]


def _describe_device(algorithm: Algorithm) -> sr.ObserverContext:
    from highdicom import sr

    uid = derive_uid("device", *algorithm.identity)
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=uid,
        name=short_text(algorithm.name),
        manufacturer_name=MANUFACTURER,
        model_name=short_text(f"{algorithm.name} {algorithm.version}"),
        serial_number=algorithm.weights_sha256,
    )
    return sr.ObserverContext(codes.DCM.Device, attributes)


def _make_comment(text: str) -> sr.TextContentItem:
    from highdicom import sr

    return sr.TextContentItem(codes.DCM.Comment, text, sr.RelationshipTypeValues.CONTAINS)


def _make_notice() -> sr.ContainerContentItem:
    """Returns what TID 1500 has for evaluations of the whole, with the notice that every result has."""
    from highdicom import sr

    container = sr.ContainerContentItem(
        _QUALITATIVE_EVALUATIONS, is_content_continuous=False, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = sr.ContentSequence([_make_comment(NOTICE)])
    return container


def _stand_in(case: DicomCase, header: DicomHeader, sop_class: str, uid: str, series: str = "") -> Dataset:
    """An instance with what highdicom needs to refer to it."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = sop_class, uid
    image.StudyInstanceUID, image.SeriesInstanceUID = study_uid(header), series or source_series_uid(header)
    image.Rows, image.Columns = case.rows, case.columns
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(image, keyword, "")
    image.AccessionNumber = image.StudyID = image.StudyDate = image.StudyTime = ""
    return image


def _check_written(path: Path, output: Path, expected: Mapping[str, Sequence[float]]) -> None:
    """Reads a report again by highdicom and compares its groups with the values of each label.

    Raises:
        OutputCheckError: if groups or values are not those.
    """
    from highdicom import sr

    content: Any = sr.srread(path).content
    groups = (
        *content.get_planar_roi_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
        *content.get_image_measurement_groups(),
    )
    written: dict[str, list[float]] = {}
    for group in groups:
        values = (float(item.value) for item in group.get_measurements())
        written[str(group.tracking_identifier)] = sorted([*written.get(str(group.tracking_identifier), ()), *values])
    if written != expected:
        raise OutputCheckError(f"{output}: the report holds other measurements than it was given")
