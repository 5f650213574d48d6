"""Where the time of the fastest CPU engines goes, by operator, against what this machine can do.

OpenVINO's own counters, one thread, one image of 256 x 256, the least time of each operator over the runs: a shared
machine makes times longer, never shorter. Bytes are those of an operator's inputs and outputs, each counted once, so
that the rate is what it would need of memory if no cache held anything. Floating-point operations of convolutions and
linear layers are two for each MAC that PyTorch counts on the eager network. The ceilings, of one thread as well:
copying arrays that no cache holds, copying within the second-level cache, and large matrix products.

Example::

    python benchmarks/bench_profile.py --output benchmarks/results/profile.json
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino
import torch
from bench_network import make_images, make_network
from measuring import describe_machine, find_precisions, write_json
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mobileutr_monai.inference.engines.table import cached_onnx, why_unavailable

PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16"}
"""Engine -> OpenVINO's name; the second where the CPU has bfloat16."""
MEMORY_BYTES, CACHE_BYTES = 2**27, 2**18
GEMM_SIDE = 768
ARITHMETIC = {"Convolution": "convolution", "GroupConvolution": "convolution", "FullyConnected": "linear"}
"""Attention is fused with what is around it into subgraphs, whose rate would say nothing."""


def time_least(call: Callable[[], object], times: int = 30) -> float:
    """Returns the least seconds of a call, as this thread's own clock counts them."""
    best = float("inf")
    for _ in range(times):
        started = time.thread_time()
        call()
        best = min(best, time.thread_time() - started)
    return best


def measure_ceilings() -> dict[str, float]:
    """Returns GB/s of copying (read and written bytes) and GFLOP/s of matrix products, of one thread."""
    ceilings = {}
    for name, size in (("memory", MEMORY_BYTES), ("cache", CACHE_BYTES)):
        source = torch.zeros(size // 4)
        target, repeats = torch.empty_like(source), max(1, 2**24 // size)

        def copy(source: torch.Tensor = source, target: torch.Tensor = target, repeats: int = repeats) -> None:
            for _ in range(repeats):
                target.copy_(source)

        ceilings[f"copy_{name}_gb_per_s"] = 2 * size * repeats / 1e9 / time_least(copy)
    for name, dtype in find_precisions().items():
        a, b = torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype), torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype)
        ceilings[f"gemm_{name}_gflop_per_s"] = 2 * GEMM_SIDE**3 / 1e9 / time_least(lambda a=a, b=b: a @ b)
    return {name: round(value, 1) for name, value in ceilings.items()}


def count_operations() -> dict[str, float]:
    """Returns the floating-point operations of one image, in 1e9, by kind of layer."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        make_network("MobileUtr")(make_images(1))
    counts = {str(operator): value for operator, value in counter.get_flop_counts()["Global"].items()}
    return {
        "convolution": sum(value for name, value in counts.items() if "conv" in name) / 1e9,
        "linear": sum(value for name, value in counts.items() if name in ("aten.addmm", "aten.mm")) / 1e9,
        "attention": sum(value for name, value in counts.items() if "bmm" in name) / 1e9,
    }


def profile(precision: str, runs: int) -> dict[str, dict[str, float]]:
    """Returns for each type of operator its milliseconds and megabytes, largest first."""
    core = openvino.Core()
    model = core.read_model(cached_onnx(make_network("MobileUtr")))
    model.reshape([1, 3, 256, 256])
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERF_COUNT": True}
    compiled = core.compile_model(model, "CPU", options)
    request, image = compiled.create_infer_request(), make_images(1).numpy()
    least: dict[str, float] = defaultdict(lambda: float("inf"))
    kinds = {}
    for _ in range(runs):
        request.infer({0: image})
        for node in request.get_profiling_info():
            if node.status == node.Status.EXECUTED:
                least[node.node_name] = min(least[node.node_name], node.real_time.total_seconds())
                kinds[node.node_name] = node.node_type
    rows: dict[str, dict[str, float]] = defaultdict(lambda: {"ms": 0.0, "mb": 0.0, "operators": 0})
    moved = measure_moved(compiled)
    for name, seconds in least.items():
        row = rows[kinds[name]]
        row["ms"], row["mb"], row["operators"] = (
            row["ms"] + 1e3 * seconds,
            row["mb"] + moved.get(name, 0),
            row["operators"] + 1,
        )
    return dict(sorted(rows.items(), key=lambda item: -item[1]["ms"]))


def measure_moved(compiled: Any) -> dict[str, float]:
    """Returns operator -> megabytes of its inputs and outputs, as they are after OpenVINO's own rewriting."""
    moved = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        ports = [*(port.get_source_output() for port in node.inputs()), *node.outputs()]
        moved[node.get_friendly_name()] = sum(count_bytes(port) for port in ports) / 1e6
    return moved


def count_bytes(port: Any) -> float:
    """Returns the bytes of a tensor."""
    number = 1
    for side in port.get_shape():
        number *= side
    return number * port.get_element_type().bitwidth / 8


def main() -> None:
    """Measures, prints and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine, ceilings, operations = describe_machine(), measure_ceilings(), count_operations()
    print(ceilings, operations)
    engines = {}
    for engine, precision in PRECISIONS.items():
        if why_unavailable(engine, torch.device("cpu")) is not None:
            continue
        rows = profile(precision, arguments.runs)
        total = sum(row["ms"] for row in rows.values())
        groups: dict[str, float] = defaultdict(float)
        for kind, row in rows.items():
            row["percent"], row["gb_per_s"] = (
                round(100 * row["ms"] / total, 1),
                round(row["mb"] / max(row["ms"], 1e-6), 1),
            )
            row["ms"], row["mb"] = round(row["ms"], 3), round(row["mb"], 1)
            if kind in ARITHMETIC:
                groups[ARITHMETIC[kind]] += row["ms"]
        rates = {name: round(operations[name] / (ms / 1e3), 1) for name, ms in groups.items()}
        engines[engine] = {"total_ms": round(total, 2), "gflop_per_s": rates, "operators": rows}
        print(engine, engines[engine]["total_ms"], rates)
        for kind, row in rows.items():
            print(f"  {kind:28} {row}")
    content = {
        "machine": machine,
        "ceilings": ceilings,
        "gflop": operations,
        "runs": arguments.runs,
        "engines": engines,
    }
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
