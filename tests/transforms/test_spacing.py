"""Resampling: MONAI's own result, also beside MONAI Label's strings."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Spacingd

from mobileutr_monai.transforms import ResampleToSpacingd


@pytest.fixture
def path(tmp_path):
    values = np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32)
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 1.5, 1.0, 1.0])), path)
    return path


def resample(transform, path, **extra):
    load = Compose([LoadImaged(keys="image", image_only=True), EnsureChannelFirstd(keys="image"), transform])
    return load, load({"image": str(path), **extra})


def test_equals_monai_beside_the_entries_of_monai_label(path):
    entries = {"image_path": "studies", "description": "text", "label_names": {"a": 1}}
    _, expected = resample(Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), path)
    _, found = resample(ResampleToSpacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), path, **entries)
    assert torch.equal(found["image"], expected["image"])
    assert found["image"].pixdim.tolist() == [1.0, 1.0, 1.0]
    assert {key: found[key] for key in entries} == entries


def test_is_inverted_to_the_grid_of_the_file(path):
    preprocessing, data = resample(ResampleToSpacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), path, image_path="x")
    data["pred"] = MetaTensor(torch.ones_like(data["image"]), meta=data["image"].meta)
    inverted = Invertd(keys="pred", transform=preprocessing, orig_keys="image")(data)
    assert tuple(inverted["pred"].shape) == (1, 12, 10, 8)
