"""Speed of batch inference over PNGs with masks and ``report.csv``, against the engine alone on tensors in memory.

Both see the same images, the samples of the bundle resized to 256 x 256 and repeated, in batches of the same size. They
take turns; a turn is one pass over all images. The share is images a second of the runner over those of its engine.
Overlays are measured apart, as a version of their own.

Example::

    python benchmarks/bench_batch_inference.py bundles/breast_ultrasound_segmentation --threads 2 \
        --output benchmarks/results/batch_engines.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import describe_machine, write_json
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
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(folder), "output_dir": str(output)})
    parser.update({"batch_size": batch_size, "workers": workers, "overlays": False, "report_page": False, **overrides})
    return parser.get_parsed_content("runner")


def run_folder(bundle: Path, folder: Path, batch_size: int, workers: int, **overrides: Any) -> float:
    """Returns the seconds of a run, without the reading of configs and weights and the start of the engine."""
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stderr(io.StringIO()):
        runner = make_runner(bundle, folder, Path(output) / "out", batch_size, workers, **overrides)
        runner.load_network()
        runner.start_engine()
        runner.load_network = runner.start_engine = lambda: None
        started = time.perf_counter()
        runner.run()
        return time.perf_counter() - started


def run_engine(runner: Any, images: list[torch.Tensor], batch_size: int) -> float:
    """Returns the seconds of the engine alone."""
    batches = [torch.stack(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            runner.segmenter.inferer(batch, runner.segmenter.predictor)
    return time.perf_counter() - started


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime", "openvino", "openvino-bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    machine = describe_machine()
    folder, size = Path(tempfile.mkdtemp()), arguments.batch_size
    seconds: dict[str, list[float]] = {}
    try:
        make_images(arguments.bundle, folder, arguments.images)
        runners = {}
        for engine in arguments.engines:
            runners[engine] = make_runner(arguments.bundle, folder, folder / "none", size, 0, engine=engine)
            runners[engine].load_network()
            runners[engine].start_engine()
        reader = runners[arguments.engines[0]].segmenter.reader
        images = [reader.read([path])["image"].as_tensor() for path in sorted(folder.glob("*.png"))]
        for runner in runners.values():
            run_engine(runner, images[:size], size)
        for _ in range(arguments.rounds):
            for engine, runner in runners.items():
                seconds.setdefault(f"{engine}, alone", []).append(run_engine(runner, images, size))
                for workers in arguments.workers:
                    taken = run_folder(arguments.bundle, folder, size, workers, engine=engine)
                    seconds.setdefault(f"{engine}, runner with {workers} workers", []).append(taken)
            taken = run_folder(arguments.bundle, folder, size, workers, engine=engine, overlays=True)
            seconds.setdefault(f"{engine}, runner with {workers} workers and overlays", []).append(taken)
    finally:
        shutil.rmtree(folder)
    alone = {engine: statistics.median(seconds[f"{engine}, alone"]) for engine in arguments.engines}
    versions = {
        name: {
            "images_per_second": round(arguments.images / statistics.median(values), 2),
            "share_of_engine": round(alone[name.split(",")[0]] / statistics.median(values), 3),
            "seconds": [round(value, 3) for value in values],
        }
        for name, values in seconds.items()
    }
    result = {
        "machine": machine,
        "images": arguments.images,
        "batch_size": size,
        "versions": versions,
    }
    print("| version | images a second | share of the engine alone |")
    print("| --- | ---: | ---: |")
    for name, version in versions.items():
        print(f"| {name} | {version['images_per_second']} | {version['share_of_engine']} |")
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
