"""Pre- and postprocessing in the graph: what a bundle's transforms do, for every size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.export.end_to_end import EndToEndModel, check_preprocessing
from mobileutr_monai.inference.segmenter import Segmenter

SIZE = (64, 96)
SIDES = [(64, 96), (63, 97), (40, 200), (500, 33), (333, 1000), (16, 16)]


def make_segmenter(breast: Path, **overrides: object) -> Segmenter:
    parser = ConfigParser()
    parser.read_config(str(breast / "configs" / "inference.json"))
    parser.read_meta(str(breast / "configs" / "metadata.json"))
    parser.update({"bundle_root": str(breast), "image_size": list(SIZE), **overrides})
    runner = parser.get_parsed_content("runner")
    if "out_channels" not in overrides:
        runner.load_network()
    segmenter: Segmenter = runner.segmenter
    segmenter.network.weights_loaded = True  # random ones will do to compare two ways of computing
    segmenter.network.eval()
    return segmenter


def make_picture(rows: int, columns: int) -> Image.Image:
    random = np.random.default_rng(rows)
    small = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return small.resize((columns, rows), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("rows", "columns"), SIDES)
@pytest.mark.parametrize("out_channels", [1, 3])
@torch.inference_mode()
def test_gives_the_label_map_of_the_bundle(
    rows: int, columns: int, out_channels: int, breast: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    segmenter = make_segmenter(breast, min_peak=0.0, **({} if out_channels == 1 else {"out_channels": out_channels}))
    picture = make_picture(rows, columns)
    picture.save(tmp_path / "picture.png")
    expected = segmenter.make_label_map(segmenter.infer([segmenter.reader.read([tmp_path / "picture.png"])])[0])
    model = EndToEndModel(segmenter.network, SIZE, segmenter.threshold)
    found = model(torch.from_numpy(np.array(picture))).numpy()
    assert found.shape == (rows, columns)
    assert 100 * (found != expected).mean() <= MAX_MISMATCH_PERCENT


@pytest.mark.parametrize("out_channels", [1, 3])
@torch.inference_mode()
def test_leaves_out_labels_as_the_bundle_does(out_channels: int, breast: Path, tmp_path: Path) -> None:
    make_picture(90, 70).save(tmp_path / "picture.png")
    kept = []
    for min_peak in (0.0, 0.3, 0.5, 0.9, 1.0):
        torch.manual_seed(0)
        segmenter = make_segmenter(breast, min_peak=min_peak, out_channels=out_channels)
        expected = segmenter.make_label_map(segmenter.infer([segmenter.reader.read([tmp_path / "picture.png"])])[0])
        found = EndToEndModel(segmenter.network, SIZE, segmenter.threshold, min_peak)(
            torch.from_numpy(np.array(make_picture(90, 70)))
        ).numpy()
        assert 100 * (found != expected).mean() <= MAX_MISMATCH_PERCENT
        kept.append(expected.any())
    assert kept[0] and not kept[-1]


def test_onnx_takes_every_size(end_to_end_onnx: Path, breast: Path, tmp_path: Path) -> None:
    segmenter = make_segmenter(breast, image_size=[256, 256])
    session = onnxruntime.InferenceSession(end_to_end_onnx)
    for rows, columns in ((256, 256), (100, 300), (700, 513)):
        picture = make_picture(rows, columns)
        picture.save(tmp_path / "picture.png")
        expected = segmenter.make_label_map(segmenter.infer([segmenter.reader.read([tmp_path / "picture.png"])])[0])
        (found,) = session.run(None, {"pixels": np.asarray(picture)})
        assert (found.shape, found.dtype) == ((rows, columns), np.uint8)
        assert 100 * (found != expected).mean() <= MAX_MISMATCH_PERCENT


@pytest.mark.parametrize(
    ("overrides", "size", "message"),
    [
        ({"crop_to_tissue": True}, SIZE, "the bundle has .*CropToRegiond"),
        ({"intensity": {"_target_": "ScaleIntensityd", "keys": "image"}}, SIZE, "the bundle has .*ScaleIntensityd"),
        ({"intensity#channel_wise": True}, SIZE, "other settings"),
        ({}, (32, 32), "make them the same"),
    ],
)
def test_rejects_preprocessing_that_it_does_not_know(
    overrides: dict[str, object], size: tuple[int, int], message: str, breast: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        check_preprocessing(make_segmenter(breast, **overrides).reader.preprocessing, size)
