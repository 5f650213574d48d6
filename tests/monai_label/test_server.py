"""The command: what it refuses, what it leaves alone, and that nothing outlives it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from label_service import BREAST, SCRIPT, Answer, ask, free_port, serve
from label_studies import read_truth
from PIL import Image

from mobileutr_monai.monai_label.__main__ import main

MIB = 2**20


def copy_bundle(target: Path) -> Path:
    shutil.copytree(BREAST, target, ignore=shutil.ignore_patterns("results", "docs", "eval"))
    return target


def spoil_weights(folder: Path) -> Path:
    weights = folder / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    state.pop("head.weight")
    torch.save(state, weights)
    return folder


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("nothing", "are required"),
        ("no bundle", "is no bundle"),
        ("no weights", "no weights at"),
        ("other weights", "does not fit the network"),
        ("lost weights", "--restore"),
        ("twice", "same name"),
        ("no folder", "no folder"),
        ("no PACS", "does not answer as a DICOMweb server"),
        ("no port", "no folder http"),
        ("used port", "cannot be used"),
        ("unknown allowance", "invalid choice"),
        ("no origin", "is no http(s)://HOST[:PORT]"),
        ("any origin", "is no http(s)://HOST[:PORT]"),
        ("no size", "at least 1 MiB"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(case, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: 0)  # of this process, which other tests write in
    studies = tmp_path / "studies"
    studies.mkdir()
    arguments: list[object] = [BREAST, studies, free_port()]
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        match case:
            case "nothing":
                arguments = []
            case "no bundle":
                arguments[0] = studies
            case "no weights":
                arguments[0] = copy_bundle(tmp_path / "bundle")
                (tmp_path / "bundle" / "models" / "model.pt").unlink()
            case "other weights":
                arguments[0] = spoil_weights(copy_bundle(tmp_path / "bundle"))
            case "lost weights":
                (tmp_path / "work" / BREAST.name / "model" / BREAST.name / "models" / "previous").mkdir(parents=True)
            case "twice":
                arguments.insert(1, BREAST)
            case "no folder":
                arguments[1] = tmp_path / "absent"
            case "no PACS":
                arguments[1] = f"http://127.0.0.1:{free_port()}/dicom-web"
            case "no port":
                arguments[2] = "http"
            case "used port":
                arguments[2] = used.getsockname()[1]
            case "unknown allowance":
                arguments += ["--allow", "everything"]
            case "no origin":
                arguments += ["--origin", "example.org"]
            case "any origin":
                monkeypatch.setenv("MONAI_LABEL_CORS_ORIGINS", '["*"]')
            case "no size":
                arguments += ["--max-upload", "0"]
        try:
            code = main([*map(str, arguments), *(["--work", str(tmp_path / "work")] if arguments else [])])
        except SystemExit as error:
            code = error.code
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("monai_label: error: ")
    assert words in line


def test_the_script_says_what_is_missing():
    done = subprocess.run(["bash", str(SCRIPT), "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "BUNDLE and STUDIES are needed" in done.stderr


def test_a_second_server_in_the_same_folder_is_refused(breast_server, studies, capsys, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    work = str(breast_server.workspace.parent)
    assert main([str(BREAST), str(studies), str(free_port()), "--work", work]) == 2
    assert "another server works in" in capsys.readouterr().err


def good_images(studies: Path) -> list[str]:
    return [path.stem for path in sorted(studies.glob("*.jpg")) if path.stem != "cut"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("cut", "truncated"),
        ("empty", "empty"),
        ("text", "not the image that its name says"),
        ("noise", "not the image that its name says"),
        ("volume", "2D"),
    ],
)
def test_a_broken_image_is_answered_with_what_is_wrong(breast_server, image, words):
    answer = breast_server.infer(image)
    assert answer.status == 422
    assert words in answer.detail
    assert "/" not in answer.detail  # no path of the server


def test_bad_requests_are_answered(breast_server, studies):
    assert breast_server.infer("no such image").status == 404
    nothing = breast_server.infer()
    assert nothing.status == 400
    assert "Neither Image nor File" in nothing.detail
    assert breast_server.infer("cut", output="dicom_seg").status == 422
    assert breast_server.infer(good_images(studies)[0], output="dicom_seg", label_info=[]).status == 400
    no_model = f"{breast_server.url}/infer/other?image=cut&output=image"
    assert ask(no_model, "POST", b"", "application/x-www-form-urlencoded").status == 404
    not_json = f"{breast_server.url}/infer/{breast_server.model}?image=cut&output=image"
    assert ask(not_json, "POST", b"params=%7Bx", "application/x-www-form-urlencoded").status == 400


def test_fifty_calls_at_once_get_the_answers_of_one_after_the_other(breast_server, studies):
    good = good_images(studies)
    broken = ["cut", "empty", "text", "noise", "volume", "absent", "", "label"]

    def call(name: str) -> Answer:
        return breast_server.save_label(good[0], studies / "text.png") if name == "label" else breast_server.infer(name)

    expected = {name: call(name) for name in (*good, *broken)}
    assert {expected[name].status for name in good} == {200}
    assert [expected[name].status for name in broken] == [422] * 5 + [404, 400, 422]
    names = [(*good, *broken)[index % (len(good) + len(broken))] for index in range(50)]
    memory = []
    for _ in range(3):
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(call, names))
        assert all(answer == expected[name] for name, answer in zip(names, answers, strict=True))
        memory.append(breast_server.memory())
    # The first round makes the allocators' caches; images are small, so a leak of one call would be far more.
    assert memory[-1] - memory[0] < 64 * MIB, [value // MIB for value in memory]
    assert breast_server.ask("/info/").status == 200


WITHOUT_NETWORK = """
import socket, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, str(Path({tests!r}).parent)]
from label_service import ask, serve
try:
    socket.create_connection(("192.0.2.1", 80), 5)
