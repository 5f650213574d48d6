"""The flag for images that are unlike the training images."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from pydicom.data import get_testdata_file

from mobileutr_monai.inference.domain import TrainingDomain, describe_image, name_statistics
from scripts.make_foreign_images import draw_patterns

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/sample_data/images"))
FLAG = "unlike the training images"


def parse(bundle: Path, **overrides: object) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": str(bundle), **overrides})
    return parser


@pytest.mark.parametrize("shape", [(3, 256, 256), (1, 16, 16), (1, 35, 51, 35), (1, 3, 4, 1)])
def test_every_statistic_of_an_image_has_a_name_and_is_finite(shape):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for values in (describe_image(image), describe_image(torch.zeros(shape))):
        assert (
            len(values)
            == len(name_statistics(shape[0], len(shape) - 1))
            == len(set(name_statistics(*shape[:1], len(shape) - 1)))
        )
        assert np.isfinite(values).all()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_samples_of_a_bundle_are_like_its_training_images(bundle):
    parser = parse(bundle)
    quality, reader = parser.get_parsed_content("quality"), parser.get_parsed_content("segmenter").reader
    paths = sorted((bundle / "sample_data" / "images").iterdir())
    distances = [quality.measure_distance(reader.read([path])["image"]) for path in paths]
    assert max(distances) <= quality.domain.max_distance, dict(zip(paths, distances, strict=True))


def test_the_report_flags_what_the_bundle_is_not_for(breast, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    patterns = list(draw_patterns())[::6]
    for number, pattern in enumerate(patterns):
        Image.fromarray(np.clip(pattern, 0, 255).astype(np.uint8)).save(source / f"pattern {number}.png")
    shutil.copyfile(get_testdata_file("CT_small.dcm"), source / "ct.dcm")
    samples = sorted((breast / "sample_data" / "images").iterdir())[:3]
    for path in samples:
        shutil.copyfile(path, source / path.name)
    folders = {"dataset_dir": str(source), "output_dir": str(output)}
    parse(breast, **folders, any_modality=True, overlays=False, workers=0).get_parsed_content("runner").main()
    with (output / "report.csv").open(newline="", encoding="utf-8") as file:
        flagged = {row["case"]: FLAG in row["flag"] for row in csv.DictReader(file)}
    expected = {f"pattern {number}.png": True for number in range(len(patterns))} | {"ct.dcm": True}
    assert flagged == expected | {path.name: False for path in samples}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": [0.0]}, "as many means"),
        ({"precision": ["1 0", "0"]}, "rows and columns"),
        ({"max_distance": 0.0}, "more than 0"),
    ],
)
def test_rejects_what_is_no_domain(values, message):
    domain = {"statistics": ["a", "b"], "mean": [0.0, 0.0], "precision": ["1 0", "0 1"], "max_distance": 3.0}
    assert TrainingDomain(**domain).distance_of(np.array([3.0, 4.0])) == 5.0
    with pytest.raises(ValueError, match=message):
        TrainingDomain(**domain | values)


def test_a_calibration_with_other_statistics_says_so():
    domain = TrainingDomain(["brightness"], [0.0], ["1"], 3.0)
    with pytest.raises(ValueError, match="fit it with calibrate_bundle"):
        domain.measure_distance(torch.zeros(1, 16, 16))
