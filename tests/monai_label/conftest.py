"""Orthanc, a real PACS on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from label_service import ORTHANC_PLUGINS, START_SECONDS, Orthanc, ask, free_port, skip_without


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin")
    skip_without(program is not None and ORTHANC_PLUGINS.is_dir(), "Orthanc (apt-get install orthanc orthanc-dicomweb)")
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    database = str(folder / "db")
    configuration = {
        "Name": "tests",
        "StorageDirectory": database,
        "IndexDirectory": database,
        "Plugins": [str(ORTHANC_PLUGINS)],
        "RemoteAccessAllowed": False,
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
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
                if ask(f"{server.dicom_web}/studies").status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(30)
