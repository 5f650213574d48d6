"""The shipped weights on real cases of the scored lists: each must score what the committed results say of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
KVASIR_CASES = 6


class Sample(NamedTuple):
    name: str
    image: Path
    label: Path


def find_samples(bundle: Path) -> Iterator[Sample]:
    """Yields the samples that a bundle ships; Kvasir's licence forbids it: its cases are next to the repository."""
    shipped = bundle / "sample_data"
    if bundle.name.startswith("colon"):
        data = ROOT.parent / "shared" / "data"
        if not data.is_dir():
            pytest.skip("Kvasir-SEG is not next to the project")
        datalist = json.loads((bundle / "datalists" / "kvasir_seg.json").read_text())
        for item in datalist["testing"][:KVASIR_CASES]:
            yield Sample(Path(item["image"]).stem, data / item["image"], data / item["label"][0])
    elif (shipped / "labels").is_dir():
        for path in sorted((shipped / "images").iterdir()):
            yield Sample(path.name.removesuffix(".nii.gz"), path, shipped / "labels" / path.name)
    else:
        for path in sorted((shipped / "images").iterdir()):
            yield Sample(path.stem, path, shipped / "masks" / "0" / f"{path.stem}.png")


def read_pixels(path: Path, index: int) -> np.ndarray:
    """Reads a label of a label map, of indices or of one label alone, as NIfTI or as an image."""
    if path.name.endswith(".nii.gz"):
        return np.asarray(nib.load(path).dataobj) == index
    values = np.array(Image.open(path).convert("L") if path.name.endswith("_mask.png") else Image.open(path))
    return values == index if path.name.endswith("_mask.png") else values > 0


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "bundles").glob("*/bundle.yaml")))
def test_shipped_weights_score_what_is_published(name, mobileutr, tmp_path):
    bundle = ROOT / "bundles" / name
    samples = list(find_samples(bundle))
    (tmp_path / "in").mkdir()
    for sample in samples:
        shutil.copyfile(sample.image, tmp_path / "in" / sample.image.name)
    process = mobileutr("predict", bundle, tmp_path / "in", "--output", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    labels = {name: int(i) for i, name in metadata["network_data_format"]["outputs"]["pred"]["channel_def"].items()}

    with (bundle / "results" / "testing_cases.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["scale"] == "original" and row["dice"]]
    published = {(Path(row["image"]).name.split(".")[0], row["label"]): float(row["dice"]) for row in rows}
    scores = {}
    for sample in samples:
        (mask,) = (tmp_path / "out").glob(f"{sample.name}_mask.*")
        for label, index in labels.items():
            if (sample.name, label) in published:
                pred, truth = read_pixels(mask, index), read_pixels(sample.label, index)
                assert pred.shape == truth.shape
                scores[sample.name, label] = 2 * (pred & truth).sum() / (pred.sum() + truth.sum())
    assert len(scores) >= 3
    # Round-off of float32 moves a few pixels from machine to machine.
    assert scores == pytest.approx({key: published[key] for key in scores}, abs=0.01)


def test_the_skin_bundle_accepts_the_modality_of_dermoscopy(repository):
    path = repository / "bundles" / "skin_dermoscopy_segmentation" / "configs" / "metadata.json"
    assert {"DMS", "XC"} <= set(json.loads(path.read_text())["modalities"])
