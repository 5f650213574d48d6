"""Random transforms of whole batches do to each image what MONAI's do to it alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandCoarseDropoutd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandZoomd,
)
from monai.utils import convert_to_tensor

from mobileutr_monai.transforms import BatchAugmentation

BOTH = ("image", "label")
SIZE = (24, 24)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(20, 3, *SIZE, generator=generator)
    label = torch.zeros(20, 1, *SIZE)
    label[:, :, 5:12, 8:20] = 1
    return {"image": image, "label": label}


def apply_one_by_one(transforms, batch, seed):
    compose = Compose(transforms).set_random_state(seed)
    done = [compose({key: value[i].clone() for key, value in batch.items()}) for i in range(len(batch["image"]))]
    return tuple(torch.stack([convert_to_tensor(item[key], track_meta=False) for item in done]) for key in BOTH)


def apply_at_once(transforms, batch, seed):
    return BatchAugmentation(transforms).set_random_state(seed)(batch, torch.device("cpu"))


# Parameters whose range is a point, where MONAI draws more often than it uses.
FIXED_AFFINE = {
    "rotate_range": [[0.3, 0.3]],
    "shear_range": [[0.1, 0.1], [-0.05, -0.05]],
    "translate_range": [[3, 3], [-2, -2]],
    "scale_range": [[0.2, 0.2], [-0.1, -0.1]],
}
TRANSFORMS = {
    "flip of rows": lambda: [RandFlipd(BOTH, spatial_axis=0, prob=0.5)],
    "flip of columns": lambda: [RandFlipd(BOTH, spatial_axis=1, prob=0.5)],
    "flip of both": lambda: [RandFlipd(BOTH, prob=0.5)],
    "quarter turns": lambda: [RandRotate90d(BOTH, prob=0.7)],
    "affine, zeros": lambda: [
        RandAffined(BOTH, prob=0.6, mode=("bilinear", "nearest"), padding_mode="zeros", **FIXED_AFFINE)
    ],
    "affine, reflection": lambda: [
        RandAffined(BOTH, prob=0.6, mode=("bilinear", "nearest"), padding_mode="reflection", **FIXED_AFFINE)
    ],
    "all that move": lambda: [
        RandRotate90d(BOTH, prob=0.4),
        RandFlipd(BOTH, spatial_axis=1, prob=0.4),
        RandAffined(BOTH, prob=0.4, mode=("bilinear", "nearest"), padding_mode="zeros", **FIXED_AFFINE),
    ],
    "scale": lambda: [RandScaleIntensityd("image", factors=0.3, prob=0.5)],
    "scale by channel": lambda: [RandScaleIntensityd("image", factors=0.3, channel_wise=True, prob=0.5)],
    "shift": lambda: [RandShiftIntensityd("image", offsets=0.3, prob=0.5)],
    "contrast": lambda: [RandAdjustContrastd("image", gamma=(0.6, 1.6), prob=0.5)],
    "smooth": lambda: [RandGaussianSmoothd("image", sigma_x=(0.3, 1.5), sigma_y=(0.3, 1.5), prob=0.5)],
    "holes": lambda: [
        RandCoarseDropoutd("image", holes=1, max_holes=5, spatial_size=2, max_spatial_size=6, fill_value=2.5, prob=0.5)
    ],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_does_to_each_image_what_the_transform_does_to_it_alone(name, batch):
    expected = apply_one_by_one(TRANSFORMS[name](), batch, 3)
    changed = apply_at_once(TRANSFORMS[name](), batch, 3)
    kept = [torch.equal(image, before) for image, before in zip(expected[0], batch["image"], strict=True)]
    assert 0 < sum(kept) < len(kept)  # the probabilities are MONAI's: some are changed and some are not
    assert torch.allclose(changed[0], expected[0], atol=1e-4)
    assert (changed[1] != expected[1]).float().mean() < 0.002  # ties of the nearest pixel


def test_an_affine_fits_sides_of_different_length():
    images = torch.randn(8, 2, 20, 36, generator=torch.Generator().manual_seed(0))
    batch = {"image": images, "label": (images[:, :1] > 0).float()}
    expected = apply_one_by_one(TRANSFORMS["affine, zeros"](), batch, 1)
    changed = apply_at_once(TRANSFORMS["affine, zeros"](), batch, 1)
    assert not torch.equal(changed[0], images)
    assert torch.allclose(changed[0], expected[0], atol=1e-4)


def test_draws_another_affine_for_each_image_and_seed(batch):
    transforms = [RandAffined(BOTH, prob=1.0, rotate_range=0.5, translate_range=4, padding_mode="zeros")]
    same = {"image": batch["image"][:1].expand(6, -1, -1, -1), "label": batch["label"][:1].expand(6, -1, -1, -1)}
    first, again, other = (apply_at_once(transforms, same, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)
    assert len({round(float(image.sum()), 3) for image in first}) == 6


def test_noise_has_the_drawn_strength():
    images = torch.zeros(400, 1, 16, 16)
    torch.manual_seed(0)
    noised, _ = apply_at_once([RandGaussianNoised("image", std=0.2, prob=0.5)], {"image": images, "label": images}, 0)
    strengths = noised.std((1, 2, 3)).numpy()
    strong = strengths[strengths > 0]
    assert 0.4 < len(strong) / len(strengths) < 0.6
    assert np.quantile(strong, 0.5) == pytest.approx(0.1, abs=0.02)  # uniform from 0 to 0.2
    assert strong.max() < 0.24


@pytest.mark.parametrize("bundle", ["breast_ultrasound", "skin_dermoscopy", "colon_endoscopy"])
def test_takes_the_augmentation_of_every_2d_bundle(bundle):
    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}_segmentation/configs/train.json")
    augment = BatchAugmentation(parser.get_parsed_content("augmentation")).set_random_state(0)
    images = torch.randn(3, 3, 256, 256)
    image, label = augment({"image": images, "label": (images[:, :1] > 1).float()}, "cpu")
    assert image.shape == images.shape and bool(image.isfinite().all())
    assert set(label.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "transforms",
    [
        [RandZoomd(BOTH)],
        [RandFlipd("image")],
        [RandScaleIntensityd("image", factors=0.1), RandFlipd(BOTH)],
        [RandAffined(BOTH), RandAffined(BOTH)],
    ],
    ids=["unknown", "image without its label", "flip behind an intensity", "two affines"],
)
def test_refuses_what_it_cannot_apply_to_batches(transforms):
    with pytest.raises(ValueError, match=r"augmentation.*train without gpu_train"):
        BatchAugmentation(transforms)
