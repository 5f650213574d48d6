"""A packed bundle in MONAI Label's own bundle app, where the project is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from label_service import ROOT, free_port, read_picture, run_server, skip_without_label
from PIL import Image

BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
LABEL_ENVIRONMENT = ROOT / ".venv-label"


def make_bare_environment(folder: Path) -> Path:
    """An interpreter with what .venv-label has but this project: .pth files of a folder that one adds are not read."""
    python = LABEL_ENVIRONMENT / "bin" / "python"
    subprocess.run([str(python), "-m", "venv", "--without-pip", str(folder)], check=True)
    (source,) = LABEL_ENVIRONMENT.glob("lib/*/site-packages")
    (target,) = folder.glob("lib/*/site-packages")
    (target / "installed.pth").write_text(f"{source}\n")
    return folder / "bin" / "python"


def test_the_stock_app_serves_a_packed_bundle(monai_bundle, tmp_path):
    skip_without_label()
    python = make_bare_environment(tmp_path / "venv")
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mobileutr_monai') is not None)"
    subprocess.run([str(python), "-c", find], cwd=tmp_path, check=True)
    app, studies = tmp_path / "app", tmp_path / "studies"
    shutil.copytree(LABEL_ENVIRONMENT / "monailabel" / "sample-apps" / "monaibundle", app)
    pack = [sys.executable, str(ROOT / "scripts" / "pack_bundle.py"), str(BREAST), "--output", str(tmp_path / "b.zip")]
    subprocess.run(pack, check=True)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(app / "model")
    studies.mkdir()
    sample = BREAST / "sample_data" / "images" / "malignant (53).jpg"  # a lesion that is found
    shutil.copy(sample, studies)
    monai_bundle(
        *("run", "--config_file", "configs/inference.json", "--dataset_dir", studies, "--output_dir", tmp_path / "out"),
        cwd=BREAST,
    )
    port = free_port()
    command = [str(python), "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--conf", "models", BREAST.name]
    command += ["--conf", "zoo_source", "local", "--conf", "sam2", "false"]
    with run_server(command, port, BREAST.name, tmp_path, app, PYTHONPATH="") as server:
        answer = server.infer(sample.stem)
        assert answer.status == 200, answer.body
        expected = np.asarray(Image.open(next((tmp_path / "out").rglob("*_mask.png"))))
        assert np.array_equal(read_picture(answer.body), expected)
