"""Whole epochs of training with loading and augmentation: images a second, ours against a plain path.

Both run the bundle's own ``train.json`` on its shipped samples, repeated, in batches of 8: transforms, network, loss
and optimizer are the same. An epoch is every image once. Versions:

- ``plain``: nothing cached, so that every image is read, decoded and resized in every epoch; float32, channels-first,
  attention with its matrix in memory. It stands for the authors' code path, whose arithmetic is the same.
- ``ours``: the deterministic part cached, channels-last, bfloat16 where the CPU has it: as the bundle trains. On a GPU
  also with ``gpu_train.json``: augmentation there, CUDA graphs.

On a GPU eight processes load for ``plain``. The versions take turns, an epoch each. The step alone is in
``bench_training_step``.

Example::

    python benchmarks/bench_training.py bundles/breast_ultrasound_segmentation --threads 2 \
        --output benchmarks/results/training.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from bench_training_step import explicit_attention, swap_attention
from measuring import describe_machine, summarise, take_turns, wait_for, write_json
from monai.bundle import ConfigParser
from monai.engines import default_prepare_batch
from monai.utils import convert_to_tensor, set_determinism

LOADERS = 8
"""Processes that load and augment for ``plain`` on a GPU."""


def make_data(bundle: Path, folder: Path, number: int) -> None:
    """Copies the samples under as many names, with a datalist that trains on all of them."""
    images = sorted((bundle / "sample_data" / "images").iterdir())
    items = []
    for index in range(number):
        image = images[index % len(images)]
        mask = bundle / "sample_data" / "masks" / "0" / f"{image.stem}.png"
        names = f"images/{index:03}{image.suffix}", f"masks/0/{index:03}.png"
        for source, name in zip((image, mask), names, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        items.append({"image": names[0], "label": [names[1]]})
    datalist = {"training": items, "validation": items[:1], "mask_coding": "two-valued"}
    (folder / "datalist.json").write_text(json.dumps(datalist), encoding="utf-8")


def make_epoch(bundle: Path, folder: Path, plain: bool, device: torch.device) -> Callable[[], object]:
    """Returns what trains one epoch."""
    names = ["train.json"] if plain or device.type == "cpu" else ["train.json", "gpu_train.json"]
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in names])
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": bundle, "dataset_dir": folder, "device": device})
    if plain:
        parser.update({"memory_format": "$torch.contiguous_format", "train#dataset#cache_rate": 0.0})
        parser.update({"train#inferer": {"_target_": "SimpleInferer"}})
        if device.type == "cuda":
            parser.update({"num_workers": LOADERS, "train#dataloader#persistent_workers": True})
    set_determinism(0)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, device.type == "cuda"
    network, loader = parser.get_parsed_content("train#trainer#network"), parser.get_parsed_content("train#dataloader")
    prepare = parser.get_parsed_content("train#random") if "gpu_train.json" in names else default_prepare_batch
    loss, optimizer = parser.get_parsed_content("loss"), parser.get_parsed_content("optimizer")
    inferer = parser.get_parsed_content("train#inferer")

    def run() -> None:
        network.train()
        with swap_attention(explicit_attention) if plain else nullcontext():
            for batch in loader:
                image, label = (convert_to_tensor(value, track_meta=False) for value in prepare(batch, device))
                optimizer.zero_grad()
                loss(inferer(image, network), label).backward()
                optimizer.step()

    return wait_for(device, run)


def main() -> None:
    """Measures, prints and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    machine = describe_machine(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(arguments.bundle, folder, arguments.images)
        epochs = {name: make_epoch(arguments.bundle, folder, name == "plain", device) for name in ("plain", "ours")}
        rows: dict[str, dict[str, Any]] = summarise(take_turns(epochs, arguments.rounds), "plain")
    for version, row in rows.items():
        row["images_per_second"] = arguments.images / row["median_s"]
        print(
            f"{version}: {row['images_per_second']:.2f} images/s, x{row['speedup']:.2f} (CPU x{row['cpu_speedup']:.2f})"
        )
    settings = {"images": arguments.images, "rounds": arguments.rounds}
    write_json(arguments.output, {"machine": machine, "settings": settings, "versions": rows})


if __name__ == "__main__":
    main()
