"""Throughput and memory of batch inference against the number of inputs, with and without Ray.

    python benchmarks/bench_scale.py --numbers 10 1000 --ray 10 1000 --output benchmarks/results/scale.json

A threshold stands in for the network, so that what is measured is the rest: listing, handing out, decoding small
images, writing masks, the report. The cluster is one node on this machine. Seconds of the processors are counted
besides those of the clock, since other programs may share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
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
SAMPLE_SECONDS = 0.5


def main() -> None:
    """Runs over each number of inputs and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--ray", type=int, nargs="*", default=[10, 1000], help="numbers that are also run with Ray")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scale") as name:
        work = Path(name)
        for number in arguments.numbers:
            source = make_images(work, number)
            runs.append({"inputs": number, "how": "folder", **measure(work, source)})
            print(runs[-1], file=sys.stderr, flush=True)
            listed = ["--file_list", str(make_list(work, source))]
            runs.append({"inputs": number, "how": "list", **measure(work, source, *listed)})
            print(runs[-1], file=sys.stderr, flush=True)
            if number in arguments.ray:
                runs.append(
                    {"inputs": number, "how": "list, Ray", **measure_ray(work, source, listed, arguments.actors)}
                )
                print(runs[-1], file=sys.stderr, flush=True)
            write(arguments, runs)


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
    process = subprocess.Popen(  # noqa: S603
        command, cwd=BUNDLE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    watch = Watch(process.pid, others)
    watch.start()
    _, errors = process.communicate()
    seconds = time.monotonic() - started
    watch.ended.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"error: the run ended with {process.returncode}: {errors.decode()[-2000:]}")
    with (output / "report.csv").open() as file:
        cases = sum(1 for _ in file) - 1
    return {"cases": cases, "seconds": round(seconds, 1), **watch.found()}


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
    """Looks at the processes of a run now and then."""

    def __init__(self, driver: int, cluster: Cluster | None) -> None:
        super().__init__(daemon=True)
        self.driver, self.cluster = psutil.Process(driver), cluster
        self.ended = threading.Event()
        self.memory: dict[str, list[int]] = {"driver": [], "actor": []}
        self.cpu: dict[str, dict[int, float]] = {"driver": {}, "actor": {}}

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            try:
                self._look("driver", [self.driver, *self.driver.children(recursive=True)])
                if self.cluster is not None:
                    self._look("actor", [process for node in self.cluster.nodes for process in node.actors()])
            except psutil.Error:
                continue

    def _look(self, name: str, processes: list[psutil.Process]) -> None:
        for process in processes:
            times = process.cpu_times()
            self.cpu[name][process.pid] = times.user + times.system
        self.memory[name].append(max((process.memory_full_info().pss for process in processes), default=0))

    def found(self) -> dict[str, Any]:
        result = {}
        for name, values in self.memory.items():
            if any(values):
                result[f"{name}_cpu_seconds"] = round(sum(self.cpu[name].values()), 1)
                result[f"{name}_peak_mib"] = max(values) // MIB
                result[f"{name}_mib_halfway"] = values[len(values) // 2] // MIB
        return result


if __name__ == "__main__":
    main()
