"""Batch inference on a Ray cluster whose actors, nodes and driver are killed, compared with a run without Ray.

    python -m tests.soak.ray_kills --kills 20 --output tests/soak/results/ray_kills.json

The cluster is two ``ray start`` processes on this machine, with a CPU for an actor each. Kills take an actor, the
second node with all of its processes (another one joins afterwards), or the run itself with its process group, whose
command begins again at once. A kill comes when the report has grown since the last one, so that it meets work. What
bears a result's name after a kill must be that result, whole. At the end rows and files must be those of the run
without Ray: nothing missing, half-written, or twice.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.ray_cluster import Cluster, run_cluster
from tests.soak.seeds import ROOT
from tests.soak.watch import describe_machine, predict_command, write_results

KINDS = ("actor", "node", "driver")
SECONDS_TO_GROW = 240
"""After a kill, until the report grows again."""
MOST_GROWTH = 25
"""Rows until the next kill, at most; at least one."""
OPTIONS = ("--overlays", "False", "--report_page", "False", "--workers", "0")


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill parts of a Ray cluster under runs of batch inference.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=1500, help="of a folder; when it is done, another one begins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no kill begins after that")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ray_kills") as folder, run_cluster() as cluster:
        found = kill_runs(
            Path(folder), cluster, arguments.kills, arguments.images, arguments.seed, started + arguments.seconds
        )
    results = {
        "command": f"python -m tests.soak.ray_kills --kills {arguments.kills} --images {arguments.images}",
        "seconds": round(time.monotonic() - started),
        **found,
        "machine": describe_machine(),
    }
    write_results(arguments.output, results)
    print(f"{found['kills']} in {found['folders']} folders; violations: {found['violations']}", file=sys.stderr)
    return 1 if found["violations"] else 0


def kill_runs(
    work: Path, cluster: Cluster, kills: int, images: int, seed: int, deadline: float = float("inf")
) -> dict[str, Any]:
    """Returns how often what was killed, how long the report stood still, and what was not as it should be."""
    source = work / "in"
    make_images(source, images)
    plain = work / "plain"
    subprocess.run(make_command(source, plain), cwd=cwd(), check=False, env=environment(), capture_output=True)
    expected = read_folder(plain)
    chance = random.Random(seed)
    each: list[dict[str, Any]] = []
    violations: list[str] = []
    folders = 0
    while not violations and ((len(each) < kills and time.monotonic() < deadline) or not folders):
        output = work / f"out{folders}"
        folders += 1
        found, wrong = kill_folder(source, output, cluster, expected, each, kills, chance, deadline)
        each += found
        violations += wrong
    return {
        "kills": dict(Counter(kill["kind"] for kill in each)),
        "folders": folders,
        "images": images,
        "violations": violations,
        "seconds_until_it_went_on": {
            kind: sorted(kill["seconds"] for kill in each if kill["kind"] == kind) for kind in KINDS
        },
    }


def kill_folder(
    source: Path,
    output: Path,
    cluster: Cluster,
    expected: tuple[dict[str, str], list[dict[str, str]]],
    earlier: list[dict[str, Any]],
    kills: int,
    chance: random.Random,
    deadline: float,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Runs over the folder until it is done, with kills while there are some left."""
    command = make_command(source, output, "--ray", cluster.address, "--actors", "2")
    done: list[dict[str, Any]] = []
    violations: list[str] = []
    log = output.with_suffix(".log")
    driver = start(command, log)
    rows = wait_for_growth(output, 1, driver)
    while driver.poll() is None and len(earlier) + len(done) < kills and time.monotonic() < deadline:
        target = rows + chance.randint(1, MOST_GROWTH)
        rows = wait_for_growth(output, target - 1, driver)
        if driver.poll() is not None:
            break
        kind = KINDS[(len(earlier) + len(done)) % len(KINDS)]
        began = time.monotonic()
        driver = kill(kind, cluster, driver, command, log, chance)
        violations += [f"after {kind}: {name}" for name in find_torn(output, expected[0])]
        before = count_rows(output)
        rows = wait_for_growth(output, before, driver)
        done.append({"kind": kind, "seconds": round(time.monotonic() - began, 1)})
        print(f"{len(earlier) + len(done)}: {kind}, {done[-1]['seconds']} s, {rows} rows", file=sys.stderr, flush=True)
    driver.wait(1200)
    if driver.returncode not in (0, 1):
        violations.append(f"the run ended with {driver.returncode}: {log.read_text()[-500:]}")
    files, table = read_folder(output)
    violations += [f"file {name}" for name in sorted({*files.items()} ^ {*expected[0].items()})]
    if table != expected[1]:
        theirs = {row["case"]: row for row in expected[1]}
        odd = [row["case"] for row in table if theirs.get(row["case"]) != row]
        violations.append(f"rows: {len(table)} of {len(expected[1])}; other: {odd[:3]}")
    violations += [f"left: {path.name}" for path in (output / ".mobileutr" / "unfinished").glob("*")]
    return done, violations


def kill(
    kind: str, cluster: Cluster, driver: subprocess.Popen, command: list[str], log: Path, chance: random.Random
) -> subprocess.Popen:
    """Kills something with SIGKILL; returns the run that goes on."""
    if kind == "driver":
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(30)
        return start(command, log)
    if kind == "node":
        cluster.nodes.pop().kill()
        cluster.add()
        return driver
    actors = [process for node in cluster.nodes for process in node.actors()]
    if not actors:
        raise RuntimeError("there is no actor to kill")
    chance.choice(actors).send_signal(signal.SIGKILL)
    return driver


def make_images(folder: Path, number: int) -> None:
    """Writes small images, each other than the rest, and a broken one."""
    folder.mkdir(parents=True)
    sample = sorted((ROOT / "bundles" / "breast_ultrasound_segmentation" / "sample_data" / "images").iterdir())[0]
    with Image.open(sample) as image:
        base = np.asarray(image.convert("L").resize((64, 48)))
    for index in range(number):
        Image.fromarray(np.roll(base, index, axis=(index // 64) % 2)).save(folder / f"{index:05}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")


def make_command(source: Path, output: Path, *options: str) -> list[str]:
    return predict_command(2, source, output, *OPTIONS, *options)[0]


def cwd() -> Path:
    return predict_command(2, ROOT, ROOT)[1]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=cwd(), env=environment(), stdout=file, stderr=file, start_new_session=True)


def count_rows(output: Path) -> int:
    try:
        return (output / "report.csv").read_bytes().count(b"\n")
    except OSError:
        return 0


def wait_for_growth(output: Path, rows: int, driver: subprocess.Popen) -> int:
    """Returns the number of lines of the report when there are more than so many, or the run has ended."""
    end = time.monotonic() + SECONDS_TO_GROW
    while (found := count_rows(output)) <= rows and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    if found <= rows and driver.poll() is None:
        raise RuntimeError(f"the report did not grow beyond {found} lines in {SECONDS_TO_GROW} s")
    return found


def find_torn(output: Path, expected: dict[str, str]) -> list[str]:
    """Returns the names of results that are not what they should be."""
    return [name for name, digest in hash_results(output).items() if expected.get(name) != digest]


def hash_results(output: Path) -> dict[str, str]:
    found = {}
    for path in output.rglob("*_mask.png"):
        if ".mobileutr" not in path.parts:
            found[path.relative_to(output).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def read_folder(output: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Returns the hashes of the results, and the rows of the report without times."""
    with (output / "report.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return hash_results(output), rows


if __name__ == "__main__":
    raise SystemExit(main())
