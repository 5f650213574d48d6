"""Throughput and memory of batch inference against the number of inputs, with and without Ray.

    python benchmarks/bench_scale.py --numbers 10 1000 --ray 10 1000 --output benchmarks/results/scale.json

A threshold stands in for the network, so that what is measured is the rest: listing, handing out, decoding small
images, writing masks, the report, on a file system in memory where there is one. The cluster is one node on this
machine. Seconds of the processors are counted besides those of the clock, since other programs may share the machine:
those of the command by the system when it has ended, those of actors, which are killed, twenty times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.ray_cluster import Cluster  # noqa: E402
from tests.soak.watch import describe_machine  # noqa: E402

BUNDLE = ROOT / "bundles" / "breast_ultrasound_segmentation"
INFERER = json.dumps({"_target_": "tests.soak.threshold_inferer.CheapInferer"})
OPTIONS = ["--image_size", "[32,32]", "--overlays", "False", "--report_page", "False", "--workers", "0"]
MIB = 2**20
CPU_SECONDS, MEMORY_SECONDS, TOLD_SECONDS = 0.05, 0.5, 30.0
"""Between two looks, and between two lines about how far a run is."""
IN_MEMORY = Path("/dev/shm")  # noqa: S108


def main() -> None:
    """Runs over each number of inputs and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--ray", type=int, nargs="*", default=[10, 1000], help="numbers that are also run with Ray")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scale", dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        work = Path(name)
        for number in sorted({*arguments.numbers, *arguments.ray}):
            tell(f"{number} images are made")
            source = make_images(work, number)
            listed = ["--file_list", str(make_list(work, source))]
            kinds: dict[str, Callable[[], dict[str, Any]]] = {}
            if number in arguments.numbers:
                kinds["folder"] = partial(measure, work, source)
                kinds["list"] = partial(measure, work, source, *listed)
            if number in arguments.ray:
                kinds["list, Ray"] = partial(measure_ray, work, source, listed, arguments.actors)
            for how, run in kinds.items():
                tell(f"{number} inputs, {how}")
                runs.append({"inputs": number, "how": how, **run()})
                tell(str(runs[-1]))
                write(arguments, runs)
            shutil.rmtree(source)


def tell(text: str) -> None:
    """Says how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def write(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """Writes what there is so far."""
    numbers, ray = (" ".join(map(str, some)) for some in (arguments.numbers, arguments.ray))
    results = {
        "command": f"python benchmarks/bench_scale.py --numbers {numbers} --ray {ray} --actors {arguments.actors}",
        "actors": arguments.actors,
        "runs": runs,
        "machine": describe_machine(),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


def make_images(work: Path, number: int) -> Path:
    """Returns a folder of grey images of 64 x 48 pixels, a thousand in each of its folders."""
    sample = sorted((BUNDLE / "sample_data" / "images").iterdir())[0]
    with Image.open(sample) as image:
        base = np.asarray(image.convert("L").resize((64, 48)))
    folder = work / f"in{number}"
    for index in range(number):
        path = folder / f"{index // 1000:03}" / f"{index:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(base, index % 64, axis=1)).save(path)
    return folder


def make_list(work: Path, source: Path) -> Path:
    """Returns a list of the images, relative to their folder."""
    path = work / "list"
    with path.open("w") as file:
        for folder in sorted(source.iterdir()):
            file.writelines(f"{path.relative_to(source)}\n" for path in sorted(folder.iterdir()))
    return path


def measure(work: Path, source: Path, *options: str, others: Cluster | None = None) -> dict[str, Any]:
    """Returns seconds and memory of a run, those of the actors apart."""
    output = work / "out"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--inferer", INFERER, *OPTIONS, "--dataset_dir", str(source), "--output_dir", str(output), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    before = ended_cpu()
    process = subprocess.Popen(  # noqa: S603
        command, cwd=BUNDLE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    watch = Watch(process.pid, others, output / "report.csv")
    watch.start()
    _, errors = process.communicate()
    seconds = time.monotonic() - started
    watch.ended.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"error: the run ended with {process.returncode}: {errors.decode()[-2000:]}")
    with (output / "report.csv").open() as file:
        cases = sum(1 for _ in file) - 1
    driver = round(ended_cpu() - before, 2)
    return {"cases": cases, "seconds": round(seconds, 1), "driver_cpu_seconds": driver, **watch.found()}


def ended_cpu() -> float:
    """Returns the seconds of the processors of all processes that this one has started, and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_ray(work: Path, source: Path, options: list[str], actors: int) -> dict[str, Any]:
    """Does the same on a cluster that is there for this run."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        return measure(work, source, *options, "--ray", cluster.address, "--actors", str(actors), others=cluster)
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


class Watch(threading.Thread):
    """Looks at the processes of a run now and then, and says how far it is."""

    def __init__(self, driver: int, cluster: Cluster | None, report: Path) -> None:
        super().__init__(daemon=True)
        self.driver, self.cluster, self.report = psutil.Process(driver), cluster, report
        self.ended = threading.Event()
        self.memory: dict[str, list[int]] = {"driver": [], "actor": []}
        self.actor_cpu: dict[int, float] = {}
        self._actors: list[psutil.Process] = []

    def run(self) -> None:
        look_at, tell_at = time.monotonic(), time.monotonic() + TOLD_SECONDS
        while not self.ended.wait(CPU_SECONDS):
            for process in self._actors:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self.actor_cpu[process.pid] = times.user + times.system
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + MEMORY_SECONDS
                with suppress(psutil.Error):
                    self._look()
            if time.monotonic() >= tell_at and self.report.is_file():
                tell_at = time.monotonic() + TOLD_SECONDS
                lines = self.report.read_bytes().count(b"\n")
                tell(f"  {lines - 1} cases are done")

    def _look(self) -> None:
        self.memory["driver"].append(find_most_memory([self.driver, *self.driver.children(recursive=True)]))
        if self.cluster is not None:
            self._actors = [process for node in self.cluster.nodes for process in node.actors()]
            self.memory["actor"].append(find_most_memory(self._actors))

    def found(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self.actor_cpu:
            result["actor_cpu_seconds"] = round(sum(self.actor_cpu.values()), 2)
        for name, values in self.memory.items():
            if any(values):
                result[f"{name}_peak_mib"] = max(values) // MIB
                result[f"{name}_mib_halfway"] = values[len(values) // 2] // MIB
        return result


def find_most_memory(processes: list[psutil.Process]) -> int:
    """Returns the most bytes that one of some processes has, of shared ones its part."""
    return max((process.memory_full_info().pss for process in processes), default=0)


if __name__ == "__main__":
    main()
