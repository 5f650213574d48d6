"""What is no label is refused over HTTP, in one line that says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import nibabel as nib
import numpy as np
import pytest
from label_service import BREAST, HIPPOCAMPUS, LabelServer, ask
from label_studies import read_truth
from PIL import Image

SAMPLES = [path for path in sorted((BREAST / "sample_data" / "images").iterdir()) if "normal" not in path.name][:3]
VOLUME = sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0]


def assert_refused(server: LabelServer, image: str, label: Path, words: str) -> None:
    answer = server.save_label(image, label)
    assert answer.status == 422, answer.body
    assert words in answer.detail
    assert answer.detail.startswith("the label cannot be used: ")
    assert "\n" not in answer.detail and str(label.parent) not in answer.detail  # one line, no path
    assert "--" not in answer.detail  # no advice for the command line
    assert server.ask("/datastore/label/info", label=image, tag="final").json == {}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("text", "not the image that its name says"),
        ("empty", "empty"),
        ("cut", ""),
        ("other size", "the image is"),
        ("photograph", "which is no label"),
        ("index 7", "has the values 0, 7"),
        ("soft edges", ""),
        ("colours", ""),
        ("text as NIfTI", ""),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(breast_server, case, words, tmp_path):
    label, values = tmp_path / "label.png", read_truth(SAMPLES[0])
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
        case "index 7":
            Image.fromarray(values * 7).save(label)
        case "soft edges":
            Image.fromarray(values * 255).resize((values.shape[1] // 2, values.shape[0] // 2)).resize(
                values.shape[::-1], Image.Resampling.BILINEAR
            ).save(label)
        case "colours":
            Image.fromarray(np.stack([values * 200, values * 10, values], -1)).save(label)
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
def test_what_is_no_label_map_of_the_volume_is_refused(four_bundles, case, words, tmp_path):
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
    assert_refused(four_bundles, VOLUME.name.split(".")[0], label, words)


def test_a_label_map_with_other_axes_is_taken(four_bundles, tmp_path):
    source = nib.load(HIPPOCAMPUS / "sample_data" / "labels" / VOLUME.name)
    turn = nib.orientations.axcodes2ornt("PLI")
    label = tmp_path / VOLUME.name
    nib.save(
        nib.nifti1.Nifti1Image(np.asarray(source.dataobj).astype(np.uint8), source.affine).as_reoriented(turn), label
    )
    answer = four_bundles.save_label(VOLUME.name.split(".")[0], label)
    assert answer.status == 200, answer.body


def test_a_label_of_no_image_is_not_found(breast_server, tmp_path):
    Image.fromarray(read_truth(SAMPLES[0])).save(tmp_path / "label.png")
    assert breast_server.save_label("absent", tmp_path / "label.png").status == 404


@pytest.mark.parametrize("name", ["label.exe", "label", "label.png.sh", "label.dcm"])
def test_a_label_needs_the_ending_of_a_label(breast_server, name, tmp_path):
    Image.fromarray(read_truth(SAMPLES[0])).save(tmp_path / "label.png")
    label = (tmp_path / "label.png").rename(tmp_path / name)
    answer = breast_server.save_label(SAMPLES[0].stem, label)
    assert answer.status == 422
    assert ".nii.gz" in answer.detail


def test_a_label_is_removed_once(breast_server, tmp_path):
    label = tmp_path / "label.png"
    Image.fromarray(read_truth(SAMPLES[0])).save(label)
    assert breast_server.save_label(SAMPLES[0].stem, label).status == 200
    query = urlencode({"id": SAMPLES[0].stem, "tag": "final"})
    assert ask(f"{breast_server.url}/datastore/label?{query}", "DELETE").status == 200
    assert not (studies_of(breast_server) / "labels" / "final" / f"{SAMPLES[0].stem}.png").exists()
    wait_until(lambda: breast_server.ask("/datastore/label/info", label=SAMPLES[0].stem, tag="final").json == {})
    assert ask(f"{breast_server.url}/datastore/label?{query}", "DELETE").status == 404


def studies_of(server: LabelServer) -> Path:
    return server.workspace.parents[1] / "studies"


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)
