"""The app that MONAI Label runs: one bundle over a folder or a PACS."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import monailabel.endpoints.infer
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from mobileutr_monai.monai_label.labels import LabelCheck
from mobileutr_monai.monai_label.results import ResultMaker
from mobileutr_monai.monai_label.stores import DicomWebStore, FolderStore
from mobileutr_monai.monai_label.tasks import InferTask, TrainTask

__all__ = ["BundleApp"]

logger = logging.getLogger(__name__)

NOT_FOUND = 404


def _is_sent(image: str) -> bool:
    """Whether it is a file that came with a call or a session. MONAI Label would read any path of the machine."""
    folders = [Path(tempfile.gettempdir()).resolve()]
    folders += [Path(path).resolve() for path in [settings.MONAI_LABEL_SESSION_PATH] if path]
    path = Path(image)
    return path.is_absolute() and path.is_file() and not set(folders).isdisjoint(path.resolve().parents)


class BundleApp(MONAILabelApp):
    """MONAI Label with one bundle, found in ``model/`` of the app's folder."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundle = Path(app_dir) / "model" / conf["models"]
        self.results = ResultMaker(self.bundle)
        self.check = LabelCheck(self.bundle, self.results.labels)
        # The endpoint of output=dicom_seg calls what it has imported; MONAI Label has no other place for it.
        monailabel.endpoints.infer.nifti_to_dicom_seg = self.results.make_segmentation
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name=f"MobileUtr: {self.results.metadata['name']}",
            description=self.results.metadata["description"],
            version=self.results.metadata["version"],
        )

    def init_infers(self) -> dict[str, InferTask]:
        return {self.bundle.name: InferTask(str(self.bundle), self.conf)}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {self.bundle.name: TrainTask(str(self.bundle), self.conf, self.check)}

    def init_strategies(self) -> dict[str, Any]:
        return {"random": Random(), "first": First()}

    def init_datastore(self) -> Datastore:
        """A folder, whose labels are checked, or a DICOMweb server."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return FolderStore(self.studies, self.check)

    def init_remote_datastore(self) -> Datastore:
        """A DICOMweb server, with our reader and writer of DICOM."""
        session = None
        if settings.MONAI_LABEL_DICOMWEB_USERNAME:
            from dicomweb_client.session_utils import create_session_from_user_pass

            session = create_session_from_user_pass(
                settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
            )
        client = DICOMwebClientX(url=self.studies, session=session)
        modalities = settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER["Modality"]
        return DicomWebStore(client, modalities, settings.MONAI_LABEL_DICOMWEB_CACHE_PATH, self.results)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Runs the bundle on one image; DICOM is read by the bundle's own reader.

        Raises:
            HTTPException: 404 for an image that is not there, 422 for one that cannot be used.
        """
        store = datastore or self.datastore()
        if isinstance(store, DicomWebStore):
            store = store.as_folders()
        image = request["image"]
        if not _is_sent(image) and (Path(image).exists() or not store.get_image_uri(image)):
            raise HTTPException(NOT_FOUND, f"there is no image {image!r}")
        try:
            result: dict[str, Any] = super().infer(request, store)
        except HTTPException as error:
            if Path(image).parent == Path(tempfile.gettempdir()):
                Path(image).unlink(missing_ok=True)  # MONAI Label removes what was sent after good answers only
            if "_image_id" not in request:
                raise
            logger.warning("left out of the batch: %s", error.detail)  # the others go on
            return {}
        return result
