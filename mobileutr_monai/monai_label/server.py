"""MONAI Label's web application, with an end to its jobs and answers to what cannot be used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import JSONDecodeError

from fastapi import FastAPI, HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse, Response
from monailabel.app import app
from monailabel.interfaces.exception import MONAILabelException
from monailabel.utils.async_tasks.utils import background_processes, background_tasks, stop_background_task

from mobileutr_monai.readers.dicom.errors import DicomError

__all__ = ["app"]

# What MONAI Label answers with 500, though the call is at fault; how its words begin.
_FAULTS_OF_CALLS = ("Neither Image nor File", "DICOM SEG format is not supported")

_start_and_stop = app.router.lifespan_context


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    async with _start_and_stop(application):
        yield
    stop_jobs()


def stop_jobs() -> None:
    """Ends training and batch inference, which would outlive the server; those that wait are never begun."""
    for method in background_processes:
        for task in background_tasks.get(method, []):
            task["status"] = "STOPPED" if task["status"] == "SUBMITTED" else task["status"]
        while background_processes.get(method):
            stop_background_task(method)


app.router.lifespan_context = _lifespan


@app.exception_handler(JSONDecodeError)
async def _answer_bad_json(_: Request, error: JSONDecodeError) -> JSONResponse:
    return JSONResponse({"detail": f"params is not JSON: {error}"}, status_code=400)


@app.exception_handler(MONAILabelException)
async def _answer_refusal(_: Request, error: MONAILabelException) -> JSONResponse:
    """What MONAI Label refuses is about what was asked for: models, images, labels that are not there."""
    return JSONResponse({"detail": error.msg}, status_code=404)


@app.exception_handler(HTTPException)
async def _answer_fault(request: Request, error: HTTPException) -> Response:
    if str(error.detail).startswith(_FAULTS_OF_CALLS):
        error.status_code = 400
    return await http_exception_handler(request, error)


@app.exception_handler(DicomError)
async def _answer_dicom(_: Request, error: DicomError) -> JSONResponse:
    return JSONResponse({"detail": ": ".join(filter(None, (error.reason.value, error.detail)))}, status_code=422)
