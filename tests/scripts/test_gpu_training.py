"""Training side by side on a GPU, its parts tried on a CPU."""

from __future__ import annotations

import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "gpu"))
from augment import AUGMENTATIONS, augment, letterbox, standardize
from banded import banded_conv2d, make_bands
from train import main


@pytest.mark.parametrize(("groups", "per_group", "each", "kernel"), [(4, 1, 1, 9), (4, 1, 4, 3), (4, 4, 1, 3)])
def test_a_banded_product_is_the_convolution(groups: int, per_group: int, each: int, kernel: int) -> None:
    conv = torch.nn.Conv2d(groups * per_group, groups * each, kernel, padding=kernel // 2, groups=groups).double()
    image = torch.randn(2, groups * per_group, 16, 16, dtype=torch.double)
    bands = make_bands(kernel, 16, image.device).double()
    assert torch.allclose(banded_conv2d(image, conv.weight, conv.bias, groups, bands), conv(image), atol=1e-12)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmented_images_stay_between_0_and_1_and_masks_binary(name: str) -> None:
    torch.manual_seed(0)
    mask = torch.zeros(4, 1, 64, 64)
    mask[:, :, 20:40, 20:40] = 1
    image, changed = augment(torch.rand(4, 3, 64, 64), mask, AUGMENTATIONS[name])
    assert 0 <= image.min() < image.max() <= 1
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    assert standardize(image).mean((1, 2, 3)).abs().max() < 1e-4


def test_a_letterboxed_copy_keeps_its_size_and_the_share_of_the_mask() -> None:
    image, mask = letterbox(torch.ones(1, 3, 64, 64), torch.ones(1, 1, 64, 64), 0.5, 0)
    assert image.shape == (1, 3, 64, 64)
    assert mask.mean() == 0.5
    assert image[..., 0, :].max() == 0


def test_a_plan_runs_to_its_end_and_leaves_log_and_scores(tmp_path: Path) -> None:
    names = [f"{name}/{i}.jpg" for name in ("busi", "busbra", "busi_normal") for i in range(3)]
    lists = {"training": names[:6], "normal_training": names[6:], "validation": names[:2]}
    with zipfile.ZipFile(tmp_path / "breast.pack", "w") as archive:
        index = {"items": {name: name.split("/")[0] for name in names}, "mode": "L"}
        archive.writestr("index.json", json.dumps({**index, "lists": {"busi_busbra_split1": lists}}))
        for i in range(len(names)):
            image, mask = BytesIO(), BytesIO()
            Image.fromarray(np.full((256, 256), 20 * i, np.uint8)).save(image, "WEBP")
            Image.fromarray(np.eye(256, dtype=bool)).save(mask, "PNG")
            archive.writestr(f"{i}.webp", image.getvalue())
            archive.writestr(f"{i}.png", mask.getvalue())
    arguments = ["one", "--packs", str(tmp_path), "--output", str(tmp_path), "--seconds", "600", "--device", "cpu"]
    main([*arguments, "--steps", "1", "--batch_size", "2", "--banded"])
    scores = json.loads((tmp_path / "one_scores.json").read_text(encoding="utf-8"))
    assert scores["breast1"]["steps"] == 1
    assert len(scores["breast1"]["validation"]["busi"]) == 2
    assert json.loads((tmp_path / "one_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["progress"] == 1
