"""Trains several networks side by side on one GPU until a deadline.

    python scripts/gpu/train.py PLAN --packs FOLDER --output OUT --seconds 500

A step (augmentation, forward and backward pass, AdamW, moving average) is one CUDA graph; the networks take turns, each
on a stream of its own, so that the small kernels of one fill the gaps of the others. The learning rate follows the
clock: every run ends at the deadline with its schedule complete. Weights, log and scores of the selection lists are
written as they come. On a CPU the same steps run without graphs, for a test of a plan before a GPU is there:
``--steps 2 --batch_size 2``.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augment import AUGMENTATIONS, augment, letterbox, standardize
from banded import use_banded
from PIL import Image
from plans import PLANS, Run
from teacher import make_teacher
from torch import nn
from torch.nn import functional as F

AVERAGE_MOMENTUM = 0.005
OF_TEACHER = 0.7
"""Share of the teacher's probabilities in what the cross entropy compares a network with; the mask has the rest."""
WARM_UP = 0.08
"""Share of a run in which the learning rate rises."""
SCORED_AT = (0.5, 0.75, 0.9)
"""Shares of a run at which the selection list is scored, besides its end."""


class Pack:
    """Images and masks of one bundle on a device, uint8."""

    def __init__(self, path: Path, device: torch.device, size: int) -> None:
        with zipfile.ZipFile(path) as archive:
            packed = json.loads(archive.read("index.json"))
            names = list(packed["items"])
            files = [(archive.read(f"{i}.webp"), archive.read(f"{i}.png")) for i in range(len(names))]
        self.index = {name: i for i, name in enumerate(names)}
        self.sets = list(packed["items"].values())
        self.lists = packed["lists"]

        def decode(file: tuple[bytes, bytes]) -> tuple[np.ndarray, np.ndarray]:
            image, mask = file
            with Image.open(io.BytesIO(image), formats=("WEBP",)) as picture:
                pixels = picture.convert(packed["mode"])
                if pixels.size != (size, size):
                    pixels = pixels.resize((size, size), Image.Resampling.BOX)
                values = np.asarray(pixels)
            with Image.open(io.BytesIO(mask), formats=("PNG",)) as picture:
                labels = np.asarray(picture.convert("L").resize((size, size), Image.Resampling.NEAREST)) > 127
            return values.reshape(size, size, -1).transpose(2, 0, 1), labels[None]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded = list(pool.map(decode, files))
        self.images = torch.from_numpy(np.stack([image for image, _ in decoded])).to(device)
        self.masks = torch.from_numpy(np.stack([mask for _, mask in decoded]).astype(np.uint8)).to(device)

    def pick(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[indices].float() / 255
        return image.expand(-1, 3, -1, -1), self.masks[indices].float()


class Trainer:
    """One network, its data, optimiser and average; ``step`` runs one step on its stream."""

    def __init__(self, run: Run, pack: Pack, device: torch.device, batch_size: int, banded: bool, graph: bool) -> None:
        self.run, self.pack, self.device = run, pack, device
        torch.manual_seed(run.seed)
        network = run.make()
        self.teacher: nn.Module | None = None
        if run.teacher:
            teacher = make_teacher(pretrained=False).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.teacher = teacher.eval().requires_grad_(False)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if banded:
            use_banded(self.network)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self._follow = [
            (average, newest)
            for average, newest in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            )
            if average.is_floating_point()
        ]
        self.rate = torch.tensor(1e-6, device=device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.rate, weight_decay=0.01, fused=True, capturable=device.type == "cuda"
        )
        self.batch_size = batch_size
        self.indices = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.loss = torch.zeros((), device=device)
        self.random = np.random.RandomState(run.seed)
        self.pools, self.shares = self._find_pools()
        self.steps = 0
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.graph: Any = None
        self.waiting: list[Any] = []
        # Most CPUs emulate bfloat16, several times slower than float32.
        self.bfloat16 = device.type == "cuda" or "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
        self.limit: int | None = None
        self.begin = self.end = 0.0
        self.due = list(SCORED_AT) if run.milestones else []
        if graph and device.type == "cuda":
            self._capture()

    def _find_pools(self) -> tuple[list[np.ndarray], np.ndarray]:
        listed = self.pack.lists[self.run.datalist]
        names = [name for section in self.run.sections for name in listed[section]]
        pools, shares = [], []
        for name, share in self.run.sampling.items():
            indices = [self.pack.index[i] for i in names if self.pack.sets[self.pack.index[i]] == name]
            if indices and share:
                pools.append(np.array(indices))
                shares.append(share)
        return pools, np.array(shares) / sum(shares)

    def draw(self) -> torch.Tensor:
        """Returns the indices of a batch: sets by their share, images of a set alike often."""
        counts = self.random.multinomial(self.batch_size, self.shares)
        drawn = [self.random.choice(pool, n) for pool, n in zip(self.pools, counts, strict=True)]
        return torch.from_numpy(np.concatenate(drawn))

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.network.load_state_dict(state)
        self.average.load_state_dict(state)

    def _compute(self) -> None:
        image, mask = augment(*self.pack.pick(self.indices), AUGMENTATIONS[self.run.augmentation])
        image = standardize(image).contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        soft = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(image)
            if self.teacher is not None:
                with torch.no_grad():
                    soft = torch.lerp(mask, self.teacher(image).float().sigmoid(), OF_TEACHER)
        loss = compute_loss(logits.float(), mask, soft)
        loss.backward()
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.network.parameters() if p.grad is not None], foreach=True
        )
        # The fused optimiser divides by grad_scale and leaves a step out where found_inf is 1.
        self.optimizer.grad_scale = (norm / 5).clamp(min=1.0).nan_to_num(1.0)  # type: ignore[attr-defined]
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        averages, newest = [a for a, _ in self._follow], [n for _, n in self._follow]
        torch._foreach_lerp_(averages, newest, AVERAGE_MOMENTUM)
        self.loss.lerp_(loss.detach(), 0.02)

    def _capture(self) -> None:
        assert self.stream is not None
        self.indices.copy_(self.draw())
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self._compute()
        torch.cuda.current_stream().wait_stream(self.stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self._compute()
        torch.cuda.synchronize()

    def step(self, rate: float) -> None:
        indices = self.draw()
        if self.stream is None:
            self.indices.copy_(indices)
            self.rate.fill_(rate)
            self._compute()
        else:
            if len(self.waiting) >= 3:
                self.waiting.pop(0).synchronize()
            with torch.cuda.stream(self.stream):
                self.indices.copy_(indices.pin_memory(), non_blocking=True)
                self.rate.fill_(rate)
                if self.graph is None:
                    self._compute()
                else:
                    self.graph.replay()
                event = torch.cuda.Event()
                event.record(self.stream)
                self.waiting.append(event)
        self.steps += 1
        if self.steps <= 400 and self.steps % 50 == 0:
            self.follow_at_once()

    def follow_at_once(self) -> None:
        """Makes the average the newest weights: early in a run the old ones are worth nothing."""
        with torch.no_grad(), torch.cuda.stream(self.stream):
            for average, newest in self._follow:
                average.copy_(newest)

    def progress(self, now: float) -> float:
        return min(1.0, (now - self.begin) / (self.end - self.begin))

    def wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()
        self.waiting.clear()


def compute_loss(logits: torch.Tensor, mask: torch.Tensor, soft: torch.Tensor | None = None) -> torch.Tensor:
    """Half of the cross entropy and one minus Dice over the batch, as the bundles' ``DiceCELoss``.

    Args:
        soft: what the cross entropy is to; the mask by default. With a teacher's probabilities it counts in full.
    """
    probability = logits.sigmoid()
    dice = (2 * (probability * mask).sum() + 1e-5) / (probability.sum() + mask.sum() + 1e-5)
    if soft is None:
        return 0.5 * F.binary_cross_entropy_with_logits(logits, mask) + 1 - dice
    return F.binary_cross_entropy_with_logits(logits, soft) + 1 - dice


@torch.no_grad()
def score(network: nn.Module, pack: Pack, names: list[str], change: Callable | None = None) -> dict[str, list[float]]:
    """Returns the Dice of each image at the network's size; for images without a label, the share that is predicted."""
    values: dict[str, list[float]] = {}
    for start in range(0, len(names), 64):
        part = names[start : start + 64]
        indices = torch.tensor([pack.index[name] for name in part], device=pack.images.device)
        image, mask = pack.pick(indices)
        if change is not None:
            image, mask = change(image, mask)
        image = standardize(image).contiguous(memory_format=torch.channels_last)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=image.device.type == "cuda"):
            predicted = (network(image).float() >= 0).float()
        both, sums = (predicted * mask).sum((1, 2, 3)), predicted.sum((1, 2, 3)) + mask.sum((1, 2, 3))
        empty = mask.sum((1, 2, 3)) == 0
        dice = torch.where(empty, predicted.mean((1, 2, 3)), 2 * both / sums.clamp_min(1))
        for name, value in zip(part, dice.tolist(), strict=True):
            values.setdefault(pack.sets[pack.index[name]], []).append(round(value, 5))
    return values


