"""The web application: MONAI Label's calls behind a guard, with checked parameters."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import JSONDecodeError
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from monailabel.config import settings
from monailabel.endpoints import datastore, info, login, model, ohif, proxy, session
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from swagger_ui_bundle import swagger_ui_path

from mobileutr_monai.monai_label.web.guard import Access, Guard
from mobileutr_monai.monai_label.web.jobs import stop_jobs
from mobileutr_monai.monai_label.web.parameters import describe_problems
from mobileutr_monai.monai_label.web.routes import router
from mobileutr_monai.readers.dicom.errors import DicomError

__all__ = ["app"]

# What MONAI Label answers with 500, though the call is at fault; how its words begin.
_FAULTS_OF_CALLS = ("Neither Image nor File", "DICOM SEG format is not supported")

# MONAI Label's own calls that take no more than names. All others are ours, or are not offered.
_KEPT = (
    (info.router, {("GET", "/info/")}),
    (model.router, {("GET", "/model/{model}"), ("GET", "/model/info/{model}"), ("DELETE", "/model/{model}")}),
    (
        datastore.router,
        {
            ("GET", "/datastore/"),
            ("DELETE", "/datastore/"),
            ("DELETE", "/datastore/image"),
            ("HEAD", "/datastore/image"),
            ("GET", "/datastore/image"),
            ("GET", "/datastore/image/info"),
            ("PUT", "/datastore/image/info"),
            ("DELETE", "/datastore/label"),
            ("HEAD", "/datastore/label"),
            ("GET", "/datastore/label"),
            ("GET", "/datastore/label/info"),
            ("PUT", "/datastore/label/info"),
            ("PUT", "/datastore/updatelabelinfo"),
        },
    ),
    (session.router, {("GET", "/session/{session_id}"), ("DELETE", "/session/{session_id}")}),
    (ohif.router, {("GET", "/ohif/{path:path}")}),
    (
        proxy.router,
        {
            (method, f"/proxy/dicom/{part}{{path:path}}")
            for method in ("GET", "POST")
            for part in ("", "wado/", "qido/", "stow/")
        },
    ),
    (login.router, {("GET", "/auth/"), ("POST", "/auth/token"), ("GET", "/auth/token/valid")}),
)


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    instance = app_instance()
    instance.server_mode(True)
    instance.on_init_complete()
    yield
    stop_jobs()


def _make_app() -> FastAPI:
    access = Access.from_conf(settings.MONAI_LABEL_APP_CONF)
    # Answers to pages of these origins alone may be read by them; Guard refuses the calls of others.
    pages = {"allow_origins": sorted(access.origins), "allow_methods": ["*"], "allow_headers": ["*"]}
    made = FastAPI(
        title="MONAI Label",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=[Middleware(Guard, access=access), Middleware(CORSMiddleware, **pages)],
    )
    made.openapi_version = "3.0.3"  # the newest that the page of swagger_ui_bundle shows
    made.include_router(router)
    for theirs, kept in _KEPT:
        if theirs is login.router and not settings.MONAI_LABEL_AUTH_ENABLE:
            continue
        chosen = APIRouter()
        chosen.routes = [route for route in theirs.routes if kept & {(method, route.path) for method in route.methods}]
        made.include_router(chosen)
    made.mount("/static/swagger", StaticFiles(directory=swagger_ui_path), name="swagger")
    made.mount("/static", StaticFiles(directory=Path(ohif.__file__).parent / "static"), name="static")
    return made


# Archives of sessions, where they are allowed, stay in their folder.
tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
app = _make_app()


@app.get("/", include_in_schema=False)
async def show_calls() -> HTMLResponse:
    """Shows the list of calls, with files of this server alone."""
    files = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css", "favicon": "favicon-32x32.png"}
    places = {f"swagger_{kind}_url": f"/static/swagger/{file}" for kind, file in files.items()}
    return get_swagger_ui_html(openapi_url="/openapi.json", title="MONAI Label", **places)


@app.get("/docs", include_in_schema=False)
async def go_to_calls() -> RedirectResponse:
    """Leads to the list of calls."""
    return RedirectResponse("/")


@app.get("/favicon.ico", include_in_schema=False)
async def show_icon() -> RedirectResponse:
    """Leads to MONAI Label's icon."""
    return RedirectResponse("/static/favicon.ico")


@app.exception_handler(JSONDecodeError)
async def _answer_bad_json(_: Request, error: JSONDecodeError) -> JSONResponse:
    return JSONResponse({"detail": f"params is not JSON: {error}"}, status_code=400)


@app.exception_handler(RequestValidationError)
async def _answer_bad_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"detail": describe_problems(error.errors())}, status_code=422)


@app.exception_handler(MONAILabelException)
async def _answer_refusal(_: Request, error: MONAILabelException) -> JSONResponse:
    """What MONAI Label refuses is about what was asked for: models, images, labels that are not there."""
    return JSONResponse({"detail": error.msg}, status_code=404)


@app.exception_handler(tarfile.TarError)
async def _answer_bad_archive(_: Request, error: tarfile.TarError) -> JSONResponse:
    return JSONResponse({"detail": f"the archive cannot be unpacked ({type(error).__name__})"}, status_code=422)


@app.exception_handler(HTTPException)
async def _answer_fault(request: Request, error: HTTPException) -> Response:
    if str(error.detail).startswith(_FAULTS_OF_CALLS):
        error.status_code = 400
    return await http_exception_handler(request, error)


@app.exception_handler(DicomError)
async def _answer_dicom(_: Request, error: DicomError) -> JSONResponse:
    return JSONResponse({"detail": ": ".join(filter(None, (error.reason.value, error.detail)))}, status_code=422)
