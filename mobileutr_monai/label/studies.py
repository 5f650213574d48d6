"""The series of a PACS for MONAI Label, read and written as the rest of this project does."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import nibabel as nib
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import binary_to_image
from monailabel.datastore.utils.dicom import dicom_web_upload_dcm
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException

from mobileutr_monai.inference.dicom_derived import Algorithm
from mobileutr_monai.inference.dicom_exchange import read_label_file, read_one_case, to_nifti, write_label_file
from mobileutr_monai.inference.dicom_seg import read_segment_labels, write_segmentation
from mobileutr_monai.inference.dicom_seg_reader import read_segmentation

__all__ = ["DicomStudies", "ResultMaker"]

_UID = re.compile(r"[0-9.]{1,64}")
_MOST_FILES = 16
# Without this a server decodes what it sends, and Orthanc fails where it has no decoder.
_AS_STORED = (("application/dicom", "*"),)


class ResultMaker:
    """Makes DICOM Segmentations that say what the bundle's metadata says of its labels.

    Args:
        bundle: its weights are named in what is made, those that are there at that time.
    """

    def __init__(self, bundle: Path) -> None:
        self.weights = bundle / "models" / "model.pt"
        self.metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        self.labels = read_segment_labels(self.metadata)
        self._folder = tempfile.TemporaryDirectory(prefix="monai_label_")
        self._made: deque[Path] = deque()

    def make_segmentation(self, series: str, label: str, label_info: object = None, **options: object) -> str:
        """Returns a new file with a label map as DICOM SEG; ``nifti_to_dicom_seg`` of MONAI Label.

        MONAI Label sends it and leaves it there, so that files are removed when ``_MOST_FILES`` others have been made.

        Args:
            series: folder of the DICOM files.
            label: PNG, NIfTI or NRRD on the grid of the image that the label map is of.
            label_info: what a client calls the labels; the bundle's metadata knows better.
        """
        case = read_one_case(Path(series))
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        algorithm = Algorithm(str(self.metadata["name"]), str(self.metadata["version"]), digest)
        output = Path(self._folder.name) / f"{uuid4().hex}.dcm"
        write_segmentation(case, read_label_file(Path(label), case), self.labels, algorithm, output)
        self._made.append(output)
        if len(self._made) > _MOST_FILES:
            self._made.popleft().unlink(missing_ok=True)
        return str(output)


class DicomStudies(DICOMWebDatastore):
    """A DICOMweb server as MONAI Label's datastore; an image is a series.

    Inference reads the series' DICOM files (``as_folders``). Clients that ask for an image get it as NIfTI. Final
    labels are sent to the server as DICOM SEG and are what training reads.

    Args:
        modalities: whose series are listed; none: all but segmentations.
        cache: folder for downloaded series.
    """

    def __init__(self, client: DICOMwebClientX, modalities: Sequence[str], cache: str, results: ResultMaker) -> None:
        self.modalities, self.results = modalities, results
        super().__init__(client, {}, cache_path=cache)

    def list_images(self) -> list[str]:
        """Series UIDs, in the server's order."""
        filters = [{"Modality": modality} for modality in self.modalities] or [{}]
        found = [item for each in filters for item in self._client.search_for_series(search_filters=each)]
        others = ("SEG", "SR", "PR", "KO")
        return [_value(item, "0020000E") for item in found if self.modalities or _value(item, "00080060") not in others]

    def folder(self, series: str) -> Path:
        """Returns the folder with the series' files, downloaded whole.

        Raises:
            ImageNotFoundException: the server has no such series.
        """
        if not _UID.fullmatch(series):
            raise ImageNotFoundException(f"{series!r} is no series UID")
        folder = Path(self._datastore.image_path()) / series
        if not folder.is_dir():
            found = self._client.search_for_series(search_filters={"SeriesInstanceUID": series})
            if not found:
                raise ImageNotFoundException(f"the server has no series {series}")
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as part:
                study = _value(found[0], "0020000D")
                for dataset in self._client.retrieve_series(study, series, media_types=_AS_STORED):
                    dataset.save_as(Path(part) / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
                Path(part).rename(folder)
                Path(part).mkdir()  # for its removal
        return folder

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
        """Keeps a label; a final one is sent to the server, too, as DICOM SEG."""
        image = self.get_image_uri(image_id)
        label = Path(label_filename)
        if "".join(label.suffixes) == ".bin":  # OHIF's
            label = Path(binary_to_image(image, label_filename))
        if label_tag != DefaultLabelTag.FINAL:
            return str(LocalDatastore.save_label(self, image_id, str(label), label_tag, label_info))
        case = read_one_case(self.folder(image_id))
        with tempfile.TemporaryDirectory() as part:
            kept = Path(part) / "label.nii.gz"
            write_label_file(read_label_file(label, case), case, kept)
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

    def __init__(self, studies: DicomStudies) -> None:
        self.studies = studies

    def get_image_uri(self, image_id: str) -> str:
        return str(self.studies.folder(image_id))

    def save_label(self, *arguments: Any) -> str:
        return self.studies.save_label(*arguments)


def _value(item: Mapping[str, Any], tag: str) -> str:
    return str(next(iter(item.get(tag, {}).get("Value", [])), ""))
