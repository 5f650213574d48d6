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

import nibabel as nib
import numpy as np
import pytest
import torch
from label_service import ROOT, SCRIPT, Answer, ask, free_port, serve, skip_without_label
from PIL import Image

BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
MIB = 2**20


def run(*arguments: object) -> subprocess.CompletedProcess:
    skip_without_label()
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


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
        ("nothing", "BUNDLE and STUDIES are needed"),
        ("no bundle", "is no bundle"),
        ("no weights", "no weights at"),
        ("other weights", "does not fit the network"),
        ("no folder", "no folder"),
        ("no PACS", "does not answer as a DICOMweb server"),
        ("no port", "invalid int value"),
        ("used port", "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(case, words, tmp_path):
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
            case "no folder":
                arguments[1] = tmp_path / "absent"
            case "no PACS":
                arguments[1] = f"http://127.0.0.1:{free_port()}/dicom-web"
            case "no port":
                arguments[2] = "http"
            case "used port":
                arguments[2] = used.getsockname()[1]
        done = run(*arguments, *(["--work", tmp_path / "work"] if arguments else []))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("monai_label: error: ")
    assert words in line


def test_a_second_server_in_the_same_folder_is_refused(studies, tmp_path):
    with serve(BREAST, studies, tmp_path / "work"):
        done = run(BREAST, studies, free_port(), "--work", tmp_path / "work")
    assert done.returncode == 2
    assert "another server works in" in done.stderr


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for image in sorted((BREAST / "sample_data" / "images").iterdir()):
        shutil.copy(image, folder)
    sample = sorted(folder.glob("*.jpg"))[0]
    (folder / "cut.jpg").write_bytes(sample.read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "noise.nii.gz").write_text("not a volume")
    nib.save(nib.nifti1.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), folder / "volume.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory):
    with serve(BREAST, studies, tmp_path_factory.mktemp("work")) as running:
        yield running


def good_images(studies: Path) -> list[str]:
    return [path.stem for path in sorted(studies.glob("*.jpg")) if path.stem != "cut"]


def test_only_this_machine_can_reach_it(server):
    port = int(server.url.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    addresses = {line.split()[1].split(":")[0] for line in listening if int(line.split()[1].split(":")[1], 16) == port}
    assert addresses == {"0100007F"}


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
def test_a_broken_image_is_answered_with_what_is_wrong(server, image, words):
    answer = server.infer(image)
    assert answer.status == 422
    assert words in answer.detail
    assert "/" not in answer.detail  # no path of the server


def test_nothing_that_was_sent_is_left(server, studies):
    assert server.infer(file=studies / "cut.jpg").status == 422
    assert server.infer(file=sorted(studies.glob("benign*.jpg"))[0]).status == 200
    time.sleep(0.5)  # it is removed after the answer
    temporary = server.workspace.parent / "tmp"
    # The configuration of MONAI Label's log is there from its start.
    assert [path for path in temporary.rglob("*") if path.is_file() and path.suffix != ".json"] == []


def test_bad_requests_are_answered(server, studies):
    assert server.infer("no such image").status == 404
    nothing = server.infer()
    assert nothing.status == 400
    assert "Neither Image nor File" in nothing.detail
    assert server.infer("cut", output="dicom_seg").status == 422
    assert server.infer(good_images(studies)[0], output="dicom_seg", label_info=[]).status == 400
    no_model = f"{server.url}/infer/other?image=cut&output=image"
    assert ask(no_model, "POST", b"", "application/x-www-form-urlencoded").status == 404
    not_json = f"{server.url}/infer/{server.model}?image=cut&output=image"
    assert ask(not_json, "POST", b"params=%7Bx", "application/x-www-form-urlencoded").status == 400


def test_fifty_calls_at_once_get_the_answers_of_one_after_the_other(server, studies):
    good = good_images(studies)
    broken = ["cut", "empty", "text", "noise", "volume", "absent", "", "label"]

    def call(name: str) -> Answer:
        return server.save_label(good[0], studies / "text.png") if name == "label" else server.infer(name)

    expected = {name: call(name) for name in (*good, *broken)}
    assert {expected[name].status for name in good} == {200}
    assert [expected[name].status for name in broken] == [422] * 5 + [404, 400, 422]
    names = [(*good, *broken)[index % (len(good) + len(broken))] for index in range(50)]
    memory = []
    for _ in range(3):
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(call, names))
        assert all(answer == expected[name] for name, answer in zip(names, answers, strict=True))
        memory.append(server.memory())
    # The first round makes the allocators' caches; images are small, so a leak of one call would be far more.
    assert memory[-1] - memory[0] < 64 * MIB, [value // MIB for value in memory]
    assert server.ask("/info/").status == 200


WITHOUT_NETWORK = """
import socket, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from label_service import serve
try:
    socket.create_connection(("192.0.2.1", 80), 5)
except OSError as error:
    assert "unreachable" in str(error), error
with serve(Path({bundle!r}), Path({studies!r}), Path({work!r})) as server:
    answer = server.infer({image!r})
assert answer.status == 200, answer.body
Path({output!r}).write_bytes(answer.body)
"""


def test_it_starts_and_infers_without_a_network(server, studies, tmp_path):
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
    assert output.read_bytes() == server.infer(image).body


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


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_also_while_it_trains(stop, tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    with serve(BREAST, folder, tmp_path / "work") as running:
        for image in sorted((BREAST / "sample_data" / "images").iterdir())[:3]:
            shutil.copy(image, folder)
            mask = Image.open(BREAST / "sample_data" / "masks" / "0" / f"{image.stem}.png")
            Image.fromarray(np.asarray(mask).astype(np.uint8)).save(tmp_path / f"{image.stem}.png")
            end = time.monotonic() + 30
            while running.save_label(image.stem, tmp_path / f"{image.stem}.png").status != 200:
                assert time.monotonic() < end
                time.sleep(0.2)  # the folder is watched
        ask(f"{running.url}/train/{BREAST.name}", "POST", b'{"max_epochs": 500}', "application/json")
        while running.ask("/train/").json["status"] != "RUNNING":
            time.sleep(0.1)
        running.process.send_signal(stop)
        assert running.process.wait(60) == 0
        time.sleep(0.5)
        assert not processes_of(tmp_path / "work")
