"""Random transforms of 2D batches on a CPU: ``BatchAugmentation`` against kornia, in ms of CPU time per batch.

Both apply a flip, an affine and four intensity transforms of like ranges and the same probabilities, in turns.
kornia is not a dependency: ``pip install --no-deps kornia kornia_rs``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import kornia
import torch
from kornia import augmentation
from monai.transforms import (
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
)

from mobileutr_monai.transforms import BatchAugmentation

BATCH, SIDE, ROUNDS, WARM_UP = 16, 256, 60, 5
BOTH = ("image", "label")


def _make_ours() -> BatchAugmentation:
    transforms = [
        RandFlipd(BOTH, spatial_axis=1, prob=0.5),
        RandAffined(
            BOTH,
            prob=0.5,
            rotate_range=0.35,
            translate_range=(20, 20),
            scale_range=(0.2, 0.2),
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        RandScaleIntensityd("image", factors=0.2, prob=0.5),
        RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.3),
        RandGaussianNoised("image", std=0.1, prob=0.2),
        RandGaussianSmoothd("image", sigma_x=(0.3, 1.5), sigma_y=(0.3, 1.5), prob=0.2),
    ]
    return BatchAugmentation(transforms).set_random_state(0)


def _make_kornia() -> Any:
    shift = 20 / SIDE
    return augmentation.AugmentationSequential(
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.RandomAffine(degrees=20, translate=(shift, shift), scale=(0.8, 1.2), p=0.5),
        augmentation.RandomBrightness((0.8, 1.2), clip_output=False, p=0.5),
        augmentation.RandomGamma((0.7, 1.5), p=0.3),
        augmentation.RandomGaussianNoise(std=0.1, p=0.2),
        augmentation.RandomGaussianBlur((7, 7), (0.3, 1.5), p=0.2),
        data_keys=["input", "mask"],
    )


def main() -> None:
    """Measures both in turns and prints medians and quartiles."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    image, label = torch.rand(BATCH, 3, SIDE, SIDE), (torch.rand(BATCH, 1, SIDE, SIDE) > 0.5).float()
    ours, theirs = _make_ours(), _make_kornia()
    runs: dict[str, Callable[[], object]] = {
        "BatchAugmentation": lambda: ours({"image": image, "label": label}, torch.device("cpu")),
        "kornia": lambda: theirs(image, label),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(WARM_UP + ROUNDS):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(1000 * (time.process_time() - start))
    print(f"kornia {kornia.__version__}, torch {torch.__version__}, 1 thread, {BATCH} images of {SIDE} x {SIDE} x 3")
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values[WARM_UP:], n=4)
        print(f"{name}: {middle:.0f} ms of CPU time per batch (quartiles {low:.0f} to {high:.0f})")
    normalised = augmentation.RandomGamma((0.7, 1.5), p=1.0)(3 * torch.randn(2, 3, 32, 32))
    print(f"kornia's gamma of normalised images: {float(normalised.min())} to {float(normalised.max())}")


if __name__ == "__main__":
    main()
