"""A mask of another size than its image is an error when it is read for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image


@pytest.mark.parametrize("size", [(50, 40), (40, 49), (80, 100)])
def test_a_mask_of_another_size_is_named(size: tuple[int, int], breast: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(breast / "configs" / "train.json"))
    parser.update({"bundle_root": breast, "image_size": [32, 32]})
    load = Compose(parser.get_parsed_content("image_transforms") + parser.get_parsed_content("label_transforms"))
    image, mask = tmp_path / "a.png", tmp_path / "a_mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(image)
    for right, shape in ((True, (50, 40)), (False, size[::-1])):
        Image.fromarray(np.eye(*shape, dtype=np.uint8) * 255).save(mask)
        data = {"image": str(image), "label": [str(mask)]}
        if right:
            assert load(data)["label"].shape == (1, 32, 32)
            continue
        with pytest.raises(RuntimeError) as caught:
            load(data)
        error: BaseException = caught.value
        while error.__cause__ is not None:
            error = error.__cause__
        assert str(error).startswith(f"{mask}: is {size[0]} x {size[1]}, the image is 40 x 50; make the label again")
