"""Speed of batch inference over PNGs with masks and ``report.csv``, against the network alone on tensors in memory.

Both see the same images, the samples of the bundle resized to 256 x 256 and repeated, in batches of the same size. They
take turns; a turn is one pass over all images. The share is images a second of the runner over those of the network.

Example::

    python benchmarks/bench_batch_inference.py bundles/breast_ultrasound_segmentation --threads 2 \
        --output benchmarks/results/batch_inference.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_training_step import describe_machine
from monai.bundle import ConfigParser
from PIL import Image

SIDE = 256


def make_images(bundle: Path, folder: Path, number: int) -> None:
    """Writes samples of the bundle as PNGs of the network's size."""
    samples = sorted((bundle / "sample_data" / "images").iterdir())
    for index in range(number):
        with Image.open(samples[index % len(samples)]) as image:
            image.convert("RGB").resize((SIDE, SIDE)).save(folder / f"{index:04}.png")


def make_runner(bundle: Path, folder: Path, output: Path, batch_size: int, workers: int) -> Any:
    """Returns the runner of the bundle's inference config, without overlays."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(folder), "output_dir": str(output)})
    parser.update({"batch_size": batch_size, "workers": workers, "overlays": False})
    return parser.get_parsed_content("runner")


def time_runner(bundle: Path, folder: Path, batch_size: int, workers: int) -> float:
    """Returns the seconds of a run, without the reading of configs and weights before it."""
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stderr(io.StringIO()):
        runner = make_runner(bundle, folder, Path(output) / "out", batch_size, workers)
        started = time.perf_counter()
        runner.run()
        return time.perf_counter() - started


def time_network(runner: Any, images: list[torch.Tensor], batch_size: int) -> float:
    """Returns the seconds of the network alone."""
    batches = [torch.stack(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            runner.segmenter.inferer(batch, runner.segmenter.network)
    return time.perf_counter() - started


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp())
    try:
        make_images(arguments.bundle, folder, arguments.images)
        runner = make_runner(arguments.bundle, folder, folder / "none", arguments.batch_size, 0)
        runner.load_network()
        images = [runner.segmenter.read([path])["image"].as_tensor() for path in sorted(folder.glob("*.png"))]
        seconds: dict[str, list[float]] = {"network": [], **{f"runner, {w} workers": [] for w in arguments.workers}}
        time_network(runner, images, arguments.batch_size)
        for _ in range(arguments.rounds):
            seconds["network"].append(time_network(runner, images, arguments.batch_size))
            for workers in arguments.workers:
                taken = time_runner(arguments.bundle, folder, arguments.batch_size, workers)
                seconds[f"runner, {workers} workers"].append(taken)
    finally:
        shutil.rmtree(folder)
    network = statistics.median(seconds["network"])
    versions = {
        name: {
            "images_per_second": round(arguments.images / statistics.median(values), 2),
            "share_of_network": round(network / statistics.median(values), 3),
            "seconds": [round(value, 3) for value in values],
        }
        for name, values in seconds.items()
    }
    result = {
        "machine": describe_machine(),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "images": arguments.images,
        "batch_size": arguments.batch_size,
        "precision": "float32",
        "versions": versions,
    }
    print("| version | images a second | share of the network alone |")
    print("| --- | ---: | ---: |")
    for name, version in versions.items():
        print(f"| {name} | {version['images_per_second']} | {version['share_of_network']} |")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
