"""Resampling: MONAI's own result, also next to MONAI Label's strings."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Spacingd
from scipy.spatial.transform import Rotation
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mobileutr_monai.transforms import ResampleToSpacingd, spacing


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


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [tensor.untyped_storage().nbytes() for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)]
        self.bytes = max(self.bytes, *made, 0)
        return result


@pytest.fixture
def few_voxels(monkeypatch):
    monkeypatch.setattr(spacing, "_VOXELS_AT_ONCE", 4096)


def there_and_back(transform, voxel, degrees=(0, 0, 0)):
    """Returns a volume resampled to 1 mm, probabilities of three labels on its own grid, and the largest tensor.

    That is its size, there and back, as a share of the larger one of what goes in and what comes out.
    """
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(voxel)
    affine[:3, 3] = (-30, 20, 11)
    generator = torch.Generator().manual_seed(0)
    image = MetaTensor(torch.rand((1, 40, 50, 30), generator=generator), affine=torch.tensor(affine))
    with LargestTensor() as there:
        data = transform({"image": image})
    data["pred"] = MetaTensor(torch.rand((3, *data["image"].shape[1:]), generator=generator).softmax(0))
    invert = Invertd(keys="pred", transform=Compose([transform]), orig_keys="image", nearest_interp=False)
    with LargestTensor() as back:
        pred = invert(data)["pred"]
    most = max(image.nbytes, data["image"].nbytes)
    return data["image"], pred, (there.bytes / most, back.bytes / (3 * most))


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, 20, 5), (0, 0, 180)])
@pytest.mark.parametrize("voxel", [(0.7, 0.7, 1.0), (2.0, 1.5, 1.0), (0.7, 0.9, 3.0)])
def test_in_parts_it_is_the_same_there_and_back(few_voxels, voxel, degrees):
    expected, expected_pred, _ = there_and_back(Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), voxel, degrees)
    found, pred, _ = there_and_back(ResampleToSpacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), voxel, degrees)
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), atol=2e-7, rtol=0)
    torch.testing.assert_close(pred.as_tensor(), expected_pred.as_tensor(), atol=2e-7, rtol=0)
    assert torch.equal(pred.argmax(0).as_tensor(), expected_pred.argmax(0).as_tensor())
    assert torch.equal(found.affine, expected.affine) and torch.equal(pred.affine, expected_pred.affine)
    traces = [{**image.applied_operations[0], "class": "", "id": 0} for image in (found, expected)]
    assert len({str(sorted(trace.pop("extra_info").items())) for trace in traces}) == 1
    assert traces[0] == traces[1]


@pytest.mark.parametrize("voxel", [(0.7, 0.7, 1.0), (2.0, 1.5, 1.0)])
def test_in_parts_nothing_is_made_that_is_larger_than_the_result(few_voxels, voxel):
    *_, largest = there_and_back(ResampleToSpacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), voxel)
    assert max(largest) <= 1
    *_, largest = there_and_back(Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0)), voxel)
    assert min(largest) >= 2, "what MONAI makes; otherwise this test sees nothing"


@pytest.mark.parametrize("options", [{"mode": "nearest"}, {"padding_mode": "zeros"}, {"align_corners": True}])
def test_other_ways_of_resampling_are_those_of_monai(few_voxels, options):
    expected, *_ = there_and_back(Spacingd(keys="image", pixdim=(1.0, 1.0, 1.0), **options), (0.7, 0.7, 1.0))
    found, *_ = there_and_back(ResampleToSpacingd(keys="image", pixdim=(1.0, 1.0, 1.0), **options), (0.7, 0.7, 1.0))
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), atol=2e-7, rtol=0)
