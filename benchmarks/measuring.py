"""What the benchmarks share: versions that take turns, medians with quartiles, the machine, JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import monai
import torch

from mobileutr_monai.inference.inferers import computes_bfloat16

__all__ = [
    "Sample",
    "describe_machine",
    "find_precisions",
    "read_cpu_seconds",
    "read_peak_mb",
    "read_tree_cpu_seconds",
    "summarise",
    "take_turns",
    "wait_for",
    "write_json",
]

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


class Sample(NamedTuple):
    """Seconds of one call: on the wall's clock, and of this process and those it started and waited for on all CPUs,
    whatever else runs."""

    wall: float
    cpu: float


def take_turns(versions: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, list[Sample]]:
    """Returns the times of every timed call of every version.

    The versions take turns, in an order that turns around from round to round, so that a machine that slows down or is
    shared slows all of them. A turn is one call that is not timed, then ``repeats`` that are.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in versions}
    order = list(versions)
    for _ in range(rounds):
        for name in order:
            versions[name]()
            for _ in range(repeats):
                wall, cpu = time.perf_counter(), read_cpu_seconds()
                versions[name]()
                samples[name].append(Sample(time.perf_counter() - wall, read_cpu_seconds() - cpu))
        order.reverse()
    return samples


def wait_for(device: torch.device, call: Callable[[], object]) -> Callable[[], object]:
    """Returns a call that ends when the device has done what it was given."""

    def wait() -> None:
        call()
        torch.cuda.synchronize(device)

    return wait if device.type == "cuda" else call


def read_cpu_seconds() -> float:
    """Returns the seconds that this process and those that it waited for have computed on all CPUs."""
    used = os.times()
    return time.process_time() + used.children_user + used.children_system


def read_tree_cpu_seconds() -> float:
    """Returns the seconds that this process, its children, and those that they waited for have computed (Linux).

    Worker processes are children of multiprocessing's fork server, which is one of ours and waits for them.
    """
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == os.getpid():
            ticks += sum(map(int, fields[11:15]))
    return read_cpu_seconds() + ticks / os.sysconf("SC_CLK_TCK")


def summarise(samples: Mapping[str, list[Sample]], base: str) -> dict[str, dict[str, Any]]:
    """Returns for each version median, quartiles, samples, and how many times faster than ``base`` its median is.

    Ratios of CPU seconds tell less work from better use of the CPUs; on a shared machine they are the steadier ones.
    """
    rows = {}
    wall_base, cpu_base = (statistics.median(values) for values in zip(*samples[base], strict=True))
    for name, values in samples.items():
        walls = [sample.wall for sample in values]
        q1, median, q3 = statistics.quantiles(walls, n=4, method="inclusive") if len(walls) > 1 else walls * 3
        cpu = statistics.median(sample.cpu for sample in values)
        rows[name] = {
            "median_s": median,
            "q1_s": q1,
            "q3_s": q3,
            "speedup": wall_base / median,
            "cpu_median_s": cpu,
            "cpu_speedup": cpu_base / cpu if cpu else None,
            "samples_s": walls,
        }
    return rows


def find_precisions() -> dict[str, torch.dtype]:
    """Returns name -> type of the precisions that this CPU has."""
    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return precisions if computes_bfloat16(torch.device("cpu")) else {"float32": torch.float32}


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Returns what the times depend on: CPU, its flags, GPU where one is used, threads, versions, load."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    fields = dict(line.split("\t", 1) for line in lines if "\t" in line)
    model = fields.get("model name", "").lstrip("\t: ") or platform.processor() or platform.machine()
    return {
        "cpu": model,
        "flags": [flag for flag in CPU_FLAGS if flag in fields.get("flags", "").split()],
        **({"gpu": torch.cuda.get_device_name(device)} if device is not None and device.type == "cuda" else {}),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        **{name: found for name in ("onnxruntime", "openvino") if (found := _find_version(name))},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def read_peak_mb() -> float:
    """Returns the largest resident memory of this process so far (Linux).

    Not ``ru_maxrss``, which a new program takes over from the process that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Writes a result, if a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
