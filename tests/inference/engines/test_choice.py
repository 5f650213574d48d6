"""Which engine a run may use, and which is the fastest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mobileutr_monai.inference.engines import choice, table
from mobileutr_monai.inference.engines.choice import choose_fastest, why_not_allowed
from mobileutr_monai.networks import MobileUtr

SETTINGS = {"image_size": (256, 256), "threshold": 0.5}
GOOD = {"accepted": True, "percent_differing": 0.01, "dice_change": 0.0001}
BAD = {"accepted": False, "percent_differing": 0.4, "dice_change": -0.003}
VERDICTS = {
    "weights_sha256": "abc",
    "settings": {"image_size": [256, 256], "threshold": 0.5},
    "engines": {"onnxruntime": GOOD, "torch-bf16": BAD},
}


@pytest.mark.parametrize(
    ("name", "verdicts", "weights", "settings", "reason"),
    [
        ("torch", {}, "abc", SETTINGS, None),
        ("onnxruntime", VERDICTS, "abc", SETTINGS, None),
        ("torch-bf16", VERDICTS, "abc", SETTINGS, "is refused for this bundle: 0.4 % of the pixels differ"),
        ("openvino", VERDICTS, "abc", SETTINGS, "was not compared with torch for these weights"),
        ("onnxruntime", VERDICTS, "other", SETTINGS, "was not compared with torch for these weights"),
        ("onnxruntime", VERDICTS, "abc", {**SETTINGS, "image_size": (64, 64)}, "was not compared"),
        ("onnxruntime", {}, "abc", SETTINGS, "was not compared"),
    ],
)
def test_only_engines_that_give_the_masks_of_torch_may_be_used(
    name: str, verdicts: dict[str, Any], weights: str, settings: dict[str, Any], reason: str | None
) -> None:
    refusal = why_not_allowed(name, verdicts, weights, settings)
    assert refusal is None if reason is None else refusal is not None and reason in refusal


class Clock:
    """Stands for engines that take given times; counts how often they are started."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.started = seconds, 0

    def start(self, name: str, *_: object) -> Any:
        self.started += 1

        def predict(images: torch.Tensor) -> torch.Tensor:
            time.sleep(self.seconds[name])
            return images

        return predict


def test_auto_says_why_it_leaves_an_engine_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MOBILEUTR_CACHE", str(tmp_path))
    monkeypatch.setattr(choice, "start_engine", Clock({"torch": 0.0}).start)
    monkeypatch.setattr(table, "computes_bfloat16", lambda device: False)
    allowed = ["torch", "torch-bf16", "torch-fp16"]
    assert choose_fastest(MobileUtr(2, 1, 1), torch.device("cpu"), allowed, (2, 1, 16, 16), "abc") == "torch"
    assert caplog.messages[0] == (
        "measuring torch on this machine, once (torch-bf16: this CPU has no "
        "bfloat16 and would emulate it; torch-fp16: needs cuda)"
    )


def test_the_fastest_is_measured_once_and_again_when_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILEUTR_CACHE", str(tmp_path / "cache"))
    clock = Clock({"torch": 0.02, "torch-folded": 0.0})
    monkeypatch.setattr(choice, "start_engine", clock.start)
    network, device = MobileUtr(2, 1, 1), torch.device("cpu")

    def choose(weights: str) -> str:
        return choose_fastest(network, device, ["torch", "torch-folded", "torch-fp16"], (2, 1, 16, 16), weights)

    assert choose("abc") == "torch-folded"
    assert clock.started == 2  # torch-fp16 is not for a CPU
    clock.seconds = {"torch": 0.0, "torch-folded": 0.02}
    assert choose("abc") == "torch-folded"
    assert clock.started == 2
    assert choose("other weights") == "torch"
    for path in (tmp_path / "cache").iterdir():
        path.write_text("{", encoding="utf-8")
    assert choose("abc") == "torch"
