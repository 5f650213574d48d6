"""Peak memory of segmenting one input against its size: pictures with a 2D bundle, volumes with a 3D bundle.

Each size is a process of its own that reads the file, runs the bundle's runner without workers and writes the mask;
its largest resident memory is reported, and what it had after its imports. By default the network is replaced by one
that gives zeros, because windows are many and each alone is small: ``--network`` runs the real one and takes its time;
``window_mb`` is what the real network takes for one batch of windows or pictures.

Example::

    python benchmarks/bench_memory.py --output benchmarks/results/memory.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
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


def measure(bundle: str, folder: Path, real: bool) -> dict[str, float]:
    """Runs the runner on a folder in this process."""
    logging.disable(logging.WARNING)
    before = read_peak_mb()
    with tempfile.TemporaryDirectory() as output:
        runner = make_runner(BUNDLES / bundle, folder, Path(output) / "out", 8, 0)
        runner.load_network()
        classes = runner.segmenter.network.head.out_channels
        runner.load_network = runner.start_engine = lambda: None
        started = time.perf_counter()
        if not real:
            runner.segmenter.predictor = lambda image: torch.zeros(len(image), classes, *image.shape[2:])
        runner.run()
        seconds, peak = time.perf_counter() - started, read_peak_mb()
    return {"imports_mb": round(before), "peak_mb": round(peak), "seconds": round(seconds, 1)}


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
    parser.add_argument("--network", action="store_true", help="run the real network")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--window", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one or arguments.window:
        with contextlib.redirect_stdout(sys.stderr):
            if arguments.window:
                found = measure_window(arguments.window)
            else:
                found = measure(arguments.one[0], Path(arguments.one[1]), arguments.network)
        print(json.dumps(found))
        return
    rows = []
    for bundle, sizes in SIZES.items():
        window = run_apart("--window", bundle)
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                write_input(size, Path(folder))
                found = run_apart("--one", bundle, folder, *(["--network"] if arguments.network else []))
            rows.append({"bundle": bundle, "size": list(size), **found, **window})
            print(rows[-1], flush=True)
    write_json(arguments.output, {"machine": describe_machine(), "real_network": arguments.network, "rows": rows})


if __name__ == "__main__":
    main()