def score_selection(trainer: Trainer, limit: int | None = None) -> dict[str, Any]:
    """Returns the scores of the average on the selection sections, plain and between bars."""
    listed = trainer.pack.lists[trainer.run.datalist]
    scores: dict[str, Any] = {}
    for section in trainer.run.selection:
        if section in listed:
            names = listed[section][:limit]
            scores[section] = score(trainer.average, trainer.pack, names)
            scores[section + "_letterboxed"] = score(
                trainer.average, trainer.pack, names, lambda x, y: letterbox(x, y, 0.6, 0)
            )
    return scores


def find_rate(progress: float, peak: float) -> float:
    """Returns the learning rate of a cosine with a linear start."""
    if progress < WARM_UP:
        return peak * max(progress, 1e-3) / WARM_UP
    return peak * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP)))) + 1e-6


def train(trainers: list[Trainer], end: float, log: Callable[..., None], save: Callable, max_steps: int) -> None:
    """Lets trainers take turns until ``end``; those whose own end it is are scored and saved."""
    last_log, rounds = time.monotonic(), 0
    for trainer in trainers:
        trainer.begin = trainer.begin or time.monotonic()
    while (now := time.monotonic()) < end and rounds < max_steps:
        for trainer in trainers:
            for _ in range(trainer.run.turns):
                trainer.step(find_rate(trainer.progress(now), trainer.run.rate))
        rounds += 1
        if now - last_log > 10:
            last_log = now
            for trainer in trainers:
                log(trainer, trainer.progress(now), loss=round(float(trainer.loss), 4))
        for trainer in trainers:
            if trainer.due and trainer.progress(now) >= trainer.due[0]:
                trainer.due.pop(0)
                trainer.wait()
                report(trainer, trainer.progress(now), log)
                save(trainer)
    for trainer in trainers:
        trainer.wait()
    for trainer in trainers:
        if trainer.end <= end:
            report(trainer, 1.0, log)
            save(trainer)


