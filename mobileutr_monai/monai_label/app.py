"""The app that MONAI Label runs: one or several bundles over a folder or a PACS."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import monailabel.endpoints.infer
import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.async_tasks.task import AsyncTask

from mobileutr_monai.monai_label.bundles import ServedBundle
from mobileutr_monai.monai_label.pacs_store import DicomWebStore
from mobileutr_monai.monai_label.stores import FolderStore
from mobileutr_monai.monai_label.tasks import InferTask, TrainTask
from mobileutr_monai.monai_label.uncertainty import (
    ScoreFile,
    UncertaintyScoring,
    UncertaintyStrategy,
    find_unscored,
)
from mobileutr_monai.monai_label.web.guard import Access

__all__ = ["BundleApp"]

logger = logging.getLogger(__name__)

NOT_FOUND, UNPROCESSABLE = 404, 422
# Images that a job scores which nobody has asked for: a PACS may have very many.
SCORED_AT_ONCE = 200


def _is_sent(image: str) -> bool:
    """Whether it is a file that came with a call or a session. MONAI Label would read any path of the machine."""
    folders = [Path(tempfile.gettempdir()).resolve()]
    folders += [Path(path).resolve() for path in [settings.MONAI_LABEL_SESSION_PATH] if path]
    path = Path(image)
    return path.is_absolute() and path.exists() and not set(folders).isdisjoint(path.resolve().parents)


class BundleApp(MONAILabelApp):
    """MONAI Label with bundles.

    Args:
        conf: ``bundles``, JSON of name -> folder; ``access``, see ``Access``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.access = Access.from_conf(conf)
        self.gpus = torch.cuda.device_count()
        folders = json.loads(conf["bundles"])
        self.served = {name: ServedBundle(Path(folder)) for name, folder in folders.items()}
        self._model = next(iter(self.served))  # of the call that is answered
        # The endpoint of output=dicom_seg calls what it has imported; MONAI Label has no other place for it.
        monailabel.endpoints.infer.nifti_to_dicom_seg = self._make_segmentation
        bundles = [bundle.metadata for bundle in self.served.values()]
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="MobileUtr: " + ", ".join(metadata["name"] for metadata in bundles),
            description=" ".join(metadata["description"] for metadata in bundles),
            version=", ".join(dict.fromkeys(metadata["version"] for metadata in bundles)),
        )

    @property
    def infers(self) -> dict[str, InferTask]:
        found: dict[str, InferTask] = self._infers
        return found

    @property
    def trainers(self) -> dict[str, TrainTask]:
        found: dict[str, TrainTask] = self._trainers
        return found

    @property
    def strategies(self) -> dict[str, Any]:
        found: dict[str, Any] = self._strategies
        return found

    @property
    def scoring_methods(self) -> dict[str, Any]:
        found: dict[str, Any] = self._scoring_methods
        return found

    def init_infers(self) -> dict[str, InferTask]:
        return {name: InferTask(str(bundle.path), self.conf) for name, bundle in self.served.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {name: TrainTask(str(bundle.path), self.conf, bundle.check) for name, bundle in self.served.items()}

    def init_strategies(self) -> dict[str, Any]:
        served = list(self.served.values())
        return {"random": Random(), "first": First(), "uncertainty": UncertaintyStrategy(served, self.studies)}

    def init_scoring_methods(self) -> dict[str, Any]:
        return {"uncertainty": UncertaintyScoring(list(self.served.values()), self.studies)}

    def init_datastore(self) -> Datastore:
        """A folder, whose labels are checked, or a DICOMweb server."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return FolderStore(self.studies, list(self.served.values()))

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
        cache = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH
        return DicomWebStore(client, modalities, cache, list(self.served.values()))

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Runs a bundle on one image; DICOM is read by the bundle's own reader.

        Raises:
            HTTPException: 404 for an unknown image, 422 for one that cannot be used, 503 without weights.
        """
        store = self.datastore()
        source = store.as_folders() if isinstance(store, DicomWebStore) else store
        image, self._model = request["image"], str(request["model"])
        self.infers[self._model].check_weights()
        is_fitting = False
        try:
            if not _is_sent(image):
                if Path(image).exists() or not source.get_image_uri(image):
                    raise HTTPException(NOT_FOUND, f"there is no image {image!r}")
                store.check_model(image, self._model)
                is_fitting = True
            result: dict[str, Any] = super().infer(request, source)
        except HTTPException as error:
            if error.status_code == UNPROCESSABLE and is_fitting:
                store.refuse(image)
            if error.status_code not in (NOT_FOUND, UNPROCESSABLE) or "_image_id" not in request:
                raise
            logger.warning("left out of the batch: %s", error.detail)  # the others continue
            return {}
        if is_fitting:
            store.note_inferred(image, self._model)
        return result

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns an image to annotate, of those that a model takes where one is named."""
        store = self.datastore()
        model = request.get("model")
        with store.offering(self.served[model] if model else None):
            found: dict[str, Any] = super().next_sample(request)
        if request.get("strategy") == "uncertainty" and self._has_unscored():
            AsyncTask.run("scoring", request={"method": "uncertainty", "max_samples": SCORED_AT_ONCE})
        return found

    def _has_unscored(self) -> bool:
        """Whether a job would find something to score."""
        store = self.datastore()
        files = {name: ScoreFile(bundle, self.studies) for name, bundle in self.served.items()}
        return any(
            file.weights.is_file() and find_unscored(self.served[name], file.read(), store)
            for name, file in files.items()
        )

    def _make_segmentation(self, series: str, label: str, label_info: object = None, **options: object) -> str:
        return self.served[self._model].results.make_segmentation(series, label)
