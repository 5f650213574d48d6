"""A run from one bucket to another, against a server that speaks S3 (moto)."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

import s3fs  # noqa: E402

from mobileutr_monai.__main__ import main  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def storage(monkeypatch):
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    server.stop()


def test_a_bucket_gives_what_a_folder_gives(storage, breast, tmp_path, capsys, caplog):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for number, sample in enumerate(sorted((breast / "sample_data" / "images").iterdir())[:4]):
        shutil.copyfile(sample, tmp_path / "in" / ("sub" if number % 2 else ".") / f"{number} #ü.jpg")
    storage.mkdir("archive")
    storage.mkdir("results")
    storage.put(f"{tmp_path}/in/", "archive/us/", recursive=True)
    options = ["--no-overlays", "--workers", "0", "--set", "image_size=[32,32]"]
    assert main(["predict", str(breast), str(tmp_path / "in"), "--output", str(tmp_path / "plain"), *options]) == 0
    streamed = ["predict", str(breast), "s3://archive/us", "--output", "s3://results/us", "--work", str(tmp_path / "w")]
    assert main([*streamed, *options]) == 0
    expected = {
        path.relative_to(tmp_path / "plain").as_posix(): path.read_bytes()
        for path in (tmp_path / "plain").rglob("*_mask.png")
    }
    assert len(expected) == 4
    sent = [name for name in storage.find("results/us") if name.endswith("_mask.png")]
    assert {name.removeprefix("results/us/"): storage.cat_file(name) for name in sent} == expected
    assert storage.exists("results/us/report.csv")
    assert storage.exists("results/us/report.html")
    # The same command again has nothing to do; credentials are in no message and no file of the run.
    assert main([*streamed, *options]) == 0
    texts = [path.read_text(errors="replace") for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert not any("testing-" in text for text in (*texts, *capsys.readouterr(), caplog.text))


def test_a_bucket_that_is_not_there_ends_with_one_line(storage, breast, tmp_path, capsys):
    command = ["predict", str(breast), "s3://nowhere/p", "--output", str(tmp_path / "out"), "--workers", "0"]
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("mobileutr: error: s3://nowhere/p cannot be listed: ")
    assert not (tmp_path / "out").exists()
