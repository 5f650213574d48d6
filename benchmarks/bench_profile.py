"""Where the time of the fastest CPU engines goes, by operator, and how near engines come to what a CPU can do.

The operators: OpenVINO's own counters, one thread, one image of 256 x 256, the least time of each operator over the
images: a shared machine makes times longer, never shorter. The counters are averages since the network was compiled, to
the microsecond; the time of one image is what it adds to them, so the network is compiled anew after a few. Bytes are
those of an operator's inputs and outputs, each counted once, so that the rate is what it would need of memory if no
cache held anything. Floating-point operations of convolutions and linear layers are two for each MAC that PyTorch
counts on the eager network. Also of one thread: copying arrays that no cache holds, and within the second-level cache.

The ceilings: every engine computes one image on one thread, in turns with a large matrix product in its precision. Two
times are compared with the engine's, all in CPU time of this process:

- ``arithmetic``: all floating-point operations of the network at the rate of that matrix product, by the faster of
  PyTorch and OpenVINO (PyTorch's library uses no AVX-512 on some CPUs);
- ``arithmetic and memory``: each operator of OpenVINO's graph takes the longer of its operations at that rate and of a
  copy of as many bytes as it reads and writes. Depthwise convolutions have no matrix product in them: in bfloat16 their
  operations count at the rate of float32. What GELU, softmax and resizing compute is not counted, only their bytes.

Example::

    python benchmarks/bench_profile.py --output benchmarks/results/profile.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from bench_network import make_images, make_network
from measuring import describe_machine, find_precisions, take_turns, write_json
from openvino import opset13
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mobileutr_monai.inference.engines.table import ENGINES, cached_onnx, start_engine, why_unavailable

PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16"}
"""Engine -> OpenVINO's name; the second where the CPU has bfloat16."""
MEMORY_BYTES, CACHE_BYTES = 2**27, 2**18
GEMM_SIDE = 768
ARITHMETIC = {"Convolution": "convolution", "GroupConvolution": "convolution", "FullyConnected": "linear"}
"""Attention is fused with what is around it into subgraphs, whose rate would say nothing."""
OPENVINO_NAMES = {"float32": "f32", "bfloat16": "bf16"}
SMALLEST_COPY = 2**14
IMAGES_PER_RUN = 4


def time_least(call: Callable[[], object], times: int = 30) -> float:
    """Returns the least seconds of a call, as this thread's own clock counts them."""
    best = float("inf")
    for _ in range(times):
        started = time.thread_time()
        call()
        best = min(best, time.thread_time() - started)
    return best


def measure_copying() -> dict[str, float]:
    """Returns GB/s of copying (read and written bytes), of one thread."""
    ceilings = {}
    for name, size in (("memory", MEMORY_BYTES), ("cache", CACHE_BYTES)):
        ceilings[f"copy_{name}_gb_per_s"] = copy_rate(size)
    return {name: round(value, 1) for name, value in ceilings.items()}


