"""Exports of bundles: what is in the file, how it is compared with the bundle, and that nothing is half-written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mobileutr_monai.core.choices import SUFFIXES
from mobileutr_monai.export import bundle as export
from mobileutr_monai.export.bundle import Exported, export_bundle
from mobileutr_monai.export.formats import FORMATS
from mobileutr_monai.networks import MobileUtr, load_weights

SIZES = ((1, 3, 256, 256), (3, 3, 64, 112))
LOGITS_TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, breast: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    for package in FORMATS[request.param].packages:
        pytest.importorskip(package, reason=f"the format needs {package}, which no other test does")
    return export_bundle(
        breast, request.param, tmp_path_factory.mktemp(request.param) / f"breast{SUFFIXES[request.param]}"
    )


def test_the_command_offers_every_format() -> None:
    assert SUFFIXES.keys() == FORMATS.keys()


def test_file_and_report_agree_and_nothing_else_is_left(exported: Exported, breast: Path) -> None:
    content = json.loads(exported.report.read_text())
    assert sorted(exported.report.parent.iterdir()) == sorted([*exported.files, exported.report])
    for path in exported.files:
        assert content["sha256"][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content["percent_differing"] == 0.0
    assert content["largest_logit_difference"] < LOGITS_TOLERANCE
    assert content["images"] == sorted(path.name for path in (breast / "sample_data" / "images").iterdir())


def test_facts_of_the_bundle_are_in_the_file(exported: Exported, breast: Path) -> None:
    _, facts = FORMATS[exported.content["format"]].open(exported.files[-1])
    weights = hashlib.sha256((breast / "models" / "model.pt").read_bytes()).hexdigest()
    metadata = json.loads((breast / "configs" / "metadata.json").read_text())
    assert facts["weights_sha256"] == weights
    assert facts["version"] == metadata["version"]
    assert json.loads(facts["labels"]) == {"0": "background", "1": "lesion"}
    assert json.loads(facts["modalities"]) == ["US"]


@pytest.mark.parametrize("shape", SIZES)
def test_batch_and_size_are_free_where_the_format_allows(
    shape: tuple[int, ...], exported: Exported, breast: Path
) -> None:
    network = MobileUtr(2, 3, 1).eval()
    load_weights(network, breast / "models" / "model.pt")
    run, _ = FORMATS[exported.content["format"]].open(exported.files[-1])
    if FORMATS[exported.content["format"]].fixed_size:
        shape = (len(shape), *shape[1:2], *json.loads(exported.content["facts"]["sides"]))
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image).numpy()
    np.testing.assert_allclose(run(image.numpy()), expected, atol=LOGITS_TOLERANCE)


def test_a_volume_bundle_without_samples_is_compared_on_seeded_ones(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export, "_find_samples", lambda bundle: [])
    bundle = repository / "bundles" / "hippocampus_mri_segmentation"
    made = export_bundle(bundle, "torchscript", tmp_path / "hippocampus.ts")
    assert [record.getMessage() for record in caplog.records if record.name == export.__name__] == [
        "exporting Hippocampus MR segmentation as torchscript, which may take half a minute",
        "comparing it with the bundle on 1 image",
    ]
    assert made.content["images"] == "1 seeded one: the bundle ships no samples"
    assert made.content["percent_differing"] == 0.0


def test_a_format_for_pictures_takes_no_volume_bundle(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "executorch", FORMATS["executorch"]._replace(packages=()))
    bundle = repository / "bundles" / "hippocampus_mri_segmentation"
    with pytest.raises(ValueError, match="--format executorch is for 2D bundles; export this one in another format"):
        export_bundle(bundle, "executorch", tmp_path / "hippocampus.pte")
    assert not list(tmp_path.iterdir())


def test_an_export_that_labels_otherwise_is_not_kept(
    breast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = FORMATS["torchscript"]
    monkeypatch.setitem(
        FORMATS,
        "torchscript",
        kind._replace(open=lambda path: (lambda image: 1 - kind.open(path)[0](image), kind.open(path)[1])),
    )
    with pytest.raises(
        ValueError, match=r"labels .* % of the pixels otherwise than the bundle .*; nothing was written"
    ):
        export_bundle(breast, "torchscript", tmp_path / "breast.ts")
    assert not list(tmp_path.iterdir())
