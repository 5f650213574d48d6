"""What a web page or a hostile client may try: each request is refused, and nothing outside of the studies changes."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from label_service import BREAST, Answer, LabelServer, ask, encode_form
from PIL import Image

JSON = "application/json"
MARK = "$__import__('pathlib').Path({!r}).touch()"


def send(server: LabelServer, method: str, path: str, body: Any = None, headers: dict | None = None) -> Answer:
    content = None if body is None else json.dumps(body).encode()
    return ask(f"{server.url}{path}", method, content, JSON if content else "", headers)


def upload(server: LabelServer, method: str, path: str, field: str, file: Path, params: Any = None) -> Answer:
    fields = {} if params is None else {"params": json.dumps(params)}
    return ask(f"{server.url}{path}", method, *encode_form(fields, {field: file}))


def test_only_this_machine_can_reach_it(four_bundles):
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    here = [line.split()[1].split(":") for line in listening]
    assert {address for address, port in here if int(port, 16) == four_bundles.port} == {"0100007F"}


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Host": "evil.example"}, 403, "--host-name"),
        ({"Host": "127.0.0.1.evil.example:8000"}, 403, "--host-name"),
        ({"Host": ""}, 403, "--host-name"),
        ({"Host": "[::1"}, 403, "--host-name"),
        ({"Host": "127.0.0.1@evil.example"}, 403, "--host-name"),
        ({"Origin": "https://evil.example"}, 403, "--origin"),
        ({"Origin": "null"}, 403, "--origin"),
        ({"Origin": "http://127.0.0.1:1"}, 403, "--origin"),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403, "other sites"),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200, ""),
        ({"Sec-Fetch-Site": "same-origin"}, 200, ""),
        ({"Host": "localhost"}, 200, ""),
        ({}, 200, ""),
    ],
)
def test_pages_of_other_sites_and_other_host_names_are_refused(four_bundles, headers, status, words):
    answer = send(four_bundles, "GET", "/info/", headers=headers)
    assert answer.status == status
    assert words in (answer.detail if status != 200 else "")


def test_its_own_pages_may_use_it(four_bundles):
    own = {"Origin": f"http://127.0.0.1:{four_bundles.port}"}
    assert send(four_bundles, "GET", "/info/", headers=own).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/datastore/image?image=../x"),
        ("PUT", "/datastore/image?image=/tmp/x"),
        ("PUT", "/datastore/label?image=rgb&tag=../../x"),
        ("PUT", "/datastore/label?image=rgb&tag=a%20b"),
        ("PUT", "/datastore/label?image=..%5Cx"),
        ("DELETE", "/datastore/label?id=../x&tag=final"),
        ("GET", "/datastore/label?label=rgb&tag=../../x"),
        ("GET", "/datastore/image?image=%2Fetc%2Fhostname"),
        ("GET", "/datastore/image/info?image=a%00b"),
        ("POST", f"/infer/{BREAST.name}?image=/etc/hostname&output=image"),
        ("POST", f"/infer/{BREAST.name}?session_id=../../studies&output=image"),
        ("GET", "/session/..%5Cx"),
        ("GET", "/proxy/dicom/..%2f..%2fsystem"),
        ("GET", "/ohif/../../app.py"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(four_bundles, tmp_path, method, path):
    file = tmp_path / "x.png"
    file.write_bytes(b"x")
    field = "file" if "image?" in path and method == "PUT" else "label"
    answer = upload(four_bundles, method, path, field, file) if method == "PUT" else send(four_bundles, method, path)
    assert answer.status == 422, answer.body
    assert not Path("/tmp/x.png").exists()


@pytest.mark.parametrize(
    ("method", "path", "option"),
    [
        ("PUT", "/datastore/image?image=x", "images"),
        ("PUT", "/datastore/?image=x", "images"),
        ("DELETE", "/datastore/image?id=rgb", "images"),
        ("DELETE", "/datastore/?id=rgb", "images"),
        ("PUT", f"/model/{BREAST.name}", "models"),
        ("DELETE", f"/model/{BREAST.name}", "models"),
        ("PUT", "/session/?uncompress=true", "uncompress"),
        ("GET", "/proxy/dicom/servers", "proxy"),
        ("GET", "/proxy/dicom/studies/%252e%252e/%252e%252e/system", "proxy"),
        ("GET", "/proxy/dicom/studies%3flimit=1", "proxy"),
        ("POST", "/proxy/dicom/studies", "proxy"),
    ],
)
def test_what_is_closed_says_which_option_opens_it(four_bundles, tmp_path, method, path, option):
    file = tmp_path / "x.png"
    file.write_bytes(b"x")
    field = "files" if "session" in path else "file"
    answer = upload(four_bundles, method, path, field, file) if method == "PUT" else send(four_bundles, method, path)
    assert answer.status == 403, answer.body
    assert f"--allow {option}" in answer.detail
    assert four_bundles.infer("rgb").status == 200


@pytest.mark.parametrize("path", ["/reload", f"/infer/wsi/{BREAST.name}", f"/infer/wsi_v2/{BREAST.name}", "/logs/gpu"])
def test_calls_that_nobody_needs_are_not_there(four_bundles, path):
    assert send(four_bundles, "POST", path).status in (404, 405)


TRAIN = f"/train/{BREAST.name}"
BATCH = f"/batch/infer/{BREAST.name}"


@pytest.mark.parametrize(
    ("path", "params", "words"),
    [
        *[(TRAIN, {name: "CODE"}, name) for name in ("max_epochs", "learning_rate", "val_split", "device", "run_id")],
        *[(TRAIN, {name: "x"}, "no such parameter") for name in ("tracking", "model_filename", "gpus", "tracking_uri")],
        *[(TRAIN, {"max_epochs": value}, "max_epochs") for value in (0, -1, "many", 10**6, None, 1.5, True)],
        *[(TRAIN, {"batch_size": value}, "batch_size") for value in (0, -4, 10**6)],
        *[(TRAIN, {"val_split": value}, "val_split") for value in (0, 1, -1, "half")],
        *[(TRAIN, {"learning_rate": value}, "learning_rate") for value in (0, True)],
        (TRAIN, [1], ""),
        (BATCH, {"device": "CODE"}, "device"),
        *[(BATCH, {"max_workers": value}, "max_workers") for value in (-1, True)],
        (BATCH, {"label_tag": "../x"}, "label_tag"),
        (BATCH, {"result_dtype": "float64"}, "no such parameter"),
        ("/activelearning/first", {"strategy": "CODE"}, "no such parameter"),
    ],
)
def test_no_text_of_a_job_is_run_and_no_value_out_of_range_is_taken(four_bundles, tmp_path, path, params, words):
    mark = tmp_path / "was_here"
    sent = json.loads(json.dumps(params).replace('"CODE"', json.dumps(MARK.format(str(mark)))))
    answer = send(four_bundles, "POST", path, sent)
    assert answer.status == 422, answer.body
    assert words in answer.detail and "\n" not in answer.detail
    assert not mark.exists()
    assert four_bundles.ask("/train/").status == 404  # no job was made


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"device": "CODE"}, "device"),
        ({"device": "tpu"}, "devices of this server are"),
        ({"result_dtype": "float64"}, "result_dtype"),
        ({"result_extension": ".exe"}, "result_extension"),
        ({"model_filename": "../../x.pt"}, "no such parameter"),
        ({"image": "/etc/hostname"}, "no such parameter"),
        ({"image_path": "/etc/hostname"}, "no such parameter"),
        ({"label_tag": "../../x", "save_label": True}, "label_tag"),
        ([1], ""),
    ],
)
def test_no_text_of_an_inference_is_run(four_bundles, tmp_path, params, words):
    mark = tmp_path / "was_here"
    text = json.dumps(params).replace('"CODE"', json.dumps(MARK.format(str(mark))))
    form = encode_form({"params": text}, {})
    answer = ask(f"{four_bundles.url}/infer/{BREAST.name}?image=rgb&output=image", "POST", *form)
    assert answer.status == 422, answer.body
    assert words in answer.detail
    assert not mark.exists()


@pytest.mark.parametrize(
    "path", ["/train/other", "/batch/infer/other", "/scoring/dice", "/activelearning/best", "/infer/other?image=rgb"]
)
def test_what_the_server_does_not_have_is_not_found_at_once(four_bundles, path):
    assert send(four_bundles, "POST", path, None if "infer/o" in path[:8] else {}).status == 404


def test_a_page_of_calls_needs_no_other_server(four_bundles):
    page = four_bundles.ask("/").body.decode()
    assert "https://" not in page.replace("http://www.w3.org", "")
    for file in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/static/swagger/{file}" in page
        assert four_bundles.ask(f"/static/swagger/{file}").status == 200
    paths = four_bundles.ask("/openapi.json").json["paths"]
    assert "/infer/{model}" in paths and "/train/{model}" in paths


def test_large_bodies_are_refused_stated_or_not(breast_server, tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(bytes(9 * 2**20))
    answer = breast_server.infer(file=file)
    assert answer.status == 413
    assert "--max-upload" in answer.detail
    assert send(breast_server, "POST", TRAIN, {"client_id": "x" * 2 * 2**20}).status == 413
    with socket.create_connection(("127.0.0.1", breast_server.port), 30) as connection:
        head = f"POST {TRAIN} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(20):
                connection.sendall(b"20000\r\n" + b" " * 0x20000 + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # it has answered and closed
        assert b" 413 " in connection.recv(200)


def test_files_of_the_temporary_folder_are_not_read_and_not_deleted(breast_server, studies):
    temporary = breast_server.workspace / "tmp"
    kept = temporary / "kept.jpg"
    kept.write_bytes(sorted(studies.glob("benign*.jpg"))[0].read_bytes())
    for image in (str(kept), "kept", "kept.jpg"):
        assert breast_server.infer(image).status in (404, 422)
    assert kept.is_file()
    kept.unlink()


def left_behind(server: LabelServer) -> list[Path]:
    time.sleep(0.3)  # it is removed after the answer
    return [path for path in (server.workspace / "tmp").rglob("*") if path.is_file() and path.suffix != ".json"]


@pytest.mark.parametrize(
    "call",
    [
        lambda server, file: server.infer(file=file),
        lambda server, file: server.infer(file=file.with_name("cut.jpg")),
        lambda server, file: server.infer(file=file, result_dtype="x"),
        lambda server, file: server.save_label(file.stem, file),
        lambda server, file: server.save_label("absent", file),
        lambda server, file: server.ask("/datastore/dataset"),
        lambda server, file: upload(server, "PUT", f"/model/{BREAST.name}", "file", file),
        lambda server, file: upload(server, "PUT", "/datastore/image?image=new", "file", file.with_name("text.png")),
    ],
)
def test_nothing_that_was_sent_is_left_whatever_the_answer(breast_server, studies, call: Callable):
    call(breast_server, sorted(studies.glob("benign*.jpg"))[0])
    assert left_behind(breast_server) == []


def test_images_and_logs_are_for_their_owner_alone(breast_server):
    for path in (breast_server.workspace, *breast_server.workspace.rglob("*")):
        if not path.is_symlink() and path.exists() and "model" not in path.relative_to(breast_server.workspace).parts:
            assert path.stat().st_mode & 0o077 == 0, path


def test_labels_may_be_read_by_whoever_may_read_the_images(breast_server, studies, tmp_path):
    image = sorted(studies.glob("benign*.jpg"))[0]
    image.chmod(0o644)
    label = tmp_path / "label.png"
    with Image.open(image) as picture:
        Image.new("L", picture.size).save(label)
    assert breast_server.save_label(image.stem, label).status == 200
    saved = studies / "labels" / "final" / f"{image.stem}.png"
    assert saved.stat().st_mode & 0o777 == 0o644
    assert saved.parent.stat().st_mode & 0o777 == studies.stat().st_mode & 0o777
    query = urlencode({"id": image.stem, "tag": "final"})
    assert send(breast_server, "DELETE", f"/datastore/label?{query}").status == 200


def test_an_archive_stays_in_its_folder(breast_server, tmp_path):
    archive, outside = tmp_path / "images.tar", tmp_path / "outside.txt"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo(f"../../../../../../../..{outside}")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    answer = upload(breast_server, "PUT", "/session/?uncompress=true", "files", archive)
    assert answer.status == 422, answer.body
    assert not outside.exists()


def test_an_image_that_is_put_is_an_image(breast_server, studies, tmp_path):
    sample, program = sorted(studies.glob("benign*.jpg"))[0], tmp_path / "x.exe"
    program.write_bytes(b"x")

    def put(file: Path) -> int:
        return upload(breast_server, "PUT", "/datastore/image?image=new%20image", "file", file).status

    assert [put(studies / "text.png"), put(program), put(sample), put(sample)] == [422, 422, 200, 409]
    assert breast_server.infer("new image").status == 200
    assert send(breast_server, "DELETE", "/datastore/image?id=new%20image").status == 200


def test_weights_that_do_not_fit_are_refused(breast_server, tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"not weights")
    before = breast_server.weights.read_bytes()
    answer = upload(breast_server, "PUT", f"/model/{BREAST.name}", "file", file)
    assert answer.status == 422
    assert "/" not in answer.detail
    assert breast_server.weights.read_bytes() == before
    assert upload(breast_server, "PUT", f"/model/{BREAST.name}", "file", breast_server.weights).status == 200
