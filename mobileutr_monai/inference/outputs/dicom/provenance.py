"""What every DICOM object that a run makes has: its source's patient and study, and an identity of its own.

UIDs are derived from those of the source, never random, so that a run repeated gives the same objects. Values that
identify a patient are copied as they are, and are in no error, log or warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import RLock

import numpy as np
from pydicom import dcmwrite
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DT

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom.errors import READ_ERRORS, DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, numbers

__all__ = [
    "CREATION_DATES",
    "MANUFACTURER",
    "Algorithm",
    "OutputCheckError",
    "check_source",
    "copy_patient_and_study",
    "derive_uid",
    "encode",
    "hash_label_map",
    "positive_number",
    "set_creation",
    "short_text",
    "source_series_uid",
    "study_uid",
    "suppress_pydicom_warnings",
]

MANUFACTURER = "MobileUtr MONAI contributors"

_WARNINGS_LOCK = RLock()

CREATION_DATES = (("InstanceCreationDate", "InstanceCreationTime"), ("ContentDate", "ContentTime"))
"""Two runs' objects differ in these, and in ContributionDateTime of ContributingEquipmentSequence."""

_MAX_SHORT_TEXT = 64
_MAX_NUMBER = 2**31 - 1

_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
# PS3.3 C.7.1.1 (patient), C.7.2.1 and C.7.2.2 (study), C.7.1.3 and C.7.2.3 (clinical trial).
_OPTIONAL = (
    "AdditionalPatientHistory",
    "AdmissionID",
    "AdmittingDiagnosesDescription",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSponsorName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointDescription",
    "ClinicalTrialTimePointID",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "EthnicGroup",
    "IssuerOfAccessionNumberSequence",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "LongitudinalTemporalInformationModified",
    "MedicalAlerts",
    "NameOfPhysiciansReadingStudy",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientAge",
    "PatientBirthTime",
    "PatientBreedCodeSequence",
    "PatientBreedDescription",
    "PatientComments",
    "PatientIdentityRemoved",
    "PatientSexNeutered",
    "PatientSize",
    "PatientSpeciesCodeSequence",
    "PatientSpeciesDescription",
    "PatientWeight",
    "PhysiciansOfRecord",
    "PregnancyStatus",
    "ProcedureCodeSequence",
    "QualityControlSubject",
    "ResponsibleOrganization",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "StudyDescription",
    "TypeOfPatientID",
)


class OutputCheckError(RuntimeError):
    """A file that was written holds something else than what it was given; it has been removed."""


@dataclass(frozen=True)
class Algorithm:
    """What made a result: a bundle's name and version, and the SHA-256 of its weights in hexadecimal digits."""

    name: str
    version: str
    weights_sha256: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """What UIDs of its results are derived from."""
        return self.name, self.version, self.weights_sha256


def check_source(header: DicomHeader) -> None:
    """Says whether an object can refer to this source.

    Raises:
        DicomError: if it has no UIDs to refer to.
    """
    if not header.sop_uid or not header.sop_class_uid:
        remedy = "objects cannot refer to it; choose another format"
        raise DicomError(header.path, Reason.INCOMPLETE, f"no SOPInstanceUID or SOPClassUID; {remedy}")


def derive_uid(*parts: str) -> UID:
    """Returns the same UID for the same parts, everywhere and always."""
    return generate_uid(entropy_srcs=["|".join(("mobileutr-monai", *parts))])


def copy_patient_and_study(header: DicomHeader, target: Dataset) -> None:
    """Copies the patient and study of a source as they are, and their character set.

    What the standard wants and the source lacks is empty; a missing StudyInstanceUID is derived from the instance's.
    Optional values that cannot be read are left out.
    """
    source = header.dataset
    for keyword in ("SpecificCharacterSet", *_TYPE_2, *_OPTIONAL):
        if keyword in target:
            del target[keyword]
        try:
            if keyword in source:
                target[keyword] = source[keyword]
        except READ_ERRORS:
            continue
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, "")
    target.StudyInstanceUID = study_uid(header)


def study_uid(header: DicomHeader) -> str:
    """The study's UID, or a derived one for a source without."""
    return str(header.dataset.get("StudyInstanceUID") or derive_uid("study", header.sop_uid))


def source_series_uid(header: DicomHeader) -> str:
    """The series' UID, or a derived one for a source without."""
    return str(header.dataset.get("SeriesInstanceUID") or derive_uid("series", header.sop_uid))


def positive_number(header: DicomHeader, keyword: str, offset: int = 0) -> int:
    """A number of the source plus an offset, at least 1 and small enough for its representation."""
    found = numbers(header.dataset, keyword, 1)
    number = int(found[0]) if found else 0
    return max(1, offset + (number if 0 <= number <= _MAX_NUMBER - offset else 0))


def set_creation(target: Dataset, created: datetime | None) -> None:
    """Sets ``CREATION_DATES`` and when equipment contributed, now by default."""
    created = created or datetime.now()
    for equipment in target.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = DT(f"{created:%Y%m%d%H%M%S}")
    for date, time in CREATION_DATES:
        setattr(target, date, f"{created:%Y%m%d}")
        setattr(target, time, f"{created:%H%M%S}")


def hash_label_map(label: np.ndarray) -> str:
    """Returns the SHA-256 of a label map's values, which UIDs of results are derived from."""
    return sha256(np.ascontiguousarray(label, np.uint8).data).hexdigest()


def encode(dataset: Dataset, source: Path) -> bytes:
    """Returns a data set as the content of a file.

    Raises:
        DicomError: if a value that was copied from the source cannot be written.
    """
    buffer = BytesIO()
    with as_dicom_errors(source, Reason.INCOMPLETE):
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def short_text(text: str) -> str:
    """Text that fits any short element and any character set."""
    plain = " ".join(text.encode("ascii", "replace").decode().replace("\\", "/").split())
    return plain[:_MAX_SHORT_TEXT].rstrip()


@contextmanager
def suppress_pydicom_warnings() -> Iterator[None]:
    """Copies what is wrong in a source silently: pydicom's warnings would quote it.

    One thread at a time: which warnings are shown is a matter of the whole process.
    """
    with _WARNINGS_LOCK, disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
