"""Engines: the masks of torch in float32, whatever the batch; what is missing is said in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from mobileutr_monai.core import choices
from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.export.formats import MissingPackageError
from mobileutr_monai.inference.engines.choice import AUTO
from mobileutr_monai.inference.engines.table import ENGINES, cached_onnx, start_engine
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.networks import MobileUtr

CPU = torch.device("cpu")
BUNDLES = ("breast_ultrasound", "skin_dermoscopy", "hippocampus_mri")
COMPARED = [name for name, engine in ENGINES.items() if "cpu" in engine.devices]
SAMPLES = 2


class Loaded:
    """A bundle's objects with its weights, and samples as the network takes them."""

    def __init__(self, bundle: Path) -> None:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        parser["bundle_root"] = str(bundle)
        runner = parser.get_parsed_content("runner")
        runner.load_network()
        self.verdicts: dict[str, Any] = parser["engine_parity"].get("engines", {})
        self.segmenter: Segmenter = runner.segmenter
        paths = sorted((bundle / "sample_data" / "images").iterdir())[:SAMPLES]
        self.cases = [self.segmenter.reader.read([path]) for path in paths]
        self.expected = [self.segmenter.make_label_map(self.segmenter.infer([case])[0]) for case in self.cases]


@pytest.fixture(scope="module", params=BUNDLES)
def loaded(request: pytest.FixtureRequest, repository: Path) -> Loaded:
    return Loaded(repository / "bundles" / f"{request.param}_segmentation")


@pytest.mark.parametrize("name", COMPARED)
def test_gives_the_masks_of_torch_on_shipped_samples(name: str, loaded: Loaded, engine_cache: Path) -> None:
    segmenter = loaded.segmenter
    limit = MAX_MISMATCH_PERCENT
    if ENGINES[name].precision == "bfloat16":  # which single cases may exceed
        if not loaded.verdicts.get(name, {"accepted": False})["accepted"]:
            pytest.skip(f"{name} is refused for this bundle")
        limit = max(limit, loaded.verdicts[name]["percent_differing_worst_case"])
    segmenter.predictor = start_engine(name, segmenter.network, CPU, SAMPLES)
    found = [segmenter.make_label_map(segmenter.infer([case])[0]) for case in loaded.cases]
    differing = sum(int((a != b).sum()) for a, b in zip(found, loaded.expected, strict=True))
    assert 100 * differing / sum(label.size for label in found) <= limit


@pytest.mark.parametrize("name", [name for name in COMPARED if name != "torch"])
def test_logits_do_not_depend_on_the_batch(name: str, loaded: Loaded, engine_cache: Path) -> None:
    segmenter = loaded.segmenter
    predict = start_engine(name, segmenter.network, CPU, 4)
    sides = loaded.cases[0]["image"].shape[1:] if segmenter.spatial_dims == 2 else (32, 48, 32)
    images = torch.randn(3, segmenter.network.in_channels, *sides, generator=torch.Generator().manual_seed(0))
    alone = [predict(images[i : i + 1])[0] for i in range(len(images))]
    together = predict(images)
    assert together.dtype is torch.float32
    assert torch.equal(torch.stack(alone), together)


def test_what_is_compiled_for_the_stated_size_serves_any_number_of_images(
    engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    compiled: list[list[int]] = []
    compile_model: Callable[..., Any] = openvino.Core.compile_model

    def watch(core: Any, model: Any, *arguments: Any) -> Any:
        compiled.append(list(model.inputs[0].shape))
        return compile_model(core, model, *arguments)

    monkeypatch.setattr(openvino.Core, "compile_model", watch)
    predict = start_engine("openvino", MobileUtr(2, 1, 1).eval(), CPU, 8, (32, 48))
    assert compiled == [[1, 1, 32, 48]]
    together = predict(torch.ones(3, 1, 32, 48))
    assert torch.equal(predict(torch.ones(1, 1, 32, 48))[0], together[0])
    assert len(compiled) == 1
    predict(torch.ones(1, 1, 64, 64))
    assert compiled[1:] == [[1, 1, 64, 64]]


def test_the_default_is_the_network_itself() -> None:
    network = MobileUtr(2, 1, 1)
    assert start_engine("torch", network, CPU, 8) is network
    assert next(iter(ENGINES)) == "torch"


def test_the_command_offers_every_engine() -> None:
    assert (AUTO, *ENGINES) == choices.ENGINES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorflow", "engine 'tensorflow' is unknown; choose one of auto, torch"),
        ("torch-fp16", "engine torch-fp16 runs on cuda, not on cpu"),
    ],
)
def test_rejects_what_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start_engine(name, MobileUtr(2, 1, 1), CPU, 8)


@pytest.mark.parametrize(("name", "package"), [("onnxruntime", "onnxruntime"), ("openvino-bf16", "openvino")])
def test_a_missing_package_is_one_line_with_its_remedy(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == package else find(asked))
    with pytest.raises(MissingPackageError, match=rf'needs {package}: pip install "mobileutr-monai\[{package}\]"$'):
        start_engine(name, MobileUtr(2, 1, 1), CPU, 8)


def test_a_stopped_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEUTR_CACHE", str(tmp_path))

    def stop(_network: MobileUtr, path: Path, _facts: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("mobileutr_monai.inference.engines.table.write_onnx", stop)
    with pytest.raises(KeyboardInterrupt):
        start_engine("onnxruntime", MobileUtr(2, 1, 1), CPU, 8)
    assert not list(tmp_path.iterdir())


def test_the_cache_tells_networks_of_one_state_dict_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEUTR_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "mobileutr_monai.inference.engines.table.write_onnx", lambda _network, path, _facts: path.touch()
    )
    few, many = MobileUtr(2, 1, 1, num_heads=4), MobileUtr(2, 1, 1, num_heads=8)
    many.load_state_dict(few.state_dict())
    assert cached_onnx(few) != cached_onnx(many)
    assert cached_onnx(few) == cached_onnx(few)


def test_filled_batches_are_cut_to_what_came() -> None:
    from mobileutr_monai.inference.engines.table import _in_batches_of

    seen: list[tuple[int, ...]] = []

    def run(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape))
        return 2 * images

    images = torch.arange(5.0).reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(_in_batches_of(4, run)(images), 2 * images)
    assert seen == [(4, 1, 1, 1), (4, 1, 1, 1)]
