"""A real Orthanc with DICOMweb on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ORTHANC_PLUGINS = Path("/usr/share/orthanc/plugins")
START_SECONDS = 120


def skip_without(present: bool, what: str) -> None:
    """Skips where something is not installed; continuous integration has it, so there it is a failure."""
    if not present:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not installed")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        return str(self.json["detail"])


def ask(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    every = {**({"Content-Type": content_type} if content_type else {}), **(headers or {})}
    request = urllib.request.Request(url, data=body, method=method, headers=every)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A running Orthanc with DICOMweb."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.dicom_web = f"{self.url}/dicom-web"

    def store(self, path: Path) -> None:
        answer = ask(f"{self.url}/instances", "POST", path.read_bytes(), "application/dicom")
        assert answer.status == 200, answer.body


@contextmanager
def run_orthanc(folder: Path, users: Mapping[str, str] | None = None) -> Iterator[Orthanc]:
    """Runs a server whose files lie in a folder.

    Args:
        users: name -> password; without them everybody is let in.
    """
    program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin")
    skip_without(program is not None and ORTHANC_PLUGINS.is_dir(), "Orthanc (apt-get install orthanc orthanc-dicomweb)")
    port = free_port()
    database = str(folder / "db")
    configuration = {
        "Name": "tests",
        "StorageDirectory": database,
        "IndexDirectory": database,
        "Plugins": [str(ORTHANC_PLUGINS)],
        "RemoteAccessAllowed": False,
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": bool(users),
        "RegisteredUsers": dict(users or {}),
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("w") as file:
        process = subprocess.Popen([str(program), str(folder / "orthanc.json")], stdout=file, stderr=file, cwd=folder)
    server = Orthanc(port)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < end, (folder / "orthanc.log").read_text()[-2000:]
            try:
                if ask(f"{server.dicom_web}/studies").status in (200, 401):
                    break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(30)
