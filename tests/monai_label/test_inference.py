"""Inference over HTTP: the mask that comes back is the one that the bundle itself writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_service import ROOT, LabelServer, read_picture, serve
from PIL import Image

BUNDLES = ROOT / "bundles"
BREAST, HIPPOCAMPUS = BUNDLES / "breast_ultrasound_segmentation", BUNDLES / "hippocampus_mri_segmentation"
NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/bundle.yaml"))
PNG = b"\x89PNG"
ENDINGS = (".png", ".jpg", ".jpeg", ".nii.gz")


def make_pictures(samples: Path, folder: Path) -> None:
    """Writes one picture in every form that a picture comes in."""
    folder.mkdir()
    source = next(path for path in sorted(samples.iterdir()) if path.suffix == ".jpg")
    picture = Image.open(source).convert("RGB").crop((0, 0, 201, 177))
    grey = np.asarray(picture.convert("L"))
    picture.save(folder / "rgb.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("RGBA").save(folder / "rgba.png")
    picture.quantize(64).save(folder / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    picture.save(folder / "photo.jpg", quality=90)
    shutil.copy(source, folder / "whole sample.jpeg")
    nib.save(nib.nifti1.Nifti1Image(grey.T, np.eye(4)), folder / "flat.nii.gz")


def make_volumes(samples: Path, folder: Path) -> None:
    """Writes volumes, one of them with other directions of its axes."""
    folder.mkdir()
    sources = sorted(samples.iterdir())[:2]
    for source in sources:
        shutil.copy(source, folder)
    image = nib.load(sources[0])
    turned = np.flip(np.asarray(image.dataobj).transpose(1, 0, 2), 0)
    affine = np.array(image.affine)[:, [1, 0, 2, 3]]
    affine[:3, 3] += affine[:3, 0] * (turned.shape[0] - 1)
    affine[:3, 0] *= -1
    nib.save(nib.nifti1.Nifti1Image(turned.copy(), affine), folder / "turned.nii.gz")


@pytest.fixture(scope="module", params=NAMES)
def bundle(request: pytest.FixtureRequest) -> Path:
    return BUNDLES / request.param


@pytest.fixture(scope="module")
def studies(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(bundle.name) / "studies"
    samples = bundle / "sample_data" / "images"
    if bundle == HIPPOCAMPUS:
        make_volumes(samples, folder)
    else:
        make_pictures(samples if samples.is_dir() else BREAST / "sample_data" / "images", folder)
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    with serve(bundle, studies, tmp_path_factory.mktemp("work")) as running:
        yield running


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) if path.suffix == ".png" else np.asarray(nib.load(path).dataobj)


def test_masks_are_those_of_the_bundle_pixel_by_pixel(server, bundle, studies, monai_bundle, tmp_path):
    inputs = [path for path in sorted(studies.iterdir()) if path.name.endswith(ENDINGS)]
    target = ("--dataset_dir", studies, "--output_dir", tmp_path)
    monai_bundle("run", "--config_file", "configs/inference.json", "--overlays", "False", *target, cwd=bundle)
    expected = {path.name.split("_mask.")[0]: read_mask(path) for path in tmp_path.rglob("*_mask.*")}
    assert len(inputs) == len(expected) > 2
    foreground = 0
    for path in inputs:
        name = path.name.split(".")[0]
        answer = server.infer(name)
        assert answer.status == 200, answer.body
        if bundle == HIPPOCAMPUS:
            result = tmp_path / f"{name}.nii.gz"
            result.write_bytes(answer.body)
            found = nib.load(result)
            assert np.allclose(found.affine, nib.load(path).affine, atol=1e-4)
            mask = np.asarray(found.dataobj)
        else:
            assert answer.body.startswith(PNG)  # also for a JPEG: no lossy mask
            mask = read_picture(answer.body)
            mask = mask.T if path.name.endswith(".nii.gz") else mask
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, expected[name].reshape(mask.shape)), path.name
        foreground += np.count_nonzero(mask)
    assert foreground


def test_labels_are_those_of_the_metadata(server, bundle):
    info = server.ask("/info/").json
    expected = {"lesion": 1} if bundle == BREAST else info["models"][bundle.name]["labels"]
    assert info["models"][bundle.name]["labels"] == expected
    assert sorted(expected.values()) == list(range(1, len(expected) + 1))
    assert "background" not in expected


def test_a_file_that_is_sent_gives_the_mask_of_the_one_in_the_folder(server, studies):
    path = next(path for path in sorted(studies.iterdir()) if path.name.split(".")[0] in ("rgb", "turned"))
    sent, kept = server.infer(file=path), server.infer(path.name.split(".")[0])
    assert sent.status == kept.status == 200
    assert sent.body == kept.body
