"""OpenVINO models in int8: post-training quantisation by NNCF, calibrated on images that the bundle has preprocessed.

Linear layers and attention's products are quantised, convolutions are not: with them in int8, or with the wide ones
alone, masks of a bundle or more changed further than an engine's may (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor

from mobileutr_monai.core.kinds import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from mobileutr_monai.export.prepare import quiet

__all__ = ["EXTRA", "INT8", "PACKAGES", "collect_inputs", "quantize", "split_images"]

PACKAGES = ("nncf",)
EXTRA = "int8"
INT8 = "int8 in linear layers and attention, float32 in convolutions"
"""The fact ``precision`` of a quantised file."""

MAX_CALIBRATING, MAX_HELD_OUT = 64, 32
FEWEST, FEWEST_PER_HELD_OUT = 16, 5


def split_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns files of a folder, evenly spaced by name: those to calibrate with, and others to compare on.

    Raises:
        ValueError: there are too few.
    """
    suffixes = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES)
    found = sorted(path for path in folder.iterdir() if path.name.lower().endswith(suffixes))
    held_out = found[:: max(FEWEST_PER_HELD_OUT, -(-len(found) // MAX_HELD_OUT))]
    others = [path for path in found if path not in set(held_out)]
    if len(others) < FEWEST:
        raise ValueError(f"{folder} holds {len(found)} images; --int8 needs at least {FEWEST} to calibrate with")
    return others[:: -(-len(others) // MAX_CALIBRATING)], held_out


def collect_inputs(segmenter: Any, paths: Sequence[Path]) -> list[np.ndarray]:
    """Returns what a bundle's network is given for images: of a volume the window in the middle.

    Raises:
        ValueError: an image cannot be read.
    """
    inputs, windows = [], []
    network = segmenter.predictor

    def note(window: torch.Tensor) -> torch.Tensor:
        windows.append(convert_to_tensor(window, track_meta=False).numpy().copy())
        logits: torch.Tensor = network(window)
        return logits

    segmenter.predictor = note
    try:
        for path in paths:
            windows.clear()
            segmenter.infer([segmenter.reader.read([path])])
            inputs.append(windows[len(windows) // 2][:1])
    finally:
        segmenter.predictor = network
    return inputs


def quantize(path: Path, inputs: Sequence[np.ndarray]) -> None:
    """Replaces a written OpenVINO model by its quantised one, with the same facts in it.

    Args:
        inputs: of the network, (B, C, sides...), like those that it was trained on.
    """
    import openvino

    with quiet(), redirect_stdout(StringIO()):  # bars of progress
        import nncf

        model = openvino.Core().read_model(path)
        facts = {key: str(value) for key, value in model.get_rt_info("mobileutr").value.items()}
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=["Convolution", "GroupConvolution"]),
        )
    for key, value in facts.items():
        quantized.set_rt_info(value, ["mobileutr", key])
    whole = path.with_name(f"int8-{path.name}")
    openvino.save_model(quantized, whole, compress_to_fp16=False)
    del model, quantized  # their weights lie in the file that is replaced
    for suffix in (".bin", path.suffix):
        whole.with_suffix(suffix).replace(path.with_suffix(suffix))
