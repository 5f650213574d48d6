"""The series of a PACS as MONAI Label's datastore, read and written as the rest of this project does."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import Any

import nibabel as nib
import numpy as np
from cachetools import TTLCache, cached
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import binary_to_image
from monailabel.datastore.utils.dicom import dicom_web_upload_dcm
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.datasets.duplicates import make_thumbnail
from mobileutr_monai.inference.outputs.dicom.seg import Annotation
from mobileutr_monai.inference.outputs.dicom.seg_reader import read_segmentation
from mobileutr_monai.monai_label.bundles import ServedBundle
from mobileutr_monai.monai_label.label_file_io import read_label_file, read_one_case, to_nifti, write_label_file
from mobileutr_monai.monai_label.labels import explain, to_indices
from mobileutr_monai.monai_label.stores import Store
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.pixels import read_frame
from mobileutr_monai.readers.dicom.series import SLICE_MODALITIES, DicomCase

__all__ = ["DicomWebStore"]

logger = logging.getLogger(__name__)

NOT_ALLOWED, UNPROCESSABLE = 405, 422

# Lists of a PACS are kept for a while; a batch asks for them from several threads.
_LIST_LOCK, _LABEL_LOCK = RLock(), RLock()
_UID = re.compile(r"[0-9.]{1,64}")
# Without this a server decodes what it sends, and Orthanc fails where it has no decoder.
_AS_STORED = (("application/dicom", "*"),)
_INFO = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "StudyTime", "Modality")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MODALITY, _INSTANCES, _NUMBER, _FRAMES = "00080060", "00201209", "00200013", "00280008"
_CONTENT_DATE, _CONTENT_TIME = "00080023", "00080033"
_REFERENCED_SERIES, _REFERENCED_INSTANCES, _REFERENCED_INSTANCE = "00081115", "0008114A", "00081155"


class DicomWebStore(Store, DICOMWebDatastore):
    """A DICOMweb server as MONAI Label's datastore; an image is a series, or one of several stills in a series.

    Ids are UIDs of series; stills that share a series have those of their instances.

    Inference reads the series' DICOM files (``as_folders``). Clients that ask for an image get it as NIfTI. Final
    labels are sent to the server as DICOM SEG and are what training reads.

    Args:
        modalities: whose series are listed; none: all but segmentations.
        cache: folder for downloaded series.
    """

    def __init__(
        self, client: DICOMwebClientX, modalities: Sequence[str], cache: str, bundles: Sequence[ServedBundle]
    ) -> None:
        self.modalities, self.bundles = modalities, bundles
        self._instances: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        self._modality: dict[str, str] = {}  # of listed images
        super().__init__(client, {}, cache_path=cache)

    def find_bundles(self, image: str) -> list[ServedBundle]:
        """Returns the bundles for an image's modality; all of them where series of any are listed."""
        if not self.modalities:
            return list(self.bundles)
        modality = self._modality.get(image) or self._dicom_info(image)["Modality"]
        return [bundle for bundle in self.bundles if modality in bundle.modalities]

    def image_source(self, image: str) -> str:
        """Returns the folder of an image's DICOM files."""
        return str(self.folder(image))

    def patient_of(self, image: str) -> str:
        """Returns a digest of the patient's ID."""
        patient = self._dicom_info(image)["PatientID"]
        return "" if patient == "UNK" else sha256(patient.encode()).hexdigest()[:16]

    def _make_thumbnail(self, image: str) -> np.ndarray | None:
        case = read_one_case(self.folder(image))
        if case.kind is not CaseKind.STILL:
            return None
        return make_thumbnail(Image.fromarray(read_frame(case.paths[0], 0, "RGB")))

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY), lock=_LIST_LOCK)
    def list_images(self) -> list[str]:
        """Returns the images' UIDs, in the server's order."""
        return self._find_images()

    def _find_images(self) -> list[str]:
        filters = [{"Modality": modality} for modality in self.modalities] or [{}]
        found = [item for each in filters for item in self._client.search_for_series(search_filters=each)]
        others = () if self.modalities else ("SEG", "SR", "PR", "KO")
        series = [item for item in found if _value(item, _MODALITY) not in others]
        self._modality = {image: _value(item, _MODALITY) for item in series for image in self._images_of(item)}
        return list(self._modality)

    def _images_of(self, series: Mapping[str, Any]) -> list[str]:
        """Returns the UIDs by which the images of a series are asked for; nothing for a cine alone."""
        if _value(series, _MODALITY) in SLICE_MODALITIES:
            return [_value(series, _SERIES)]
        found = self._find_instances(series)
        stills = [item for item in found if int(_value(item, _FRAMES) or 1) == 1]
        if len(found) == 1:
            return [_value(series, _SERIES)] if stills else []
        stills.sort(key=lambda item: int(_value(item, _NUMBER) or 0))
        return [_value(item, _INSTANCE) for item in stills]

    def _find_instances(self, series: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Returns a series' instances; they are asked for again when there are more or less of them."""
        key = _value(series, _SERIES), _value(series, _INSTANCES)
        if not key[1] or key not in self._instances:
            self._instances[key] = self._client.search_for_instances(_value(series, _STUDY), key[0])
        return self._instances[key]

    def folder(self, image: str) -> Path:
        """Returns the folder with the files of a series, or with that of an instance, downloaded whole.

        Raises:
            ImageNotFoundException: the server has neither.
            HTTPException: 422, the series is not one image.
        """
        if not _UID.fullmatch(image):
            raise ImageNotFoundException(f"{image!r} is no UID")
        folder = Path(self._datastore.image_path()) / image
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as part:
                for dataset in self._retrieve(image):
                    dataset.save_as(Path(part) / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
                try:
                    Path(part).rename(folder)
                    Path(part).mkdir()  # for its removal
                except OSError:
                    if not folder.is_dir():  # else another call or a job has downloaded it meanwhile
                        raise
        return folder

    def _retrieve(self, image: str) -> list[Dataset]:
        if found := self._client.search_for_series(search_filters={"SeriesInstanceUID": image}):
            stills = self._images_of(found[0])
            if stills and stills != [image]:
                remedy = "each is an image of its own: name one by its SOP instance UID"
                raise HTTPException(UNPROCESSABLE, f"the series has {len(stills)} stills; {remedy}")
            return list(self._client.retrieve_series(_value(found[0], _STUDY), image, media_types=_AS_STORED))
        found = self._client.search_for_instances(search_filters={"SOPInstanceUID": image})
        if not found:
            raise ImageNotFoundException(f"the server has no series and no instance {image}")
        place = _value(found[0], _STUDY), _value(found[0], _SERIES), image
        return [self._client.retrieve_instance(*place, media_types=_AS_STORED)]

    def _dicom_info(self, image_id: str) -> dict[str, str]:
        header = dcmread(next(self.folder(image_id).iterdir()), stop_before_pixels=True)
        return {keyword: str(header.get(keyword) or "UNK") for keyword in _INFO}

    def json(self) -> dict[str, Any]:
        """Returns all images; MONAI Label's own tells only of those that it has downloaded."""
        content: dict[str, Any] = super().json()
        unknown = {"image": {"ext": "", "info": {}}, "labels": {}}
        content["objects"] = {image: content["objects"].get(image, unknown) for image in self.list_images()}
        return content

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Returns the images that the server has a segmentation of."""
        return list(self._known_labels())

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY), lock=_LABEL_LOCK)
    def _known_labels(self) -> dict[str, str]:
        return self._find_labels()

    def _find_labels(self) -> dict[str, str]:
        """Returns image -> SOP instance UID of its newest segmentation."""
        listed, found = set(self._find_images()), []
        for series in self._client.search_for_series(search_filters={"Modality": "SEG"}):
            place = _value(series, _STUDY), _value(series, _SERIES)
            for item in self._client.retrieve_series_metadata(*place):
                made = _value(item, _CONTENT_DATE) + _value(item, _CONTENT_TIME)
                for source in _items(item, _REFERENCED_SERIES):
                    instances = _items(source, _REFERENCED_INSTANCES)
                    of = {_value(source, _SERIES), *(_value(each, _REFERENCED_INSTANCE) for each in instances)}
                    found += [(made, _value(item, _INSTANCE), image) for image in of & listed]
        return {image: segmentation for _, segmentation, image in sorted(found)}

    def _download_labeled_data(self) -> None:
        labels = self._find_labels()
        for image in set(LocalDatastore.get_labeled_images(self)) - set(labels):  # it was removed from the server
            LocalDatastore.remove_label(self, image, DefaultLabelTag.FINAL)
        self.refresh()
        for image, segmentation in labels.items():
            try:
                self.get_image_uri(image)
                self.get_label_uri(segmentation, DefaultLabelTag.FINAL, image)
            except (DicomError, HTTPException) as error:
                reason = error.detail or getattr(error, "reason", "")
                logger.warning("segmentation %s is left out: %s", segmentation, reason)

    def get_image_uri(self, image_id: str) -> str:
        """Returns the image as a NIfTI file."""
        folder = self.folder(image_id)
        volume = folder.with_name(f"{image_id}.nii.gz")
        if image_id not in self._datastore.objects or not volume.is_file():
            with tempfile.TemporaryDirectory() as part:
                nib.save(to_nifti(read_one_case(folder)), Path(part) / volume.name)
                LocalDatastore.add_image(self, image_id, str(Path(part) / volume.name), self._dicom_info(image_id))
        return str(volume)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Keeps a label; a final one is sent to the server, too, as DICOM SEG.

        Raises:
            HTTPException: 422 and what is wrong with it, in one line.
        """
        image = self.get_image_uri(image_id)
        case = read_one_case(self.folder(image_id))
        results = self._bundle(model := self._find_model(image_id, label_info)).results
        label_info = {**label_info, "model": model}
        label = Path(label_filename)
        try:
            if "".join(label.suffixes) == ".bin":  # OHIF's
                label = Path(binary_to_image(image, label_filename))
            values = to_indices(read_label_file(label, case), results.labels)
        except Exception as error:  # whatever a decoder throws
            raise HTTPException(UNPROCESSABLE, f"the label cannot be used: {explain(label, error, '')}") from error
        if label_tag != DefaultLabelTag.FINAL:
            return str(LocalDatastore.save_label(self, image_id, str(label), label_tag, label_info))
        annotation = None
        if "params" not in label_info:  # which a mask of /infer has
            annotation = Annotation(label_info.get("creator", ""), bool(self._inferred.get(image_id)))
        with tempfile.TemporaryDirectory() as part:
            kept = Path(part) / "label.nii.gz"
            write_label_file(values, case, kept)
            segmentation = results.make_segmentation(str(self.folder(image_id)), str(kept), annotation)
            label_info["SeriesInstanceUID"] = dicom_web_upload_dcm(segmentation, self._client)
            return str(LocalDatastore.save_label(self, image_id, str(kept), label_tag, label_info))

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label that is kept here.

        Raises:
            HTTPException: 405, it is in the PACS.
            LabelNotFoundException: there is none.
        """
        if label_tag == DefaultLabelTag.FINAL:
            raise HTTPException(NOT_ALLOWED, "DICOMweb removes nothing: remove the segmentation in the PACS itself")
        if self._datastore.label(label_id, label_tag) is None:
            raise LabelNotFoundException(f"there is no label {label_tag!r} of {label_id!r}")
        LocalDatastore.remove_label(self, label_id, label_tag)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Raises 405: images come from the PACS."""
        raise HTTPException(NOT_ALLOWED, "images are added in the PACS itself")

    def remove_image(self, image_id: str) -> None:
        """Raises 405: images stay in the PACS."""
        raise HTTPException(NOT_ALLOWED, "DICOMweb removes nothing: remove the image in the PACS itself")

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Returns a label's file; that of a segmentation on the server is made of it."""
        image_id = image_id or label_id
        if (
            self._datastore.label(image_id, label_tag) is None
            and label_tag == DefaultLabelTag.FINAL
            and label_id != image_id
        ):
            case = read_one_case(self.folder(image_id))
            segmentation = next(self.folder(label_id).iterdir())
            label = self._read_segmentation(case, segmentation, image_id)
            with tempfile.TemporaryDirectory() as part:
                kept = Path(part) / "label.nii.gz"
                write_label_file(label, case, kept)
                LocalDatastore.save_label(self, image_id, str(kept), label_tag, {"SeriesInstanceUID": label_id})
        return str(LocalDatastore.get_label_uri(self, image_id, label_tag))

    def _read_segmentation(self, case: DicomCase, path: Path, image: str) -> np.ndarray:
        """Reads a segmentation as labels of the first bundle that has its segments.

        Raises:
            DicomError: it is of none.
        """
        problem = DicomError(path, Reason.INCOMPLETE, "no model takes the image")
        for bundle in self.find_bundles(image):
            try:
                return read_segmentation(case, path, bundle.results.labels)
            except DicomError as error:
                problem = error
        raise problem

    def as_folders(self) -> DicomFolders:
        """This store with folders of DICOM files for images."""
        return DicomFolders(self)


class DicomFolders:
    """What inference needs of a datastore: the DICOM files of an image, and a place for its label."""

    def __init__(self, studies: DicomWebStore) -> None:
        self.studies = studies

    def get_image_uri(self, image_id: str) -> str:
        return str(self.studies.folder(image_id))

    def save_label(self, *arguments: Any) -> str:
        return self.studies.save_label(*arguments)


def _value(item: Mapping[str, Any], tag: str) -> str:
    return str(next(iter(item.get(tag, {}).get("Value", [])), ""))


def _items(item: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = item.get(tag, {}).get("Value", [])
    return found
