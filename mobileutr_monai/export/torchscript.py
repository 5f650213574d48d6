"""TorchScript: a traced network with its facts as an extra file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from mobileutr_monai.export.prepare import Facts, Run, prepare, quiet
from mobileutr_monai.networks import MobileUtr

__all__ = ["open_torchscript", "write_torchscript"]

_FACTS_FILE = "facts.json"


def write_torchscript(network: MobileUtr, path: Path, facts: Facts) -> None:
    """Writes the traced network with its facts."""
    folded, example = prepare(network)
    with quiet(), torch.inference_mode():
        script = torch.jit.trace(folded, example, check_trace=False)
        torch.jit.save(script, path, _extra_files={_FACTS_FILE: json.dumps(dict(facts))})


def open_torchscript(path: Path) -> tuple[Run, dict[str, str]]:
    """Returns what runs a file, and the facts in it."""
    extra = {_FACTS_FILE: ""}
    with quiet():
        script = torch.jit.load(path, map_location="cpu", _extra_files=extra)

    @torch.inference_mode()
    def run(image: np.ndarray) -> np.ndarray:
        logits: np.ndarray = script(torch.from_numpy(image)).numpy()
        return logits

    return run, json.loads(extra[_FACTS_FILE])
