"""What is no label is refused over HTTP, and left out of a training where it lies in the folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_service import ROOT, LabelServer, serve
from PIL import Image

BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
HIPPOCAMPUS = ROOT / "bundles" / "hippocampus_mri_segmentation"
SAMPLES = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name][:3]
VOLUME = sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0]


def true_mask(image: Path) -> np.ndarray:
    with Image.open(BREAST / "sample_data" / "masks" / "0" / f"{image.stem}.png") as mask:
        return (np.asarray(mask.convert("L")) > 127).astype(np.uint8)


def serve_folder(bundle: Path, images: list[Path], folder: Path) -> Iterator[LabelServer]:
    studies = folder / "studies"
    studies.mkdir()
    for image in images:
        shutil.copy(image, studies)
    with serve(bundle, studies, folder / "work") as running:
        yield running


@pytest.fixture(scope="module")
def breast_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    yield from serve_folder(BREAST, SAMPLES, tmp_path_factory.mktemp("breast"))


@pytest.fixture(scope="module")
def hippocampus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    yield from serve_folder(HIPPOCAMPUS, [VOLUME], tmp_path_factory.mktemp("hippocampus"))


def assert_refused(server: LabelServer, image: str, label: Path, words: str) -> None:
    answer = server.save_label(image, label)
    assert answer.status == 422, answer.body
    assert words in answer.detail
    assert answer.detail.startswith("the label cannot be used: ")
    assert "\n" not in answer.detail and "/" not in answer.detail  # one line, no path of the server
    assert server.ask("/datastore/", output="train").json == []


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("text", "not the image that its name says"),
        ("empty", "empty"),
        ("cut", ""),
        ("other size", "the image is"),
        ("photograph", "which is no label"),
        ("text as NIfTI", ""),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(breast_server, case, words, tmp_path):
    label, values = tmp_path / "label.png", true_mask(SAMPLES[0])
    match case:
        case "text":
            label.write_text("not a label")
        case "empty":
            label.write_bytes(b"")
        case "cut":
            Image.fromarray(np.random.default_rng(0).integers(0, 2, values.shape, np.uint8)).save(label)
            label.write_bytes(label.read_bytes()[:2000])
        case "other size":
            Image.fromarray(values[:-1]).save(label)
        case "photograph":
            Image.open(SAMPLES[0]).save(label)
        case "text as NIfTI":
            label = tmp_path / "label.nii.gz"
            label.write_text("not a label")
    assert_refused(breast_server, SAMPLES[0].stem, label, words)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("text", ""),
        ("other size", "the image is"),
        ("elsewhere", "lies elsewhere"),
        ("no label", "has the value 9"),
        ("between labels", "has the value 0.5"),
    ],
)
def test_what_is_no_label_map_of_the_volume_is_refused(hippocampus_server, case, words, tmp_path):
    source = nib.load(HIPPOCAMPUS / "sample_data" / "labels" / VOLUME.name)
    values, affine = np.asarray(source.dataobj).astype(np.float32), np.array(source.affine)
    label = tmp_path / VOLUME.name
    match case:
        case "other size":
            values = values[:-1]
        case "elsewhere":
            affine[:3, 3] += 5
        case "no label":
            values[0, 0, 0] = 9
        case "between labels":
            values /= 2
    nib.save(nib.nifti1.Nifti1Image(values, affine), label)
    if case == "text":
        label.write_text("not a label")
    assert_refused(hippocampus_server, VOLUME.name.split(".")[0], label, words)


def test_a_label_map_with_other_axes_is_taken(hippocampus_server, tmp_path):
    source = nib.load(HIPPOCAMPUS / "sample_data" / "labels" / VOLUME.name)
    turn = nib.orientations.axcodes2ornt("PLI")
    label = tmp_path / VOLUME.name
    nib.save(
        nib.nifti1.Nifti1Image(np.asarray(source.dataobj).astype(np.uint8), source.affine).as_reoriented(turn), label
    )
    answer = hippocampus_server.save_label(VOLUME.name.split(".")[0], label)
    assert answer.status == 200, answer.body


def test_a_label_of_no_image_is_not_found(breast_server, tmp_path):
    Image.fromarray(true_mask(SAMPLES[0])).save(tmp_path / "label.png")
    assert breast_server.save_label("absent", tmp_path / "label.png").status == 404


def test_training_names_and_leaves_out_a_broken_label(breast_server, tmp_path):
    """Last in this file: it leaves labels."""
    final = breast_server.workspace.parents[1] / "studies" / "labels" / "final"
    (final / f"{SAMPLES[2].stem}.png").write_text("put there by hand")
    for image in SAMPLES[:2]:
        Image.fromarray(true_mask(image) * 255).save(tmp_path / f"{image.stem}.png")
        assert breast_server.save_label(image.stem, tmp_path / f"{image.stem}.png").status == 200
    assert len(breast_server.ask("/datastore/", output="train").json) == 3
    job = breast_server.train(max_epochs=1, batch_size=1)
    assert job["status"] == "DONE", job["details"]
    log = breast_server.log.read_text()
    assert f"{SAMPLES[2].stem}.png is left out: the label cannot be used" in log
    assert "1 image to learn from, 1 held out" in log

    (final / f"{SAMPLES[1].stem}.png").write_text("and this one")
    job = breast_server.train(max_epochs=1, batch_size=1)
    assert job["status"] == "ERROR"
    assert any("1 labelled image that can be used" in line for line in job["details"])
