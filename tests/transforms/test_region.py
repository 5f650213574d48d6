"""Cropping to a rectangle that the file tells, and back."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from mobileutr_monai.transforms import CropToRegiond

REGIONS = {"a.dcm": (2, 3, 8, 9), "b.png": None}


@pytest.mark.parametrize("name", REGIONS)
def test_crops_to_the_region_and_puts_the_prediction_back_into_its_place(name):
    values = torch.arange(120.0).reshape(1, 10, 12)
    crop = Compose([CropToRegiond(keys="image", find_region=REGIONS.get)])
    data = crop({"image": MetaTensor(values, meta={"filename_or_obj": name})})
    top, left, bottom, right = REGIONS[name] or (0, 0, 10, 12)
    assert torch.equal(data["image"].as_tensor(), values[:, top:bottom, left:right])

    data["pred"] = MetaTensor(torch.ones_like(data["image"]), meta=data["image"].meta)
    inverted = Invertd(keys="pred", transform=crop, orig_keys="image")(data)["pred"].as_tensor()
    expected = torch.zeros(1, 10, 12)
    expected[:, top:bottom, left:right] = 1
    assert torch.equal(inverted, expected)
