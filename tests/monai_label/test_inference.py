"""Inference over HTTP: the mask that comes back is the one that the bundle itself writes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_service import BREAST, BUNDLES, HIPPOCAMPUS, LabelServer, read_picture
from PIL import Image

PNG = b"\x89PNG"
VOLUMES = ("turned", "hippocampus")


@pytest.fixture(scope="session")
def images(four_bundles: LabelServer) -> Path:
    return four_bundles.workspace.parents[1] / "studies"


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) if path.suffix == ".png" else np.asarray(nib.load(path).dataobj)


def is_volume(path: Path) -> bool:
    return path.name.endswith(".nii.gz") and path.name != "flat.nii.gz"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_masks_are_those_of_the_bundle_pixel_by_pixel(four_bundles, bundle, images, run_bundle, tmp_path):
    paths = [path for path in sorted(images.iterdir()) if path.is_file() and path.name[0] not in ".d"]
    inputs = [path for path in paths if is_volume(path) == (bundle == HIPPOCAMPUS)]
    given = tmp_path / "given"
    given.mkdir()
    for path in inputs:
        (given / path.name).symlink_to(path)
    run_bundle(bundle, given, tmp_path / "out")
    expected = {path.name.split("_mask.")[0]: read_mask(path) for path in (tmp_path / "out").rglob("*_mask.*")}
    assert len(inputs) == len(expected) > 2
    foreground = 0
    for path in inputs:
        name = path.name.split(".")[0]
        answer = four_bundles.infer(name, model=bundle.name)
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


def test_each_bundle_is_a_model_with_its_own_labels(four_bundles):
    models = four_bundles.ask("/info/").json["models"]
    assert set(models) == {bundle.name for bundle in BUNDLES}
    assert models[BREAST.name]["labels"] == {"lesion": 1}
    for model in models.values():
        assert sorted(model["labels"].values()) == list(range(1, len(model["labels"]) + 1))
        assert "background" not in model["labels"]


def test_a_case_is_offered_to_the_models_of_its_kind(four_bundles):
    volume, picture = four_bundles.infer("turned"), four_bundles.infer("rgb", model=HIPPOCAMPUS.name)
    assert (volume.status, picture.status) == (422, 422)
    assert f"{HIPPOCAMPUS.name} does" in volume.detail
    assert "does not take images of this kind" in picture.detail
    for model, kind in ((HIPPOCAMPUS.name, True), (BREAST.name, False)):
        sample = four_bundles.post("/activelearning/first", model=model).json
        assert is_volume(Path(sample["path"])) == kind


@pytest.mark.parametrize(("bundle", "name"), [(BREAST, "rgb.png"), (HIPPOCAMPUS, "turned.nii.gz")])
def test_a_file_that_is_sent_gives_the_mask_of_the_one_in_the_folder(four_bundles, images, bundle, name):
    sent = four_bundles.infer(file=images / name, model=bundle.name)
    kept = four_bundles.infer(name.split(".")[0], model=bundle.name)
    assert sent.status == kept.status == 200
    assert sent.body == kept.body


def test_a_label_of_several_possible_models_is_of_the_one_that_is_named_or_was_run(four_bundles, tmp_path):
    label = tmp_path / "label.png"
    with Image.open(four_bundles.workspace.parents[1] / "studies" / "grey.png") as image:
        Image.new("L", image.size).save(label)
    unknown = four_bundles.save_label("palette", label)
    assert unknown.status == (422 if not four_bundles.log.read_text().count("palette.png") else unknown.status)
    assert four_bundles.save_label("grey", label, model=HIPPOCAMPUS.name).status == 422
    assert four_bundles.save_label("grey", label, model="skin_dermoscopy_segmentation").status == 200
    info = four_bundles.ask("/datastore/label/info", label="grey", tag="final").json
    assert info["model"] == "skin_dermoscopy_segmentation"
    assert four_bundles.infer("rgb", model=BREAST.name).status == 200
    assert four_bundles.save_label("rgb", label).status == 200
    assert four_bundles.ask("/datastore/label/info", label="rgb", tag="final").json["model"] == BREAST.name


@pytest.mark.parametrize(
    "params",
    [
        {"device": "cpu", "client_id": "user-xyz", "result_extension": ".nrrd", "result_dtype": "uint8"},  # 3D Slicer
        {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False},
    ],
)
@pytest.mark.parametrize(("bundle", "name"), [(BREAST, "rgb"), (HIPPOCAMPUS, "turned")])
def test_what_viewers_send_is_taken(four_bundles, bundle, name, params):
    """3D Slicer and OHIF ask for NRRD."""
    answer = four_bundles.infer(name, model=bundle.name, **params)
    assert answer.status == 200, answer.body
    assert answer.body.startswith(b"NRRD")


def test_a_volumes_mask_is_no_picture(four_bundles):
    assert four_bundles.infer("turned", model=HIPPOCAMPUS.name, result_extension=".png").status == 422
