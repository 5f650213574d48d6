"""Confidence and flags: what they are of which numbers, and that a bundle's are those of its weights."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from mobileutr_monai.bundle.new_bundle import make_bundle
from mobileutr_monai.inference import segmenter
from mobileutr_monai.inference.measure import Measurement
from mobileutr_monai.inference.quality import QualityCheck
from mobileutr_monai.networks import load_weights

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/bundle.yaml"))
WITH_SAMPLES = [bundle for bundle in BUNDLES if (bundle / "sample_data").is_dir()]
SETTINGS = {"image_size": [256, 256], "threshold": 0.5}
LABEL = {
    "raw": [0.0, 0.5, 0.9],
    "dice": [0.0, 0.6, 0.9],
    "min_confidence": 0.7,
    "max_components": 2,
    "size_range": [1.0, 40.0],
    "size_unit": "percent",
}
CALIBRATION = {"weights_sha256": "a" * 64, "settings": SETTINGS, "labels": {"1": LABEL}}


def parse(bundle: Path, **overrides) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": str(bundle), **overrides})
    return parser


def hash_weights(bundle: Path) -> str:
    return hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()


def found(pixels: int = 500, percent: float = 5.0, components: int | None = 1, **values) -> Measurement:
    return Measurement("lesion", pixels=pixels, percent=percent, components=components, **values)


@pytest.mark.parametrize("raw, confidence", [(0.0, 0.0), (0.5, 0.6), (0.7, 0.75), (0.9, 0.9), (1.0, 0.9), (None, 0.0)])
def test_confidence_is_read_off_the_line(raw, confidence):
    assert QualityCheck(CALIBRATION).assess(1, raw, found())[0] == pytest.approx(confidence)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_shipped_confidence_rises_with_the_estimate_within_0_and_1(bundle):
    quality = parse(bundle).get_parsed_content("quality")
    assert list(quality.labels) == list(parse(bundle).get_parsed_content("runner").labels)
    for index in quality.labels:
        values = [quality.assess(index, float(raw), found())[0] for raw in np.linspace(0, 1, 1001)]
        assert (np.diff(values) >= 0).all()
        assert 0 <= values[0] < values[-1] <= 1


@pytest.mark.parametrize(
    "raw, measurement, flags",
    [
        (0.9, found(), []),
        (0.9, found(pixels=0, percent=0.0, components=0), ["nothing found"]),
        (0.6, found(), ["low confidence"]),
        (0.9, found(components=2), []),
        (0.9, found(components=3), ["many pieces"]),
        (0.9, found(components=None), []),
        (0.9, found(percent=0.9), ["unusual size"]),
        (0.9, found(percent=40.1), ["unusual size"]),
        (0.1, found(percent=50.0, components=9), ["low confidence", "many pieces", "unusual size"]),
    ],
)
def test_flags_say_what_is_out_of_the_ordinary(raw, measurement, flags):
    assert QualityCheck(CALIBRATION).assess(1, raw, measurement)[1] == flags


@pytest.mark.parametrize("percent, flags", [(None, []), (0.0, []), (1.0, []), (1.1, ["outside of the stated regions"])])
@pytest.mark.parametrize("calibration", [CALIBRATION, {}], ids=["calibrated", "not calibrated"])
def test_a_mask_that_reaches_out_of_the_stated_tissue_is_flagged(calibration, percent, flags):
    assert QualityCheck(calibration).assess(1, 0.9, found(outside_percent=percent))[1] == flags


def test_nothing_found_has_no_confidence():
    assert QualityCheck(CALIBRATION).assess(1, 0.8, found(pixels=0))[0] is None


@pytest.mark.parametrize("volume, flags", [(2.0, []), (0.5, ["unusual size"]), (None, [])])
def test_size_in_ml_is_checked_where_it_is_known(volume, flags):
    label = LABEL | {"size_unit": "ml", "size_range": [1.0, 3.0]}
    quality = QualityCheck(CALIBRATION | {"labels": {"1": label}})
    assert quality.assess(1, 0.9, found(percent=90.0, volume_ml=volume))[1] == flags


@pytest.mark.parametrize(
    "frames, flags",
    [
        ([100, 110, 95, 100], []),
        ([0, 0, 30, 60, 100, 100], []),
        ([100, 100, 0, 100, 100], ["jumps between frames"]),
        ([100, 100, 200, 100], ["jumps between frames"]),
        ([100], []),
    ],
)
@pytest.mark.parametrize("calibration", [CALIBRATION, {}], ids=["calibrated", "not calibrated"])
def test_a_cine_is_flagged_where_the_area_jumps(calibration, frames, flags):
    measurement = found(pixels=sum(frames), percent=5.0, components=None)
    assert QualityCheck(calibration).assess(1, 0.9, measurement, frames)[1] == flags


def test_size_in_a_cine_is_that_of_the_frames_with_the_label():
    # 3 % of the cine, in a tenth of its frames: 30 % there.
    frames = [0] * 90 + [300] * 10
    assert "unusual size" not in QualityCheck(CALIBRATION).assess(1, 0.9, found(3000, 3.0), frames)[1]
    assert "unusual size" in QualityCheck(CALIBRATION).assess(1, 0.9, found(3000, 4.5), frames)[1]


@pytest.mark.parametrize(
    "calibration, settings, sha256, problem",
    [
        (CALIBRATION, SETTINGS, "b" * 64, "of weights aaaaaaaaaaaa, these are bbbbbbbbbbbb"),
        (CALIBRATION, SETTINGS | {"threshold": 0.4}, "a" * 64, "for threshold 0.5, not 0.4"),
        (CALIBRATION, SETTINGS | {"image_size": (128, 128)}, "a" * 64, "for image_size [256, 256], not [128, 128]"),
        ({}, SETTINGS, "a" * 64, "no calibration"),
    ],
)
def test_confidence_stays_empty_and_says_why_where_it_was_not_fitted(calibration, settings, sha256, problem, caplog):
    with caplog.at_level(logging.WARNING):
        quality = QualityCheck(calibration, settings).for_weights(sha256)
    (message,) = caplog.messages
    assert problem in message
    assert "scripts/calibrate_bundle.py" in message
    assert quality.assess(1, 0.1, found(percent=99.0, components=50)) == (None, [])
    assert quality.assess(1, None, found(pixels=0)) == (None, ["nothing found"])


def test_calibration_is_used_in_silence_with_what_it_was_fitted_with(caplog):
    quality = QualityCheck(CALIBRATION, SETTINGS | {"image_size": (256, 256), "newer": 1}).for_weights("a" * 64)
    assert quality.assess(1, 0.9, found()) == (0.9, [])
    assert not caplog.messages


def test_can_be_sent_to_another_process():
    quality = pickle.loads(pickle.dumps(QualityCheck(CALIBRATION, SETTINGS)))
    assert quality.assess(1, 0.6, found(components=7)) == QualityCheck(CALIBRATION).assess(1, 0.6, found(components=7))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"raw": [0.0, 0.9, 0.5]}, "must rise"),
        ({"dice": [0.0, 0.9, 0.6]}, "must rise"),
        ({"dice": [0.0, 0.6, 1.2]}, "from 0 to 1"),
        ({"raw": [0.0, 0.5]}, "as many knots"),
        ({"size_unit": "mm2"}, "size_unit"),
        ({"min_component_percent": 101}, "min_component_percent"),
    ],
)
def test_rejects_what_is_no_calibration(values, message):
    with pytest.raises(ValueError, match=message):
        QualityCheck(CALIBRATION | {"labels": {"1": LABEL | values}})


@pytest.mark.parametrize("least, flagged", [(0.0, True), (0.9, True), (1.1, False)])
def test_specks_are_no_pieces(least, flagged):
    quality = QualityCheck(CALIBRATION | {"labels": {"1": LABEL | {"min_component_percent": least}}})
    measurement = found(pixels=500, components=4, component_pixels=(485, 5, 5, 5))
    assert ("many pieces" in quality.assess(1, 0.9, measurement)[1]) is flagged
    large = found(pixels=500, components=3, component_pixels=(400, 50, 50))
    assert "many pieces" in quality.assess(1, 0.9, large)[1]


@pytest.mark.parametrize("distance, unlike", [(None, False), (3.0, False), (3.1, True)])
def test_an_image_that_is_far_from_the_training_images_is_flagged_whatever_was_found(distance, unlike):
    domain = {"statistics": ["a"], "mean": [0.0], "precision": ["1"], "max_distance": 3.0}
    quality = QualityCheck(CALIBRATION | {"domain": domain})
    flags = ["unlike the training images"] if unlike else []
    assert quality.assess(1, 0.9, found(), distance=distance) == (0.9, flags)
    assert quality.assess(1, None, found(pixels=0), distance=distance)[1] == ["nothing found", *flags]
    assert QualityCheck(CALIBRATION).assess(1, 0.9, found(), distance=distance) == (0.9, [])


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_shipped_calibration_belongs_to_the_shipped_weights_and_settings(bundle, caplog):
    quality = parse(bundle).get_parsed_content("quality")
    assert quality.for_weights(hash_weights(bundle)) is quality, caplog.messages
    results = json.loads((bundle / "results" / "calibration.json").read_text())
    assert results["calibration"] == quality.calibration


def test_a_new_bundle_has_no_calibration_of_its_parents(breast, tmp_path):
    folder = make_bundle("my_lesions", breast, ["nodule"], tmp_path).folder
    assert hash_weights(folder) == hash_weights(breast)
    assert parse(folder).get_parsed_content("quality").labels == {}


@pytest.mark.parametrize("threshold, low, high", [(0.5, 0.3, 0.7), (0.7, 0.5, 0.8448)])
def test_estimate_is_the_dice_of_the_areas_around_the_threshold(breast, threshold, low, high):
    probabilities = torch.rand(1, 40, 30, generator=torch.Generator().manual_seed(0))
    measured = (
        parse(breast, threshold=threshold)
        .get_parsed_content("segmenter")
        .measure_confidence({"pred": probabilities.logit()})
    )
    inner, outer = (probabilities >= high).sum(), (probabilities >= low).sum()
    assert measured == {1: pytest.approx(float(2 * inner / (inner + outer)), abs=1e-3)}


def test_estimate_leaves_out_labels_that_are_nowhere(breast):
    under = torch.full((1, 8, 8), 0.45)
    assert parse(breast).get_parsed_content("segmenter").measure_confidence({"pred": under.logit()}) == {}


def test_estimate_of_a_volume_is_the_same_in_parts(monkeypatch):
    hippocampus = ROOT / "bundles" / "hippocampus_mri_segmentation"
    measure = parse(hippocampus).get_parsed_content("segmenter").measure_confidence
    logits = torch.randn(3, 17, 6, 5, generator=torch.Generator().manual_seed(0))
    whole = measure({"pred": logits})
    monkeypatch.setattr(segmenter, "_VALUES_AT_ONCE", 200)
    assert measure({"pred": logits}) == whole
    probabilities = logits.softmax(dim=0)
    for index in (1, 2):
        inner, outer = ((probabilities[index] >= level).sum() for level in (0.7, 0.3))
        assert whole[index] == pytest.approx(float(2 * inner / (inner + outer)))


@pytest.mark.parametrize("bundle", WITH_SAMPLES, ids=lambda bundle: bundle.name)
def test_samples_get_the_published_confidence(bundle):
    with (bundle / "results" / "calibration_cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    published = {(Path(row["image"]).name, row["label"]): row["confidence"] for row in rows}
    parser = parse(bundle)
    runner, quality = parser.get_parsed_content("runner"), parser.get_parsed_content("quality")
    load_weights(runner.segmenter.network, bundle / "models" / "model.pt")
    runner.segmenter.network.eval()
    checked = 0
    for path in sorted((bundle / "sample_data" / "images").iterdir())[:3]:
        (result,) = runner.segmenter.infer([runner.segmenter.reader.read([path])])
        raw, label = runner.segmenter.measure_confidence(result), runner.segmenter.make_label_map(result)
        for index, name in runner.labels.items():
            confidence, _ = quality.assess(index, raw.get(index), found(pixels=int((label == index).sum())))
            # Round-off of float32 moves a few pixels from machine to machine.
            expected = published[path.name, name]
            assert confidence == (pytest.approx(float(expected), abs=0.01) if expected else None)
            checked += confidence is not None
    assert checked >= 2


def test_one_command_calibrates_a_bundle(breast, python, tmp_path):
    bundle = tmp_path / "my_bundle"
    shutil.copytree(breast, bundle)
    shutil.rmtree(bundle / "results")
    names = sorted(path.stem for path in (breast / "sample_data" / "images").iterdir())
    items = [{"image": f"images/{name}.jpg", "label": [f"masks/0/{name}.png"]} for name in names]
    (tmp_path / "list.json").write_text(json.dumps({"training": items, "validation": items, "testing": items[:3]}))
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    (bundle / "configs" / "inference.json").write_text(json.dumps(config | {"calibration": {}}))
    script, data = ROOT / "scripts" / "calibrate_bundle.py", breast / "sample_data"
    process = python(script, bundle, data, "--datalist", tmp_path / "list.json")
    assert process.returncode == 0, process.stderr[-2000:]

    quality = parse(bundle).get_parsed_content("quality")
    assert quality.for_weights(hash_weights(bundle)) is quality
    assert quality.labels[1].size_unit == "percent"
    assert (bundle / "docs" / "reliability.png").stat().st_size > 1000
    results = json.loads((bundle / "results" / "calibration.json").read_text())
    report = results["report"]["testing"]
    assert (results["unlike"]["testing"]["n"], len(quality.domain.mean)) == (3, len(quality.domain.statistics))
    assert (report["n"], report["with_a_prediction"], results["training_labels"]) == (3, 2, {"lesion": 7})
    with (bundle / "results" / "calibration_cases.csv").open(newline="") as file:
        assert [row["section"] for row in csv.DictReader(file)] == ["validation"] * 8 + ["testing"] * 3
