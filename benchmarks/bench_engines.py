"""Speed of the engines at several sizes, of images and of windows of volumes; and the ceilings of this machine.

Every engine that ``auto`` chooses among here, on random values in memory: batches of 8 at 128, 256 and 512 pixels, and
batches of 4 windows of 32 x 48 x 32 voxels. The engines take turns. Also: seconds until an engine is ready (its ONNX
file made before), the bandwidth of memory (a copy of arrays that no cache holds) and the arithmetic of a large matrix
product in float32, and in bfloat16 where the CPU has it, which are what any engine runs against.

Example::

    python benchmarks/bench_engines.py --threads 2 --output benchmarks/results/engines.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import describe_machine, find_precisions, summarise, take_turns, write_json

from mobileutr_monai.inference.engines.table import ENGINES, start_engine, why_unavailable
from mobileutr_monai.networks import MobileUtr, load_weights

BUNDLES = Path(__file__).parents[1] / "bundles"
CASES = {
    "2D, 8 x 128 x 128": ("breast_ultrasound_segmentation", (8, 3, 128, 128)),
    "2D, 8 x 256 x 256": ("breast_ultrasound_segmentation", (8, 3, 256, 256)),
    "2D, 8 x 512 x 512": ("breast_ultrasound_segmentation", (8, 3, 512, 512)),
    "3D, 4 x 32 x 48 x 32": ("hippocampus_mri_segmentation", (4, 1, 32, 48, 32)),
}
BASE = "torch"
COPY_BYTES = 2**29
GEMM_SIDE = 2048


def make_network(bundle: str, shape: tuple[int, ...]) -> MobileUtr:
    """Returns the network of a bundle as its config has it."""
    network = MobileUtr(2, 3, 1) if len(shape) == 4 else MobileUtr(3, 1, 3)
    load_weights(network, BUNDLES / bundle / "models" / "model.pt")
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return network.eval().to(memory_format=layout)  # type: ignore[call-overload]  # torch's overloads lack it


def measure_ceilings() -> dict[str, float]:
    """Returns GB/s of copying (read and written bytes) and GFLOP/s of matrix products."""
    source = torch.zeros(COPY_BYTES // 4)
    target = torch.empty_like(source)
    ceilings = {"copy_gb_per_s": 2 * COPY_BYTES / 1e9 / time_best(lambda: target.copy_(source))}
    for name, dtype in find_precisions().items():
        a, b = torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype), torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype)
        flops = 2 * GEMM_SIDE**3
        ceilings[f"gemm_{name}_gflop_per_s"] = flops / 1e9 / time_best(lambda a=a, b=b: a @ b)
    return {name: round(value, 1) for name, value in ceilings.items()}


def time_best(call: Callable[[], object]) -> float:
    """Returns the median seconds of seven calls after one."""
    call()
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(bundle: str, shape: tuple[int, ...], engines: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Returns a row per engine, see ``summarise``."""
    network = make_network(bundle, shape)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ready, calls = {}, {}
    for name in engines:
        start_engine(name, network, torch.device("cpu"), shape[0])  # makes the ONNX file where there is none
        started = time.perf_counter()
        predict = start_engine(name, network, torch.device("cpu"), shape[0])
        predict(images[:1])
        ready[name] = time.perf_counter() - started
        calls[name] = lambda predict=predict: predict(images)
    rows = summarise(take_turns(calls, rounds), BASE)
    return {name: {**row, "ready_s": round(ready[name], 3)} for name, row in rows.items()}


@torch.inference_mode()
def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine, ceilings = describe_machine(), measure_ceilings()
    engines = [name for name in ENGINES if why_unavailable(name, torch.device("cpu")) is None]
    results = {name: measure(*case, engines, arguments.rounds) for name, case in CASES.items()}
    print(ceilings)
    for case, rows in results.items():
        for name, row in rows.items():
            times = f"{1000 * row['median_s']:8.1f} ms x{row['speedup']:5.2f} (CPU x{row['cpu_speedup']:5.2f})"
            print(f"{case:22} {name:16} {times}  ready in {row['ready_s']:.2f} s")
    write_json(
        arguments.output,
        {"machine": machine, "ceilings": ceilings, "rounds": arguments.rounds, "cases": results},
    )


if __name__ == "__main__":
    main()
