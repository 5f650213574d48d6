"""Time of a training step of MobileUtr on this CPU or GPU, ours against a plain float32 step.

A step is forward, 0.5 BCE + Dice loss, backward and AdamW step of the 2D base network, by default with batch 8 at
256 x 256. Versions, each one change after the one before:

- ``plain``: float32, channels-first, attention as explicit matrix products and softmax with the attention matrix in
  memory. It stands for the authors' code (FengheTan9/Mobile-U-ViT), whose arithmetic is the same, and is checked in
  float64 against our logits before anything is timed. No code of theirs is used.
- ``sdpa``: attention through ``scaled_dot_product_attention``.
- ``channels_last``: channels-last weights as well; still float32.
- ``ours``: bfloat16 autocast as well, as the bundles train.
- ``graphs``, on a GPU: the passes as CUDA graphs and a fused optimizer as well, as ``gpu_train.json`` trains.

The versions take turns, in an order that turns around from round to round, so that a machine that slows down or is
shared slows all of them. A turn is one step that is not timed, then three that are.

Example::

    python benchmarks/bench_training_step.py --rounds 5 --output benchmarks/results/training_step.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from measuring import describe_machine, summarise, take_turns, wait_for, write_json
from monai.losses import DiceCELoss
from torch.nn import functional as F

from mobileutr_monai.inference.inferers import AutocastInferer
from mobileutr_monai.networks import CudaGraphTraining, MobileUtr
from mobileutr_monai.networks.blocks import SelfAttention
from mobileutr_monai.networks.mobileutr import SIZE_DIVISOR

STEPS_PER_TURN = 3
EQUALITY_TOLERANCE = 1e-10
"""Largest difference in float64 between the plain version's logits and ours, as for the authors' own logits."""


class Version(NamedTuple):
    """How a version runs the network."""

    name: str
    explicit_attention: bool
    memory_format: torch.memory_format
    dtype: str
    graphs: bool = False


VERSIONS = (
    Version("plain", True, torch.contiguous_format, "float32"),
    Version("sdpa", False, torch.contiguous_format, "float32"),
    Version("channels_last", False, torch.channels_last, "float32"),
    Version("ours", False, torch.channels_last, "bfloat16"),
)
GPU_VERSIONS = (*VERSIONS, Version("graphs", False, torch.channels_last, "bfloat16", graphs=True))


def explicit_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Returns softmax(q k^T / sqrt(head_dim)) v, with the attention matrix in memory."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return torch.softmax(scores, dim=-1) @ value


def swap_attention(function: Any) -> AbstractContextManager[Any]:
    """Makes every ``Attention`` call ``function`` while the context is open; costs nothing in the calls themselves."""
    return mock.patch.object(F, "scaled_dot_product_attention", function)


class TrainingStep:
    """One version with its own network, optimizer and batch."""

    def __init__(self, version: Version, batch_size: int, size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.version = version
        network = MobileUtr(2, 3, 1).to(device).train()
        network.to(memory_format=version.memory_format)  # type: ignore[call-overload]  # torch's overloads lack it
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=version.graphs)
        self.loss = DiceCELoss(sigmoid=True, lambda_ce=0.5)
        self.inferer = AutocastInferer(version.dtype)
        self.image = torch.randn(batch_size, 3, size, size, device=device)
        self.label = (torch.rand(batch_size, 1, size, size, device=device) > 0.5).float()
        self.network = CudaGraphTraining(network, self.image.shape, version.dtype) if version.graphs else network

    def run(self) -> None:
        """Runs one step."""
        with swap_attention(explicit_attention) if self.version.explicit_attention else nullcontext():
            self.optimizer.zero_grad()
            loss = self.loss(self.inferer(self.image, self.network), self.label)
            loss.backward()
            self.optimizer.step()


@torch.no_grad()
def check_plain_equals_ours(size: int) -> float:
    """Returns the largest difference between the two versions' logits in float64.

    Raises:
        RuntimeError: it is above ``EQUALITY_TOLERANCE``, or an attention did not go through the explicit function.
    """
    torch.manual_seed(0)
    network = MobileUtr(2, 3, 1).double().eval()
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    ours = network(image)
    with swap_attention(mock.Mock(wraps=explicit_attention)) as counted:
        plain = network(image)
    difference = float((plain - ours).abs().max())
    attentions = sum(isinstance(module, SelfAttention) for module in network.modules())
    if difference > EQUALITY_TOLERANCE or counted.call_count != attentions:
        raise RuntimeError(
            f"the plain version is not ours: logits differ by {difference:.1e}, "
            f"{counted.call_count} of {attentions} attentions were explicit"
        )
    return difference


def measure(batch_size: int, size: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Returns a row per version, see ``summarise``."""
    versions = GPU_VERSIONS if device.type == "cuda" else VERSIONS
    steps = {
        version.name: wait_for(device, TrainingStep(version, batch_size, size, device).run) for version in versions
    }
    rows = summarise(take_turns(steps, rounds, STEPS_PER_TURN), VERSIONS[0].name)
    return [{"version": name, **row} for name, row in rows.items()]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = ["| version | median | interquartile range | times faster |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        times = f"{row['median_s']:.3f} s | {row['q1_s']:.3f} to {row['q3_s']:.3f} s"
        lines.append(f"| {row['version']} | {times} | {row['speedup']:.2f} |")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times a training step of MobileUtr, ours against a plain one.")
    parser.add_argument("--rounds", type=int, default=5, help=f"turns of each version, {STEPS_PER_TURN} steps each")
    parser.add_argument("--batch-size", type=int, default=8, help="images in a step")
    parser.add_argument("--size", type=int, default=256, help=f"sides in pixels, a multiple of {SIZE_DIVISOR}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    for name in ("rounds", "batch_size", "size", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {getattr(options, name)}")
    if options.size % SIZE_DIVISOR:
        parser.error(f"--size must be a multiple of {SIZE_DIVISOR}, got {options.size}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks, measures, prints the table and writes the JSON."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    machine = describe_machine(device)
    difference = check_plain_equals_ours(options.size)
    rows = measure(options.batch_size, options.size, options.rounds, device)
    print(f"{machine['cpu']} ({', '.join(machine['flags'])}), {machine['threads']} threads, torch {machine['torch']}")
    print(
        f"batch {options.batch_size} at {options.size} x {options.size}; logits agree to {difference:.1e} in float64\n"
    )
    print(format_table(rows))
    if options.output:
        settings = {name: getattr(options, name) for name in ("rounds", "batch_size", "size")}
        settings |= {"steps_per_turn": STEPS_PER_TURN, "network": "MobileUtr 2D base, 3 channels in, 1 out"}
        report = {"settings": settings, "machine": machine, "float64_difference": difference, "versions": rows}
        write_json(options.output, report)


if __name__ == "__main__":
    main()
