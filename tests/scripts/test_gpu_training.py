"""Training side by side on a GPU, its parts tried on a CPU."""

from __future__ import annotations

import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobileutr_monai.networks import MobileUtr

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "gpu"))
from augment import AUGMENTATIONS, augment, letterbox, standardize
from banded import banded_conv2d, make_bands
from teacher import make_teacher
from train import compute_loss, main


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


def write_pack(path: Path, names: list[str], lists: dict[str, list[str]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        index = {"items": {name: name.split("/")[0] for name in names}, "mode": "L"}
        archive.writestr("index.json", json.dumps({**index, "lists": {"busi_busbra_split1": lists}}))
        for i in range(len(names)):
            image, mask = BytesIO(), BytesIO()
            Image.fromarray(np.full((256, 256), 20 * i, np.uint8)).save(image, "WEBP")
            Image.fromarray(np.eye(256, dtype=bool)).save(mask, "PNG")
            archive.writestr(f"{i}.webp", image.getvalue())
            archive.writestr(f"{i}.png", mask.getvalue())


def run(plan: str, folder: Path, *options: str) -> dict[str, Any]:
    names = [f"{name}/{i}.jpg" for name in ("busi", "busbra", "busi_normal") for i in range(3)]
    lists = {"training": names[:6], "normal_training": names[6:], "validation": names[:2]}
    write_pack(folder / "breast.pack", names, lists)
    arguments = [plan, "--packs", str(folder), "--output", str(folder), "--seconds", "600", "--device", "cpu"]
    main([*arguments, "--steps", "1", "--batch_size", "2", *options])
    scores: dict[str, Any] = json.loads((folder / f"{plan}_scores.json").read_text(encoding="utf-8"))
    return scores


def test_a_plan_runs_to_its_end_and_leaves_log_and_scores(tmp_path: Path) -> None:
    scores = run("one", tmp_path, "--banded")
    assert scores["breast1"]["steps"] == 1
    assert len(scores["breast1"]["validation"]["busi"]) == 2
    assert json.loads((tmp_path / "one_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["progress"] == 1


def test_a_network_learns_what_its_teacher_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    torch.save(MobileUtr(spatial_dims=2, in_channels=3, out_channels=1).state_dict(), "weights/breast1.pt")
    torch.save(make_teacher(pretrained=False).state_dict(), "weights/teacher_breast1.pt")
    assert run("taught_breast", tmp_path)["breast1_taught"]["steps"] == 1


def test_the_cross_entropy_is_least_where_the_teacher_says() -> None:
    mask, soft = torch.tensor([1.0, 0.0]), torch.tensor([0.7, 0.2])
    at = [compute_loss(torch.logit(torch.tensor([p, 0.2])), mask, soft) for p in (0.6, 0.7, 0.999)]
    assert at[1] < at[0]
    assert at[1] < at[2]
    assert compute_loss(torch.logit(soft), mask) != at[1]
