"""Runs on a Ray cluster of two nodes, which are processes of this machine, give what a run without it gives."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray")
pytest.importorskip("psutil")

from dicom_samples import write_cine, write_still
from ray_cluster import run_cluster

from mobileutr_monai.__main__ import main
from mobileutr_monai.inference.batch.runner import UsageError
from tests.soak.ray_kills import count_rows, kill_runs


@pytest.fixture(scope="module")
def cluster():
    with run_cluster() as running:
        yield running


@pytest.fixture
def make_runner(open_runner):
    return partial(open_runner, image_size=[32, 32], workers=0, report_page=False, batch_size=2)


@pytest.fixture
def folder(tmp_path, breast) -> Path:
    """Images, a DICOM still and a cine, a broken image, and a file of another kind."""
    target = tmp_path / "in"
    (target / "sub").mkdir(parents=True)
    samples = sorted((breast / "sample_data" / "images").iterdir())
    for number in range(8):
        shutil.copyfile(samples[number % len(samples)], target / ("sub" if number % 2 else ".") / f"{number} ü.jpg")
    write_still(samples[0], "L", target / "still.dcm")
    write_cine(target / "still.dcm", target / "cine.dcm")
    (target / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    (target / "notes.txt").write_text("not an image")
    return target


def read_rows(folder: Path, *left_out: str) -> list[dict[str, str]]:
    with (folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ("seconds", *left_out)} for row in rows]


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".png", ".gz")
    }


@pytest.mark.slow
def test_a_cluster_gives_what_one_machine_gives(cluster, make_runner, folder, tmp_path):
    make_runner(output_dir=str(tmp_path / "plain")).run()
    result = make_runner(ray=cluster.address, actors=2).run()
    assert dict(result.counts) == {"ok": 10, "failed": 1, "skipped": 1}
    assert read_rows(tmp_path / "out", "files") == read_rows(tmp_path / "plain", "files")
    assert read_files(tmp_path / "out") == read_files(tmp_path / "plain")
    assert len(read_files(tmp_path / "out")) > 10
    assert not list((tmp_path / "out" / ".mobileutr" / "unfinished").glob("*"))
    # A list, part by part, and what is done is not done again: nothing is left for an actor.
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (tmp_path / "list").write_text("\n".join(names))
    make_runner(ray=cluster.address, output_dir=str(tmp_path / "listed"), file_list=str(tmp_path / "list")).run()
    assert read_rows(tmp_path / "listed", "files") == read_rows(tmp_path / "plain", "files")
    # A run goes on without the cluster, and the other way round.
    assert dict(make_runner().run().counts) == {"ok": 10, "failed": 1, "skipped": 1}


@pytest.mark.slow
def test_a_case_that_ends_its_actors_is_given_up_and_costs_no_other(cluster, make_runner, folder, tmp_path):
    shutil.rmtree(folder / "sub")
    poison = np.zeros((64, 64), dtype=np.uint8)
    poison[:, 32:] = 255
    Image.fromarray(poison).save(folder / "3 poison.png")
    inferer = {"_target_": "tests.soak.poison_inferer.PoisonInferer"}
    result = make_runner(ray=cluster.address, actors=2, inferer=inferer, overlays=False).run()
    assert dict(result.counts) == {"ok": 6, "failed": 2, "skipped": 1}
    row = next(row for row in read_rows(tmp_path / "out") if row["case"] == "3 poison.png")
    assert row["reason"] == "decoder crashed"
    assert row["detail"] == "2 actors ended while they had it alone"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_actor_a_node_and_the_run_may_be_killed(cluster, tmp_path):
    found = kill_runs(tmp_path, cluster, kills=3, images=150, seed=1)
    assert found["violations"] == []
    assert found["kills"] == {"actor": 1, "node": 1, "driver": 1}


FULL_DISK = 'mount -t tmpfs -o size=16k disk "$0" && { head -c 16k /dev/zero > "$0/rest"; exec "$@"; }'
"""Has a full disk in a folder, for one command."""


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "disk", path], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def full_node(cluster, small_disk, tmp_path) -> Iterator[None]:
    """The second node has a full disk where it would stage results."""
    making = tmp_path / "out" / ".mobileutr"
    making.mkdir(parents=True)
    cluster.nodes.pop().kill()
    cluster.add(["unshare", "--mount", "sh", "-c", FULL_DISK, str(making)])
    yield
    cluster.nodes.pop().kill()
    cluster.add()


def make_many(folder: Path) -> None:
    for number in range(200):
        Image.fromarray(np.roll(np.arange(64, dtype=np.uint8), number) * np.ones((48, 1), np.uint8)).save(
            folder / f"{number:03}.png"
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_whose_disk_is_full_is_left_out(cluster, full_node, make_runner, folder, tmp_path, caplog):
    make_many(folder)
    make_runner(output_dir=str(tmp_path / "plain"), overlays=False).run()
    run = ThreadPoolExecutor(1).submit(make_runner(ray=cluster.address, actors=2, overlays=False).run)
    end = time.monotonic() + 300
    while count_rows(tmp_path / "out") < 20:
        assert not run.done() and time.monotonic() < end
        time.sleep(0.02)
    cluster.nodes[0].actors()[0].kill()  # its successor must not go to the node whose disk is full
    assert dict(run.result().counts) == {"ok": 210, "failed": 1, "skipped": 1}
    assert "a node's disk is full; the others do its cases" in caplog.text
    assert read_rows(tmp_path / "out", "files") == read_rows(tmp_path / "plain", "files")
    assert read_files(tmp_path / "out") == read_files(tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_is_full_on_all_nodes_ends_the_run_and_room_resumes_it(
    cluster, small_disk, make_runner, folder, tmp_path, capsys
):
    make_runner(output_dir=str(tmp_path / "plain")).run()
    options = {"ray": cluster.address, "actors": 2, "output_dir": str(small_disk / "out")}
    with pytest.raises(SystemExit) as stop:
        make_runner(**options).main()
    assert stop.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"mobileutr: error: the disk of {small_disk / 'out'} is full; make room")
    whole = read_files(tmp_path / "plain")
    written = read_files(small_disk / "out")
    assert 0 < len(written) < len(whole)
    assert written.items() <= whole.items()
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    assert dict(make_runner(**options).run().counts) == {"ok": 10, "failed": 1, "skipped": 1}
    assert read_rows(small_disk / "out", "files") == read_rows(tmp_path / "plain", "files")
    assert read_files(small_disk / "out") == whole


def test_a_cluster_that_is_not_there_ends_with_one_line(breast, folder, tmp_path, capsys):
    command = ["predict", str(breast), str(folder), "--output", str(tmp_path / "out"), "--workers", "0"]
    assert main([*command, "--ray", "nowhere"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mobileutr: error: there is no Ray cluster at 'nowhere'")
    assert "ray start --head" in error
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed_is_said(make_runner, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install "mobileutr-monai\[ray\]"'):
        make_runner(ray="auto").run()