def report(trainer: Trainer, progress: float, log: Callable[..., None]) -> None:
    """Scores a trainer's average on its selection lists and logs the means."""
    scores = score_selection(trainer, trainer.limit)
    means = {
        f"{section}/{name}": round(float(np.mean(values)), 4)
        for section, sets in scores.items()
        for name, values in sets.items()
    }
    log(trainer, progress, **means)
    trainer.last_scores = scores  # type: ignore[attr-defined]


def run_plan(arguments: argparse.Namespace) -> None:
    """Trains what the plan lists, stage by stage."""
    began = time.monotonic()
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = arguments.search
    arguments.output.mkdir(parents=True, exist_ok=True)
    log_file = (arguments.output / f"{arguments.plan}_log.jsonl").open("a", encoding="utf-8")

    def log(trainer: Trainer | None, progress: float, **values: Any) -> None:
        line = {"t": round(time.monotonic() - began, 1), "progress": round(progress, 3), **values}
        if trainer is not None:
            line = {"run": trainer.run.name, "steps": trainer.steps, **line}
        text = json.dumps(line)
        print(text, flush=True)
        log_file.write(text + "\n")
        log_file.flush()

    def save(trainer: Trainer) -> None:
        all_scores[trainer.run.name] = {
            "steps": trainer.steps,
            "batch_size": trainer.batch_size,
            "parameters": sum(p.numel() for p in trainer.network.parameters()),
            **trainer.last_scores,  # type: ignore[attr-defined]
        }
        _write(arguments.output / f"{arguments.plan}_scores.json", json.dumps(all_scores).encode())
        if trainer.run.keep:
            data = io.BytesIO()
            state = {k: v.detach().cpu().contiguous() for k, v in trainer.average.state_dict().items()}
            torch.save(state, data)
            _write(arguments.output / f"{trainer.run.name}.pt", data.getvalue())

    all_scores: dict[str, Any] = {}
    packs: dict[str, Pack] = {}
    trainers: dict[str, Trainer] = {}
    stages = PLANS[arguments.plan]
    for run in (run for stage in stages for run in stage.runs):
        if run.name in trainers:
            continue
        if (key := f"{run.pack}{run.size}") not in packs:
            packs[key] = Pack(arguments.packs / f"{run.pack}.pack", device, run.size)
        trainers[run.name] = Trainer(
            run, packs[key], device, arguments.batch_size or run.batch_size, arguments.banded, not arguments.eager
        )
        trainers[run.name].limit = 2 if arguments.steps else None
        log(trainers[run.name], 0.0, ready=True)
    # Scoring at the end takes a second each.
    now = time.monotonic()
    end = began + arguments.seconds - 2 - 1.5 * len(stages[-1].runs)
    ends = []
    for stage in stages:
        now += (end - now) * stage.share
        ends.append(now)
        for run in stage.runs:
            trainers[run.name].end = now
    for stage, stage_end in zip(stages, ends, strict=True):
        for trainer in (trainers[run.name] for run in stage.runs):
            if trainer.steps == 0 and (start := trainer.run.start):
                other = trainers.get(start)
                trainer.load(other.average.state_dict() if other else torch.load(start, weights_only=True))
            if trainer.teacher is not None:
                other = trainers.get(trainer.run.teacher)
                state = other.average.state_dict() if other else torch.load(trainer.run.teacher, weights_only=True)
                trainer.teacher.load_state_dict(state)
        train([trainers[run.name] for run in stage.runs], stage_end, log, save, arguments.steps or 10**9)
    if device.type == "cuda":
        log(None, 1.0, peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 1), card=torch.cuda.get_device_name())


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(path.suffix + ".tmp")
    part.write_bytes(data)
    part.replace(path)


def main(given: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", choices=sorted(PLANS))
    parser.add_argument("--packs", type=Path, required=True, help="folder of the files that pack.py writes")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="from the start of this script to its end")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, default=0, help="0: that of each run")
    parser.add_argument("--steps", type=int, default=0, help="end after so many rounds, for a test")
    parser.add_argument("--banded", action="store_true", help="depthwise convolutions as products of banded matrices")
    parser.add_argument("--search", action="store_true", help="let cuDNN search for its fastest convolutions")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    run_plan(parser.parse_args(given))


if __name__ == "__main__":
    main()