except OSError as error:
    assert "unreachable" in str(error), error
options = dict(MONAI_LABEL_CORS_ORIGINS='["http://a.example"]')
with serve(Path({bundle!r}), Path({studies!r}), Path({work!r}), "--no-training", **options) as server:
    answer = server.infer({image!r})
    assert server.post("/train/" + server.model).status == 404
    for origin, status in (("http://a.example", 200), ("http://b.example", 403)):
        assert ask(server.url + "/info/", headers={{"Origin": origin}}).status == status
assert answer.status == 200, answer.body
Path({output!r}).write_bytes(answer.body)
"""


def test_it_starts_and_infers_without_a_network(breast_server, studies, tmp_path):
    """With an origin of the environment, at which MONAI Label itself fails."""
    namespace = ["unshare", "--map-root-user", "--net", "sh", "-c"]
    permitted = subprocess.run([*namespace, "ip link set lo up"], capture_output=True, text=True, check=False)
    if permitted.returncode:
        pytest.skip(f"no network namespace is permitted here: {permitted.stderr.strip()}")
    image, output = good_images(studies)[0], tmp_path / "mask.png"
    values = {"tests": Path(__file__).parent, "bundle": BREAST, "studies": studies, "work": tmp_path, "output": output}
    code = WITHOUT_NETWORK.format(image=image, **{name: str(path) for name, path in values.items()})
    command = [*namespace, 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert output.read_bytes() == breast_server.infer(image).body


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that have the folder in their environment or arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in text:
                found.append(text[:200].decode(errors="replace"))
    return found


def test_a_stop_leaves_no_process_also_while_it_trains(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    images = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name][:2]
    for image in images:
        shutil.copy(image, folder)
        Image.fromarray(read_truth(image)).save(tmp_path / f"{image.stem}.png")
    with serve(BREAST, folder, tmp_path / "work") as running:
        for image in images:
            assert running.save_label(image.stem, tmp_path / f"{image.stem}.png").status == 200
        running.post(f"/train/{BREAST.name}", max_epochs=500)
        while running.ask("/train/").json["status"] != "RUNNING":
            time.sleep(0.1)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        time.sleep(0.5)
        assert not processes_of(tmp_path / "work")
