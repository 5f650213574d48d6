"""The series of a PACS for MONAI Label, read and written as the rest of this project does."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
from cachetools import TTLCache, cached
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import binary_to_image
from monailabel.datastore.utils.dicom import dicom_web_upload_dcm
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from pydicom import dcmread
from pydicom.dataset import Dataset

from mobileutr_monai.inference.outputs.dicom.seg_reader import read_segmentation
from mobileutr_monai.monai_label.label_file_io import read_label_file, read_one_case, to_nifti, write_label_file
from mobileutr_monai.monai_label.labels import LabelCheck, explain, to_indices
from mobileutr_monai.monai_label.results import ResultMaker
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.series import SLICE_MODALITIES

__all__ = ["DicomWebStore", "FolderStore"]

logger = logging.getLogger(__name__)

UNPROCESSABLE = 422

_UID = re.compile(r"[0-9.]{1,64}")
# Without this a server decodes what it sends, and Orthanc fails where it has no decoder.
_AS_STORED = (("application/dicom", "*"),)
_INFO = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "StudyTime", "Modality")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MODALITY, _INSTANCES, _NUMBER, _FRAMES = "00080060", "00201209", "00200013", "00280008"
_CONTENT_DATE, _CONTENT_TIME = "00080023", "00080033"
_REFERENCED_SERIES, _REFERENCED_INSTANCES, _REFERENCED_INSTANCE = "00081115", "0008114A", "00081155"


class FolderStore(LocalDatastore):
    """A folder of images as MONAI Label's datastore."""

    def __init__(self, folder: str, check: LabelCheck) -> None:
        self.check = check
        super().__init__(folder, extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT, auto_reload=True)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keeps a label.

        Raises:
            HTTPException: 422 and what is wrong with it, in one line.
        """
        image = self.get_image_uri(image_id)
        if image and (problem := self.check.find_problem(Path(image), Path(label_filename))):
            raise HTTPException(UNPROCESSABLE, problem)
        return str(super().save_label(image_id, label_filename, label_tag, label_info))


class DicomWebStore(DICOMWebDatastore):
    """A DICOMweb server as MONAI Label's datastore; an image is a series, or one of several stills in a series.

    Ids are UIDs of series; stills that share a series have those of their instances.

    Inference reads the series' DICOM files (``as_folders``). Clients that ask for an image get it as NIfTI. Final
    labels are sent to the server as DICOM SEG and are what training reads.

    Args:
        modalities: whose series are listed; none: all but segmentations.
        cache: folder for downloaded series.
    """

    def __init__(self, client: DICOMwebClientX, modalities: Sequence[str], cache: str, results: ResultMaker) -> None:
        self.modalities, self.results = modalities, results
        super().__init__(client, {}, cache_path=cache)

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY))
    def list_images(self) -> list[str]:
        """Returns the images' UIDs, in the server's order."""
        return self._find_images()

    def _find_images(self) -> list[str]:
        filters = [{"Modality": modality} for modality in self.modalities] or [{}]
        found = [item for each in filters for item in self._client.search_for_series(search_filters=each)]
        others = () if self.modalities else ("SEG", "SR", "PR", "KO")
        series = [item for item in found if _value(item, _MODALITY) not in others]
        return [image for item in series for image in self._find_stills(item) or [_value(item, _SERIES)]]

    def _find_stills(self, series: Mapping[str, Any]) -> list[str]:
        """Returns the instances of one frame, where a series is neither a volume nor a single file."""
        if _value(series, _MODALITY) in SLICE_MODALITIES or _value(series, _INSTANCES) == "1":
            return []
        found = self._client.search_for_instances(_value(series, _STUDY), _value(series, _SERIES))
        stills = [item for item in found if int(_value(item, _FRAMES) or 1) == 1]
        stills.sort(key=lambda item: int(_value(item, _NUMBER) or 0))
        return [_value(item, _INSTANCE) for item in stills] if len(found) > 1 else []

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
                Path(part).rename(folder)
                Path(part).mkdir()  # for its removal
        return folder

    def _retrieve(self, image: str) -> list[Dataset]:
        if found := self._client.search_for_series(search_filters={"SeriesInstanceUID": image}):
            if stills := self._find_stills(found[0]):
                way_out = "each is an image of its own: name one by its SOP instance UID"
                raise HTTPException(UNPROCESSABLE, f"the series has {len(stills)} stills; {way_out}")
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

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY))
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
        label = Path(label_filename)
        try:
            if "".join(label.suffixes) == ".bin":  # OHIF's
                label = Path(binary_to_image(image, label_filename))
            values = to_indices(read_label_file(label, case), self.results.labels)
        except Exception as error:  # whatever a decoder throws
            raise HTTPException(UNPROCESSABLE, f"the label cannot be used: {explain(label, error, '')}") from error
        if label_tag != DefaultLabelTag.FINAL:
            return str(LocalDatastore.save_label(self, image_id, str(label), label_tag, label_info))
        with tempfile.TemporaryDirectory() as part:
            kept = Path(part) / "label.nii.gz"
            write_label_file(values, case, kept)
            segmentation = self.results.make_segmentation(str(self.folder(image_id)), str(kept))
            label_info = {**label_info, "SeriesInstanceUID": dicom_web_upload_dcm(segmentation, self._client)}
            return str(LocalDatastore.save_label(self, image_id, str(kept), label_tag, label_info))

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
            label = read_segmentation(case, segmentation, self.results.labels)
            with tempfile.TemporaryDirectory() as part:
                kept = Path(part) / "label.nii.gz"
                write_label_file(label, case, kept)
                LocalDatastore.save_label(self, image_id, str(kept), label_tag, {"SeriesInstanceUID": label_id})
        return str(LocalDatastore.get_label_uri(self, image_id, label_tag))

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
