"""The command imports MONAI without what it does not use, and only where that is sure."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.inference.batch.processes.light_imports import UNUSED, find_unused

BUNDLES = ("breast_ultrasound", "skin_dermoscopy", "colon_endoscopy", "hippocampus_mri")


@pytest.mark.parametrize("name", BUNDLES)
def test_shipped_bundles_need_none_of_it(repository: Path, name: str) -> None:
    assert find_unused(repository / "bundles" / f"{name}_segmentation" / "configs" / "inference.json") == UNUSED


def change(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: config | values


@pytest.mark.parametrize(
    "changed",
    [
        change(run=["$@evaluator.run()"]),
        change(imports=["$import monai", "$from my_transforms import denoise"]),
        change(imports=["$__import__('ignite')"]),
        change(preprocessing={"_target_": "my_package.transforms.Denoised"}),
        change(preprocessing={"_target_": "UltrasoundConfidenceMapTransformd", "keys": "image"}),
        lambda config: config | {"runner": {**config["runner"], "segmenter": "$@evaluator.network"}},
        lambda config: [config],
    ],
)
def test_other_configs_get_all_of_monai(breast: Path, tmp_path: Path, changed: Any) -> None:
    config = json.loads((breast / "configs" / "inference.json").read_text(encoding="utf-8"))
    (tmp_path / "inference.json").write_text(json.dumps(changed(config)), encoding="utf-8")
    assert find_unused(tmp_path / "inference.json") == ()


def test_a_config_that_cannot_be_read_gets_all_of_monai(tmp_path: Path) -> None:
    (tmp_path / "inference.json").write_text("{", encoding="utf-8")
    assert find_unused(tmp_path / "inference.json") == find_unused(tmp_path / "none.json") == ()


@pytest.mark.slow
def test_the_command_gives_the_mask_of_the_function_without_importing_it(
    breast: Path, mobileutr: Any, tmp_path: Path
) -> None:
    image = breast / "sample_data" / "images" / "benign (91).jpg"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(image.read_bytes())
    script = (
        "import sys; from mobileutr_monai.__main__ import command; code = command();"
        "print(*sys.modules); import scipy.signal, ignite.engine; sys.exit(code)"
    )
    call = [sys.executable, "-c", script, "predict", breast, tmp_path / "in", "--output", tmp_path / "command"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "monai" in loaded and not {"ignite.engine", "scipy.signal", "torch.distributed.fsdp", "sympy"} & loaded
    assert mobileutr("predict", breast, tmp_path / "in", "--output", tmp_path / "main").returncode == 0
    masks = [np.asarray(Image.open(tmp_path / run / "a_mask.png")) for run in ("command", "main")]
    assert masks[0].any() and np.array_equal(*masks)
    rows = []
    for run in ("command", "main"):
        with (tmp_path / run / "report.csv").open(newline="", encoding="utf-8") as file:
            rows.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
