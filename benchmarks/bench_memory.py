"""Peak memory of segmenting one input against its size: pictures with a 2D bundle, volumes with a 3D bundle.

Each size is a process of its own that reads the file, runs the bundle's runner without workers and writes the mask;
its largest resident memory is reported, and what it had after its imports. The real network computes the first two
batches of windows (``--batches``; ``--network`` has it compute all), then zeros take its place, because a volume has
thousands of windows. That is the memory of the whole run: what windows are added into has its whole size before the
first of them, and a batch gives back what it took. ``window_mb`` is what the network takes for one batch.

Example::

    python benchmarks/bench_memory.py --output benchmarks/results/memory.json
    python benchmarks/bench_memory.py --only 512x512x300 --network    # hours on a small machine
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from bench_batch_inference import make_runner
from measuring import describe_machine, read_peak_mb, write_json
from PIL import Image

BUNDLES = Path(__file__).parents[1] / "bundles"
SIZES = {
    "breast_ultrasound_segmentation": [(512, 512), (2048, 2048), (6000, 4000)],
    "hippocampus_mri_segmentation": [(64, 64, 64), (256, 256, 150), (512, 512, 300)],
}
WINDOWS = {"breast_ultrasound_segmentation": (8, 3, 256, 256), "hippocampus_mri_segmentation": (4, 1, 32, 48, 32)}


def write_input(size: tuple[int, ...], folder: Path) -> None:
    """Writes a picture, or a volume with voxels of 1 mm."""
    if len(size) == 2:
        array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / "picture.png")
    else:
        array = np.random.default_rng(0).integers(0, 1000, size, dtype=np.int16)
        nib.save(nib.nifti1.Nifti1Image(array, np.eye(4)), folder / "volume.nii.gz")


def measure(bundle: str, folder: Path, batches: float) -> dict[str, float]:
    """Runs the runner on a folder in this process; the real network computes so many batches."""
    logging.disable(logging.WARNING)
    before = read_peak_mb()
    with tempfile.TemporaryDirectory() as output:
        runner = make_runner(BUNDLES / bundle, folder, Path(output) / "out", 8, 0)
        runner.load_network()
        classes = runner.segmenter.network.head.out_channels
        runner.load_network = runner.start_engine = lambda: None
        started = time.perf_counter()
        calls = 0

        def predict(image: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls <= batches:
                logits: torch.Tensor = runner.segmenter.network(image)
                return logits
            return torch.zeros(len(image), classes, *image.shape[2:])

        runner.segmenter.predictor = predict
        runner.run()
        seconds, peak = time.perf_counter() - started, read_peak_mb()
    return {
        "imports_mb": round(before),
        "peak_mb": round(peak),
        "seconds": round(seconds, 1),
        "batches": calls,
        "batches_of_network": int(min(calls, batches)),
    }


def measure_window(bundle: str) -> dict[str, float]:
    """Returns the megabytes that the network takes for one batch."""
    runner = make_runner(BUNDLES / bundle, Path(), Path(), 8, 0)
    runner.load_network()
    before = read_peak_mb()
    with torch.inference_mode():
        runner.segmenter.network(torch.zeros(WINDOWS[bundle]))
    return {"window_mb": round(read_peak_mb() - before)}


def run_apart(*arguments: str) -> dict[str, Any]:
    """Returns what this file measures in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measures, prints and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2, help="that the real network computes (default 2)")
    parser.add_argument("--network", action="store_true", help="have it compute all of them")
    parser.add_argument("--only", metavar="SIZE", help="one size, as in 512x512x300")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--window", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    batches = math.inf if arguments.network else arguments.batches
    if arguments.one or arguments.window:
        with contextlib.redirect_stdout(sys.stderr):
            if arguments.window:
                found = measure_window(arguments.window)
            else:
                found = measure(arguments.one[0], Path(arguments.one[1]), batches)
        print(json.dumps(found))
        return
    rows = []
    network = ["--network"] if arguments.network else ["--batches", str(arguments.batches)]
    for bundle, sizes in SIZES.items():
        wanted = [size for size in sizes if arguments.only in (None, "x".join(map(str, size)))]
        window = run_apart("--window", bundle) if wanted else {}
        for size in wanted:
            with tempfile.TemporaryDirectory() as folder:
                write_input(size, Path(folder))
                found = run_apart("--one", bundle, folder, *network)
            rows.append({"bundle": bundle, "size": list(size), **found, **window})
            print(rows[-1], flush=True)
    write_json(arguments.output, {"machine": describe_machine(), "rows": rows})


if __name__ == "__main__":
    main()
