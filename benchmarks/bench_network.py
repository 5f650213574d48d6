"""Speed and size of MobileUtr in 2D against the authors' arithmetic and MONAI's usual networks, on this CPU or GPU.

One image (latency) and a batch of 8 (throughput) of 256 x 256, in memory, without reading or writing. Versions:

- ``plain``: MobileUtr in float32, channels-first, attention with its matrix in memory. It stands for the authors' code,
  whose arithmetic is the same (see ``bench_training_step``). What the others are compared with.
- MONAI's ``UNet`` (16 to 256 channels, 2 residual units), ``FlexibleUNet`` (EfficientNet-B0) and ``SegResNet`` (16
  filters), with random weights, as they come: eager, float32.
- ``engine NAME``: MobileUtr through an engine of ``mobileutr predict --engine``.

The versions take turns. MACs are those of convolutions, matrix products and attention's own two products, counted by
PyTorch on the eager network; norms, activations and resizing are not counted. Peak memory, on a CPU, is that of a
process of its own that runs a batch of 8 twice, above what the process had after its imports. On a GPU (``--device
cuda``) images and logits stay there, and each call is waited for.

Example::

    python benchmarks/bench_network.py --threads 2 --output benchmarks/results/network.json
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_training_step import explicit_attention, swap_attention
from measuring import describe_machine, read_peak_mb, summarise, take_turns, wait_for, write_json
from monai.networks.nets import FlexibleUNet, SegResNet, UNet
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mobileutr_monai.inference.engines.choice import find_versions
from mobileutr_monai.inference.engines.table import ENGINES, start_engine
from mobileutr_monai.networks import MobileUtr, load_weights

SIZE = 256
BATCHES = (1, 8)
WEIGHTS = Path(__file__).parents[1] / "bundles" / "breast_ultrasound_segmentation" / "models" / "model.pt"
PLAIN = "plain"
ENGINE = "engine "


def make_network(name: str) -> nn.Module:
    """Returns the network of a version, in evaluation mode."""
    torch.manual_seed(0)
    if name == "MONAI UNet":
        return UNet(2, 3, 1, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2).eval()
    if name == "MONAI FlexibleUNet":
        return FlexibleUNet(3, 1, "efficientnet-b0", pretrained=False).eval()
    if name == "MONAI SegResNet":
        return SegResNet(2, 16, 3, 1).eval()
    network = MobileUtr(2, 3, 1).eval()
    load_weights(network, WEIGHTS)
    return network


def make_version(name: str, device: torch.device, batch: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns what runs batches; a GPU's engines fill them up to one size."""
    network = make_network(name).to(device)
    if name.startswith(ENGINE):
        if name == f"{ENGINE}torch":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the bundles have it
        return start_engine(name.removeprefix(ENGINE), network, device, batch)  # type: ignore[arg-type]
    if name != PLAIN:
        return network

    def run(images: torch.Tensor) -> torch.Tensor:
        with swap_attention(explicit_attention):
            logits: torch.Tensor = network(images)
        return logits

    return run


def make_images(batch: int) -> torch.Tensor:
    """Returns a batch."""
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def count(name: str) -> dict[str, Any]:
    """Returns the size of a version's network: parameters, MACs of one image, megabytes of the saved weights."""
    network = make_network(name)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(make_images(1))
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gmac": round(counter.get_total_flops() / 2e9, 3),
        "file_mb": round(file.tell() / 1e6, 2),
    }


@torch.inference_mode()
def measure_peak(name: str, batch: int) -> float:
    """Returns the megabytes of memory that building and running a version takes in this process."""
    images = make_images(batch)
    before = read_peak_mb()
    run = make_version(name, torch.device("cpu"), batch)
    run(images)
    run(images)
    return read_peak_mb() - before


def measure_peak_apart(name: str, threads: int) -> float:
    """Returns ``measure_peak`` of a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--threads", str(threads), "--peak-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file
    return round(float(done.stdout.splitlines()[-1]), 1)


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--engines", nargs="*", help="default: all of the device that auto chooses among")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        with redirect_stdout(sys.stderr):
            peak = measure_peak(arguments.peak_of, max(BATCHES))
        print(peak)
        return
    device = torch.device(arguments.device)
    engines = arguments.engines
    if engines is None:
        engines = [name for name, engine in ENGINES.items() if device.type in engine.devices]
    names = [
        PLAIN,
        "MONAI UNet",
        "MONAI FlexibleUNet",
        "MONAI SegResNet",
        *(ENGINE + name for name in engines),
    ]
    machine = describe_machine(device)
    results: dict[str, Any] = {name: count(name) for name in names}
    settings = {"size": SIZE, "rounds": arguments.rounds, "macs": "convolutions, matrix products, attention's products"}
    report = {"machine": machine, "versions": find_versions(), "settings": settings, "networks": results}
    for batch in BATCHES:
        images = make_images(batch).to(device)
        versions = {name: make_version(name, device, batch) for name in names}
        calls = {name: wait_for(device, partial(run, images)) for name, run in versions.items()}
        with torch.inference_mode():
            repeats = 20 if device.type == "cuda" else 1
            for name, row in summarise(take_turns(calls, arguments.rounds, repeats), PLAIN).items():
                results[name][f"batch_{batch}"] = row
        write_json(arguments.output, report)  # what there is, should the machine be needed for something else
    for name in names:
        if device.type == "cpu":
            results[name]["peak_mb_batch_8"] = measure_peak_apart(name, arguments.threads)
        if name.startswith(ENGINE):
            results[name]["precision"] = ENGINES[name.removeprefix(ENGINE)].precision
        write_json(arguments.output, report)
    print(json.dumps({name: {k: row[k] for k in ("parameters", "gmac")} for name, row in results.items()}, indent=1))
    for name, row in results.items():
        one, many = (row[f"batch_{batch}"] for batch in BATCHES)
        times = [
            f"{1000 * timed['median_s']:7.2f} ms x{timed['speedup']:5.2f} (CPU x{timed['cpu_speedup']:5.2f})"
            for timed in (one, many)
        ]
        print(f"{name:24} {'   batch 8 '.join(times)}   {row.get('peak_mb_batch_8', float('nan')):7.1f} MB")


if __name__ == "__main__":
    main()
