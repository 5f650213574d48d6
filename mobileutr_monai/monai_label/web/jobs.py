"""The jobs of the server, which are processes of their own: what is told of them, and their end."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from monailabel.utils.async_tasks.utils import background_processes, background_tasks, stop_background_task

__all__ = ["hide_paths", "stop_jobs"]

# A folder of this machine, up to the name of the file in it.
_FOLDER = re.compile(r"(?<![\w:/.])/(?:[^\s/'\":,;()]+/)+")
_PREFIX = re.compile(r"^\[[^]]*\] \[\d+\] \[\w+\] \[(\w+)\] \([^)]*\) - ")
_TRACE = ("Traceback (most recent call last)", "  ", "During handling of", "The above exception")
_INTERNAL = ("bundle_path", "gpus")


def hide_paths(answer: Any) -> Any:
    """Returns an answer about jobs without paths of this machine and without Python's tracebacks."""
    if isinstance(answer, dict):
        return {key: hide_paths(value) for key, value in answer.items() if key not in _INTERNAL}
    if isinstance(answer, list | tuple | deque):
        lines = [item for item in answer if not (isinstance(item, str) and _is_trace(item))]
        return [hide_paths(item) for item in lines]
    return _FOLDER.sub("", answer) if isinstance(answer, str) else answer


def _is_trace(line: str) -> bool:
    return line.startswith(_TRACE) or not line.strip()


def stop_jobs() -> None:
    """Ends training, scoring and batch inference, which would outlive the server; those that wait are never begun."""
    for method in background_processes:
        for task in background_tasks.get(method, []):
            task["status"] = "STOPPED" if task["status"] == "SUBMITTED" else task["status"]
        while background_processes.get(method):
            stop_background_task(method)
