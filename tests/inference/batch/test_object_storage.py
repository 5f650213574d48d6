"""A run from one bucket to another, against servers that speak the protocols of S3, Azure and Google Cloud Storage."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mobileutr_monai.__main__ import main

pytestmark = pytest.mark.slow

SECRET = "testing-secret"
START_SECONDS = 60


class Storage(NamedTuple):
    """A server on this machine.

    Attributes:
        files: its file system, of fsspec.
        secret: what must be in no message and no file.
    """

    scheme: str
    files: Any
    secret: str


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the server does not answer")


@pytest.fixture
def s3(monkeypatch) -> Iterator[Storage]:
    """moto."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield Storage("s3", s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False), SECRET)
    server.stop()


@pytest.fixture
def az(monkeypatch, tmp_path_factory) -> Iterator[Storage]:
    """Azurite, a package of npm, found on the path."""
    adlfs = pytest.importorskip("adlfs")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no azurite-blob (npm install azurite)")
    port, key = find_port(), base64.b64encode(SECRET.encode()).decode()
    command = [program, "--blobPort", str(port), "--location", str(tmp_path_factory.mktemp("azurite"))]
    command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    process = subprocess.Popen(command, env={**os.environ, "AZURITE_ACCOUNTS": f"account:{key}"})
    try:
        wait_for_port(port)
        connection = f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey={key};"
        connection += f"BlobEndpoint=http://127.0.0.1:{port}/account;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        files = adlfs.AzureBlobFileSystem(skip_instance_cache=True, use_listings_cache=False)
        yield Storage("az", files, key)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def gs(monkeypatch) -> Iterator[Storage]:
    """gcp-storage-emulator, which asks for no credentials."""
    gcsfs = pytest.importorskip("gcsfs")
    port = find_port()
    server = pytest.importorskip("gcp_storage_emulator.server").create_server("127.0.0.1", port, in_memory=True)
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    yield Storage("gs", gcsfs.GCSFileSystem(skip_instance_cache=True, use_listings_cache=False), SECRET)
    server.stop()


@pytest.fixture(params=["s3", "az", "gs"])
def storage(request) -> Storage:
    return request.getfixturevalue(request.param)


@pytest.fixture
def images(breast, tmp_path) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for number, sample in enumerate(sorted((breast / "sample_data" / "images").iterdir())[:4]):
        shutil.copyfile(sample, tmp_path / "in" / ("sub" if number % 2 else ".") / f"{number} #ü.jpg")
    return tmp_path / "in"


def test_a_bucket_gives_what_a_folder_gives(storage, breast, images, tmp_path, capsys, caplog):
    scheme, files, secret = storage
    files.mkdir("archive")
    files.mkdir("results")
    for path in images.rglob("*.jpg"):
        files.put_file(str(path), f"archive/us/{path.relative_to(images).as_posix()}")
    options = ["--no-overlays", "--workers", "0", "--set", "image_size=[32,32]"]
    assert main(["predict", str(breast), str(images), "--output", str(tmp_path / "plain"), *options]) == 0
    streamed = ["predict", str(breast), f"{scheme}://archive/us", "--output", f"{scheme}://results/us"]
    streamed += ["--work", str(tmp_path / "w"), *options]
    assert main(streamed) == 0
    expected = {
        path.relative_to(tmp_path / "plain").as_posix(): path.read_bytes()
        for path in (tmp_path / "plain").rglob("*_mask.png")
    }
    assert len(expected) == 4
    sent = [name for name in files.find("results/us") if name.endswith("_mask.png")]
    assert {name.removeprefix("results/us/"): files.cat_file(name) for name in sent} == expected
    assert files.exists("results/us/report.csv")
    assert files.exists("results/us/report.html")
    # The same command again segments nothing, or times in the report would differ; what changed in the bucket is done.
    report = files.cat_file("results/us/report.csv")
    assert main(streamed) == 0
    assert files.cat_file("results/us/report.csv") == report
    files.put_file(str(images / "0 #ü.jpg"), "archive/us/sub/1 #ü.jpg")
    assert main(streamed) == 0
    assert files.cat_file("results/us/sub/1 #ü_mask.png") == expected["0 #ü_mask.png"]
    # Credentials are in no message and no file of the run.
    texts = [path.read_text(errors="replace") for path in (tmp_path / "w").rglob("*") if path.is_file()]
    texts += [*capsys.readouterr(), caplog.text]
    assert not any(word in text for text in texts for word in ("testing-", secret))


def test_a_bucket_that_is_not_there_ends_with_one_line(storage, breast, tmp_path, capsys):
    place = f"{storage.scheme}://nowhere/p"
    assert main(["predict", str(breast), place, "--output", str(tmp_path / "out"), "--workers", "0"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"mobileutr: error: {place} cannot be listed: ")
    assert not (tmp_path / "out").exists()
