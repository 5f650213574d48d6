"""Speed of batch inference over PNGs with masks and ``report.csv``, against the engine alone on tensors in memory.

Both see the same images, the samples of the bundle resized to 256 x 256 and repeated, in batches of the same size. They
take turns; a turn is a pass over all images. Of a version:

- ``images_per_second``: all images over the seconds of the whole run, with its start and end;
- ``steady_images_per_second``: the images behind the first batch, over the seconds that they add to a run over that
  batch alone: what a long run approaches. The start, the end, and the filling of the pipeline are in both runs;
- ``cpu_ms_per_image``: what all processes of the version computed, likewise of the images behind the first batch;
- ``share_of_engine``, ``steady_share``: images a second over those of its engine alone;
- ``ceiling``: the engine's CPU time over the version's: the share that is reached when all CPUs are busy all the time.

The server that workers are forked from is started before; ``bench_startup.py`` has what starting costs. Overlays are
measured apart, as a version of their own.

Example::

    python benchmarks/bench_batch_inference.py bundles/breast_ultrasound_segmentation --threads 2 \
        --output benchmarks/results/batch_engines.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import Sample, describe_machine, read_tree_cpu_seconds, write_json
from monai.bundle import ConfigParser
from PIL import Image

SIDE = 256


def make_images(bundle: Path, folder: Path, number: int) -> None:
    """Writes samples of the bundle as PNGs of the network's size."""
    samples = sorted((bundle / "sample_data" / "images").iterdir())
    for index in range(number):
        with Image.open(samples[index % len(samples)]) as image:
            image.convert("RGB").resize((SIDE, SIDE)).save(folder / f"{index:04}.png")


def make_runner(bundle: Path, folder: Path, output: Path, batch_size: int, workers: int, **overrides: Any) -> Any:
    """Returns the runner of the bundle's inference config, without overlays and page unless asked."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": bundle, "dataset_dir": folder, "output_dir": output})
    parser.update({"batch_size": batch_size, "workers": workers, "overlays": False, "report_page": False, **overrides})
    return parser.get_parsed_content("runner")


def run_folder(bundle: Path, folder: Path, batch_size: int, workers: int, **overrides: Any) -> Sample:
    """Returns the seconds of a run, without the reading of configs and weights and the start of the engine."""
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stderr(io.StringIO()):
        runner = make_runner(bundle, folder, Path(output) / "out", batch_size, workers, **overrides)
        runner.load_network()
        runner.start_engine()
        runner.load_network = runner.start_engine = lambda: None
        return measure(runner.run)


def run_engine(runner: Any, images: list[torch.Tensor], batch_size: int) -> Sample:
    """Returns the seconds of the engine alone."""
    batches = [torch.stack(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                runner.segmenter.inferer(batch, runner.segmenter.predictor)

    return measure(run)


def measure(function: Callable[[], object]) -> Sample:
    """Returns the seconds of a call, by the clock and on all CPUs, of all processes of this one."""
    wall, cpu = time.perf_counter(), read_tree_cpu_seconds()
    function()
    return Sample(time.perf_counter() - wall, read_tree_cpu_seconds() - cpu)


def describe(name: str, runs: dict[str, dict[str, list[Sample]]], images: int, first: int) -> dict[str, Any]:
    """Returns what was measured of a version; ``runs`` are those over all images and over the first batch."""
    alone = name.split(",")[0] + ", alone"

    def steady(version: str) -> Sample:
        """Returns the seconds of one of the images behind the first batch."""
        whole, batch = (
            [statistics.median(values) for values in zip(*runs[version][part], strict=True)] for part in ("all", "one")
        )
        return Sample(*((a - b) / (images - first) for a, b in zip(whole, batch, strict=True)))

    def whole(version: str) -> float:
        return statistics.median(sample.wall for sample in runs[version]["all"])

    own, engine = steady(name), steady(alone)
    return {
        "images_per_second": round(images / whole(name), 2),
        "share_of_engine": round(whole(alone) / whole(name), 3),
        "steady_images_per_second": round(1 / own.wall, 2),
        "steady_share": round(engine.wall / own.wall, 3),
        "cpu_ms_per_image": round(1e3 * own.cpu, 2),
        "ceiling": round(engine.cpu / own.cpu, 3),
        "seconds": [round(sample.wall, 3) for sample in runs[name]["all"]],
        "seconds_of_one_batch": [round(sample.wall, 3) for sample in runs[name]["one"]],
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime", "openvino", "openvino-bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    if arguments.images <= arguments.batch_size:
        parser.error("--images must be more than one batch")
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    machine = describe_machine()
    bundle, size = arguments.bundle, arguments.batch_size
    versions: dict[str, Callable[[str], Sample]] = {}
    images: dict[str, list[torch.Tensor]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"all": Path(temporary) / "all", "one": Path(temporary) / "one"}

        def run_alone(runner: Any, part: str) -> Sample:
            return run_engine(runner, images[part], size)

        def run_workers(workers: int, overrides: dict[str, Any], part: str) -> Sample:
            return run_folder(bundle, folders[part], size, workers, **overrides)

        for part, number in (("all", arguments.images), ("one", size)):
            folders[part].mkdir()
            make_images(bundle, folders[part], number)
        for engine in arguments.engines:
            runner = make_runner(bundle, folders["all"], Path(temporary) / "none", size, 0, engine=engine)
            runner.load_network()
            runner.start_engine()
            read = runner.segmenter.reader.read
            for part, folder in folders.items():
                images[part] = images.get(part) or [
                    read([path])["image"].as_tensor() for path in sorted(folder.iterdir())
                ]
            versions[f"{engine}, alone"] = partial(run_alone, runner)
            for workers in arguments.workers:
                name = f"{engine}, runner with {workers} workers"
                versions[name] = partial(run_workers, workers, {"engine": engine})
        versions[f"{name} and overlays"] = partial(run_workers, workers, {"engine": engine, "overlays": True})
        for run in versions.values():
            run("one")
        runs: dict[str, dict[str, list[Sample]]] = {name: {"all": [], "one": []} for name in versions}
        for _ in range(arguments.rounds):
            for name, run in versions.items():
                for part, samples in runs[name].items():
                    samples.append(run(part))
    rows = {name: describe(name, runs, arguments.images, size) for name in versions}
    print("| version | images a second | share | steady | share | CPU, ms an image | ceiling of the share |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(str(value) for value in list(row.values())[:6])} |")
    write_json(arguments.output, {"machine": machine, "images": arguments.images, "batch_size": size, "versions": rows})


if __name__ == "__main__":
    main()