def copy_rate(size: int) -> float:
    """Returns GB/s, read and written, of copying an array of so many bytes again and again."""
    source = torch.zeros(size // 4)
    target, repeats = torch.empty_like(source), max(1, 2**24 // size)

    def copy() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return 2 * size * repeats / 1e9 / time_least(copy)


def make_products() -> dict[str, dict[str, Callable[[], object]]]:
    """Returns precision -> library -> a large matrix product, of one thread."""
    products: dict[str, dict[str, Callable[[], object]]] = {}
    for precision, dtype in find_precisions().items():
        a, b = (torch.randn(GEMM_SIDE, GEMM_SIDE) for _ in range(2))
        left = opset13.parameter([GEMM_SIDE, GEMM_SIDE], np.float32)
        model = openvino.Model([opset13.matmul(left, opset13.constant(b.numpy()), False, False)], [left])
        request = compile_model(model, OPENVINO_NAMES[precision]).create_infer_request()
        request.set_input_tensor(openvino.Tensor(a.numpy(), shared_memory=True))
        products[precision] = {
            "torch": partial(torch.matmul, a.to(dtype), b.to(dtype)),
            "openvino": request.infer,
        }
    return products


def compile_model(model: Any, precision: str, **options: object) -> Any:
    """Returns what OpenVINO makes of a model for one thread."""
    own = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    return openvino.Core().compile_model(model, "CPU", own | options)


def compile_network(precision: str) -> Any:
    """Returns what OpenVINO makes of the network for one image and one thread, with counters."""
    model = openvino.Core().read_model(cached_onnx(make_network("MobileUtr")))
    model.reshape([1, 3, 256, 256])
    return compile_model(model, precision, PERF_COUNT=True)


@torch.inference_mode()
def measure_ceilings(operations: dict[str, float], rounds: int) -> dict[str, Any]:
    """Returns the rates of matrix products, and for each engine its time for one image and the two ceilings of it."""
    products = make_products()
    images = make_images(1)
    available = [name for name in ENGINES if why_unavailable(name, torch.device("cpu")) is None]
    predictors = {name: start_engine(name, make_network("MobileUtr"), torch.device("cpu"), 1) for name in available}
    calls: dict[str, Callable[[], object]] = {
        name: lambda predict=predict: predict(images) for name, predict in predictors.items()
    }
    calls |= {f"{precision} {name}": call for precision, found in products.items() for name, call in found.items()}
    samples = take_turns(calls, rounds, 3)
    seconds = {name: statistics.median(sample.cpu for sample in found) for name, found in samples.items()}
    rates = {
        precision: {name: round(2 * GEMM_SIDE**3 / 1e9 / seconds[f"{precision} {name}"], 1) for name in found}
        for precision, found in products.items()
    }
    best = {precision: max(found.values()) for precision, found in rates.items()}
    total = sum(operations.values())
    engines = {}
    with_memory = {name: bound_by_operators(name, best, operations) for name in products}
    for name in available:
        precision = ENGINES[name].precision
        bounds = {"arithmetic": total / best[precision], "arithmetic_and_memory": with_memory[precision]}
        engines[name] = {
            "cpu_median_ms": round(1e3 * seconds[name], 2),
            "precision": precision,
            **{f"{bound}_ms": round(1e3 * value, 2) for bound, value in bounds.items()},
            **{f"times_{bound}": round(seconds[name] / value, 2) for bound, value in bounds.items()},
        }
    return {"gemm_gflop_per_s": rates, "rounds": rounds, "engines": engines}


def bound_by_operators(precision: str, rates: dict[str, float], operations: dict[str, float]) -> float:
    """Returns the least seconds of one image if each operator only multiplied, or only moved its bytes.

    Args:
        precision: name in ``find_precisions``.
        rates: precision -> GFLOP/s of a matrix product.
        operations: see ``count_operations``; of attention, which is part of subgraphs, the whole.
    """
    compiled = compile_network(OPENVINO_NAMES[precision])
    request = compiled.create_infer_request()
    request.infer({0: make_images(1).numpy()})
    moved, nodes = measure_moved(compiled), compiled.get_runtime_model().get_ordered_ops()
    operators = {node.get_friendly_name(): node for node in nodes}
    rates_of_copies: dict[int, float] = {}
    seconds = operations["attention"] / rates[precision]
    for info in request.get_profiling_info():
        if info.status != info.Status.EXECUTED or info.node_name not in operators:
            continue
        size = moved[info.node_name] * 1e6
        bucket = max(SMALLEST_COPY, 2 ** round(np.log2(max(size, 1))))
        if bucket not in rates_of_copies:
            rates_of_copies[bucket] = copy_rate(bucket // 2)
        rate = rates["float32" if info.node_type == "GroupConvolution" else precision]
        arithmetic = count_node_operations(operators[info.node_name], info.node_type) / 1e9 / rate
        seconds += max(arithmetic, size / 1e9 / rates_of_copies[bucket])
    return seconds


def count_node_operations(node: Any, kind: str) -> float:
    """Returns the floating-point operations of a convolution or a linear layer, 0 for any other operator."""
    if kind not in ARITHMETIC:
        return 0.0
    weight = list(node.input_value(1).get_shape())
    # (O, I, sides...), with groups (G, O, I, sides...), linear (O, I): each output value is a sum over the rest.
    return 2.0 * np.prod(node.get_output_shape(0)) * np.prod(weight[2 if kind == "GroupConvolution" else 1 :])


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
    image = make_images(1).numpy()
    least: dict[int, float] = defaultdict(lambda: float("inf"))
    names: dict[int, tuple[str, str]] = {}  # by position: each compilation numbers some operators otherwise
    for _ in range(runs):
        compiled = compile_network(precision)
        request, before = compiled.create_infer_request(), dict[int, float]()
        for number in range(1, IMAGES_PER_RUN + 1):
            request.infer({0: image})
            for position, node in enumerate(request.get_profiling_info()):
                if node.status == node.Status.EXECUTED:
                    so_far = number * node.real_time.total_seconds()
                    if number > 1:  # the first warms up
                        least[position] = min(least[position], max(0.0, so_far - before[position]))
                    before[position], names[position] = so_far, (node.node_name, node.node_type)
    rows: dict[str, dict[str, float]] = defaultdict(lambda: {"ms": 0.0, "mb": 0.0, "operators": 0})
    moved = measure_moved(compiled)
    for position, seconds in least.items():
        name, kind = names[position]
        row = rows[kind]
        row["ms"] += 1e3 * seconds
        row["mb"] += moved.get(name, 0)
        row["operators"] += 1
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
    parser.add_argument("--runs", type=int, default=20, help=f"compilations, each for {IMAGES_PER_RUN} images")
    parser.add_argument("--rounds", type=int, default=15, help="of the ceilings: three timed images per engine each")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine, operations = describe_machine(), count_operations()
    ceilings = measure_copying() | measure_ceilings(operations, arguments.rounds)
    print(operations, *ceilings.items(), sep="\n")
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
