"""The calls that bring something: each checks what it is given, then hands it to MONAI Label's function for it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, logs, scoring, session, train
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance

from mobileutr_monai.monai_label.web.guard import is_plain_name
from mobileutr_monai.monai_label.web.jobs import hide_paths
from mobileutr_monai.monai_label.web.parameters import (
    BatchParameters,
    LabelParameters,
    SampleParameters,
    ScoringParameters,
    Tag,
    TrainParameters,
    parse_parameters,
)

__all__ = ["router"]

NOT_FOUND, UNPROCESSABLE = 404, 422

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm")
LABEL_SUFFIXES = (".nii.gz", ".nii", ".png", ".bmp", ".tif", ".tiff", ".seg.nrrd", ".nrrd", ".bin")

router = APIRouter()
Admin = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
Annotator = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
AnyUser = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))


@contextmanager
def _received(request: Request) -> Iterator[None]:
    """Puts the temporary files of a call into a folder of its own, which ``Guard`` removes when it is answered.

    MONAI Label's functions run from their beginning to their end without another call in between.
    """
    before = tempfile.tempdir
    folder = tempfile.mkdtemp(prefix="received_")
    request.scope["received"].append(folder)
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def _suffix(file: UploadFile, allowed: tuple[str, ...]) -> str:
    name = PurePosixPath(file.filename or "").name.lower()
    return next((suffix for suffix in allowed if name.endswith(suffix)), "")


def _check_known(name: str, known: Any, kind: str) -> None:
    if name not in known:
        raise HTTPException(NOT_FOUND, f"there is no {kind} {name!r}; this server has {', '.join(known) or 'none'}")


# Training, batch inference, scoring: jobs.


@router.post("/train/{model}", tags=["Train"], summary="Train a model with the final labels", dependencies=[Admin])
async def run_training(model: str, params: TrainParameters | None = None, enqueue: bool = False) -> Any:
    app = app_instance()
    _check_known(model, app.trainers, "model")
    chosen = params or TrainParameters()
    if chosen.pretrained:
        app.trainers[model].check_weights()
    return hide_paths(train.run_model(model, chosen.chosen(), False, enqueue))


@router.post("/train/", include_in_schema=False, dependencies=[Admin])
async def run_all_training(params: dict[str, TrainParameters] | None = None) -> Any:
    """As OHIF calls it: parameters by model."""
    chosen, app = params or {}, app_instance()
    for model in chosen:
        _check_known(model, app.trainers, "model")
    return {model: {"result": await run_training(model, chosen.get(model), enqueue=True)} for model in app.trainers}


@router.get("/train/", tags=["Train"], summary="Status of the training", dependencies=[AnyUser])
async def get_training(all: bool = False, check_if_running: bool = False) -> Any:
    return hide_paths(train.status(all, check_if_running))


@router.delete("/train/", tags=["Train"], summary="Stop the training", dependencies=[Admin])
async def stop_training() -> Any:
    return hide_paths(train.stop())


@router.post("/batch/infer/{model}", tags=["Infer"], summary="Infer many images in a job", dependencies=[Admin])
async def run_batch(
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: BatchParameters | None = None,
) -> Any:
    app = app_instance()
    _check_known(model, app.infers, "model")
    app.infers[model].check_weights()
    chosen = (params or BatchParameters()).model_dump(exclude={"client_id"})
    chosen["multi_gpu"] = chosen["multi_gpu"] and app.gpus > 1
    return hide_paths(batch_infer.run(model, images, chosen, False))


@router.get("/batch/infer", tags=["Infer"], summary="Status of the batch inference", dependencies=[AnyUser])
async def get_batch(all: bool = False, check_if_running: bool = False) -> Any:
    return hide_paths(batch_infer.status(all, check_if_running))


@router.delete("/batch/infer", tags=["Infer"], summary="Stop the batch inference", dependencies=[Admin])
async def stop_batch() -> Any:
    return hide_paths(batch_infer.stop())


@router.post("/scoring/{method}", tags=["Scoring"], summary="Score the images in a job", dependencies=[Annotator])
async def run_scoring(method: str, params: ScoringParameters | None = None) -> Any:
    _check_known(method, app_instance().scoring_methods, "scoring method")
    return hide_paths(scoring.run_method(method, (params or ScoringParameters()).chosen(), False))


@router.get("/scoring/", tags=["Scoring"], summary="Status of the scoring", dependencies=[AnyUser])
async def get_scoring(all: bool = False, check_if_running: bool = False) -> Any:
    return hide_paths(scoring.status(all, check_if_running))


@router.delete("/scoring/", tags=["Scoring"], summary="Stop the scoring", dependencies=[Annotator])
async def stop_scoring() -> Any:
    return hide_paths(scoring.stop())


@router.post("/activelearning/{strategy}", tags=["ActiveLearning"], summary="The next image to annotate")
async def find_next(strategy: str, params: SampleParameters | None = None, user: User = AnyUser) -> Any:
    app = app_instance()
    _check_known(strategy, app.strategies, "strategy")
    chosen = params or SampleParameters()
    if chosen.model:
        _check_known(chosen.model, app.infers, "model")
    return activelearning.sample(strategy, chosen.model_dump(exclude_unset=True), user.username)


# Images, labels, masks.


@router.post("/infer/{model}", tags=["Infer"], summary="The mask of an image", dependencies=[AnyUser])
async def run_inference(
    request: Request,
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: Annotated[UploadFile | None, File()] = None,
    output: infer.ResultType | None = None,
) -> Any:
    app = app_instance()
    _check_known(model, app.infers, "model")
    chosen = app.infers[model].read_parameters(params)
    if file is not None:
        file.filename = f"image{_suffix(file, IMAGE_SUFFIXES)}"
    with _received(request):
        return infer.run_inference(background_tasks, model, image, session_id, json.dumps(chosen), file, None, output)


@router.put("/datastore/label", tags=["Datastore"], summary="Save a label")
async def save_label(
    request: Request,
    background_tasks: BackgroundTasks,
    image: str,
    params: str = Form("{}"),
    tag: Tag = "final",
    *,
    label: Annotated[UploadFile, File()],
    user: User = Annotator,
) -> Any:
    suffix = _suffix(label, LABEL_SUFFIXES)
    if not suffix:
        raise HTTPException(UNPROCESSABLE, f"a label's file name must end with one of {', '.join(LABEL_SUFFIXES)}")
    label.filename = f"label{suffix}"
    chosen = parse_parameters(LabelParameters, json.loads(params or "{}")).chosen()
    if chosen.get("model"):
        _check_known(chosen["model"], app_instance().infers, "model")
    if settings.MONAI_LABEL_AUTH_ENABLE:  # who has logged in is known better than what a client says
        chosen["creator"] = user.name or user.username
    with _received(request):
        return datastore.save_label(background_tasks, image, json.dumps(chosen), tag, label, user.username)


@router.put("/datastore/image", tags=["Datastore"], summary="Add an image; closed by default")
async def add_image(
    request: Request,
    background_tasks: BackgroundTasks,
    image: str = "",
    *,
    file: Annotated[UploadFile, File()],
    user: User = Annotator,
) -> Any:
    suffix = _suffix(file, IMAGE_SUFFIXES[:-1])
    if not suffix:
        raise HTTPException(
            UNPROCESSABLE, f"an image's file name must end with one of {', '.join(IMAGE_SUFFIXES[:-1])}"
        )
    name = image or PurePosixPath(file.filename or "").name[: -len(suffix)]
    if not name or not is_plain_name(name):
        raise HTTPException(UNPROCESSABLE, "the image needs a name without '/', '\\', '..' and control characters")
    file.filename = f"image{suffix}"
    with _received(request):
        return datastore.add_image(background_tasks, name, "{}", file, user.username)


@router.get(
    "/datastore/dataset",
    tags=["Datastore"],
    summary="Images and final labels",
    dependencies=[Annotator],
)
async def get_dataset(request: Request, limit_cases: int | None = None) -> Any:
    if not app_instance().datastore().datalist():
        raise HTTPException(NOT_FOUND, "there are no images with a final label")
    with _received(request):
        return datastore.download_dataset(limit_cases)


@router.put("/session/", tags=["Session"], summary="Send an image once for several calls", dependencies=[AnyUser])
async def create_session(
    request: Request,
    background_tasks: BackgroundTasks,
    uncompress: bool = False,
    expiry: int = 0,
    *,
    files: Annotated[list[UploadFile], File()],
) -> Any:
    if uncompress and "uncompress" not in app_instance().access.allowed:
        raise HTTPException(403, "archives in sessions: closed; start the server with --allow uncompress to open it")
    for file in files:
        if not is_plain_name(file.filename or "") or not file.filename:
            raise HTTPException(UNPROCESSABLE, "a file needs a name without '/', '\\', '..' and control characters")
    with _received(request):
        return session.create_session(background_tasks, uncompress, expiry, files)


# Weights and logs.


@router.put("/model/{model}", tags=["Model"], summary="Replace the weights; closed by default", dependencies=[Admin])
async def replace_weights(request: Request, model: str, file: UploadFile) -> Any:
    app = app_instance()
    _check_known(model, app.infers, "model")
    with _received(request):
        sent = Path(tempfile.mkdtemp()) / "model.pt"
        sent.write_bytes(await file.read())
        app.infers[model].replace_weights(sent)
    return app.model_info(model)


@router.get("/logs/", tags=["Others"], summary="The end of the log", dependencies=[Admin])
async def get_log(lines: int = 300) -> Response:
    path = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    return logs.get_logs(str(path), max(1, lines), False, True, 0)
