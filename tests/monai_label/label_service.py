"""Real servers on loopback: MONAI Label as ``scripts/monai_label.sh`` starts it, and Orthanc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from orthanc_server import START_SECONDS, Answer, ask, free_port, skip_without
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
HIPPOCAMPUS = ROOT / "bundles" / "hippocampus_mri_segmentation"
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/bundle.yaml"))
SCRIPT = ROOT / "scripts" / "monai_label.sh"


def skip_without_label() -> None:
    skip_without((ROOT / ".venv-label" / "installed").is_file(), "MONAI Label (bash scripts/monai_label.sh --install)")


def encode_form(fields: dict[str, str], files: dict[str, Path]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, path in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'
        parts.append(head.encode() + path.read_bytes() + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


class LabelServer:
    """A running MONAI Label.

    Attributes:
        model: the first of its bundles, which is asked where no other is named.
        workspace: the app's folder.
    """

    def __init__(self, process: subprocess.Popen, port: int, model: str, workspace: Path, log: Path) -> None:
        self.process, self.model, self.workspace, self.log = process, model, workspace, log
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def weights(self) -> Path:
        return self.workspace / "model" / self.model / "models" / "model.pt"

    def ask(self, path: str, **query: str) -> Answer:
        return ask(f"{self.url}{path}?{urllib.parse.urlencode(query)}")

    def post(self, path: str, **params: Any) -> Answer:
        return ask(f"{self.url}{path}", "POST", json.dumps(params).encode(), "application/json")

    def infer(
        self, image: str = "", output: str = "image", file: Path | None = None, model: str = "", **params: Any
    ) -> Answer:
        query = urllib.parse.urlencode({"image": image, "output": output})
        form, content_type = encode_form({"params": json.dumps(params)}, {} if file is None else {"file": file})
        return ask(f"{self.url}/infer/{model or self.model}?{query}", "POST", form, content_type)

    def save_label(self, image: str, label: Path, **params: Any) -> Answer:
        query = urllib.parse.urlencode({"image": image, "tag": "final"})
        form, content_type = encode_form({"params": json.dumps(params)}, {"label": label})
        return ask(f"{self.url}/datastore/label?{query}", "PUT", form, content_type)

    def train(self, model: str = "", **params: Any) -> dict[str, Any]:
        """Trains in a job; returns it when it has ended."""
        answer = self.post(f"/train/{model or self.model}", **params)
        assert answer.status == 200, answer.body
        return self.wait_for("/train/")

    def wait_for(self, job: str) -> dict[str, Any]:
        """Returns the last job of a kind when it has ended."""
        while True:
            found: dict[str, Any] = self.ask(job).json
            if found["status"] not in ("SUBMITTED", "RUNNING"):
                return found
            time.sleep(0.2)

    def memory(self) -> int:
        """Bytes that the server holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@contextmanager
def serve(
    bundle: Path | Sequence[Path], studies: Path | str, work: Path, *options: str, **variables: str
) -> Iterator[LabelServer]:
    """Runs the server as a user starts it."""
    skip_without_label()
    bundles = [bundle] if isinstance(bundle, Path) else list(bundle)
    port = free_port()
    command = ["bash", str(SCRIPT), *map(str, bundles), str(studies), str(port), "--work", str(work), *options]
    workspace = work / "+".join(path.name for path in bundles)
    with run_server(command, port, bundles[0].name, work, workspace, **variables) as server:
        yield server


@contextmanager
def run_server(
    command: list[str], port: int, model: str, log_folder: Path, workspace: Path, **variables: str
) -> Iterator[LabelServer]:
    log_folder.mkdir(parents=True, exist_ok=True)
    log = log_folder / "server.log"
    with log.open("w") as file:
        temporary = log_folder / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(temporary), **variables}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    server = LabelServer(process, port, model, workspace, log)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            try:
                if server.ask("/info/").status == 200:
                    break
            except OSError:
                time.sleep(0.2)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def read_picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))
