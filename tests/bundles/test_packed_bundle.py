"""A packed bundle where the project is not installed: it runs, exports, trains and takes part in federated learning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"
SMALL = {
    "breast_ultrasound_segmentation": ("--image_size", "[32,32]"),
    "hippocampus_mri_segmentation": ("--roi_size", "[16,16,16]"),
}


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with everything but this project: a .pth file adds packages, not what they have in .pth files."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module", params=SMALL)
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    command = [sys.executable, str(ROOT / "scripts" / "pack_bundle.py"), str(BUNDLES / request.param)]
    subprocess.run([*command, "--output", str(folder / "bundle.zip")], check=True)
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        archive.extractall(folder)
    return folder / request.param


def run(python: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=cwd,
        env={**environment, "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    return process


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    pictures = {path.name: np.asarray(Image.open(path)) for path in folder.rglob("*_mask.png")}
    return pictures | {path.name: np.asarray(nib.load(path).dataobj) for path in folder.rglob("*_mask.nii.gz")}


def test_the_project_is_not_installed_there(bare_python, tmp_path):
    code = "import importlib.util as u; print(u.find_spec('mobileutr_monai'), u.find_spec('monai') is not None)"
    assert run(bare_python, "-c", code, cwd=tmp_path).stdout.split() == ["None", "True"]


def test_the_package_is_not_required_but_inside(packed):
    metadata = json.loads((packed / "configs" / "metadata.json").read_text())
    assert "mobileutr-monai" not in metadata["required_packages_version"]
    assert "monai_version" in metadata
    assert (packed / "mobileutr_monai" / "__init__.py").is_file()


def test_it_runs_from_anywhere_to_the_same_masks(packed, bare_python, monai_bundle, tmp_path):
    arguments = ("run", "--bundle_root", packed, "--config_file", packed / "configs" / "inference.json")
    meta = ("--meta_file", packed / "configs" / "metadata.json")
    run(bare_python, "-m", "monai.bundle", *arguments, *meta, "--output_dir", tmp_path / "packed", cwd=tmp_path)
    source = BUNDLES / packed.name
    monai_bundle("run", "--config_file", "configs/inference.json", "--output_dir", tmp_path / "source", cwd=source)
    expected, found = read_masks(tmp_path / "source"), read_masks(tmp_path / "packed")
    assert expected.keys() == found.keys() != set()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_every_command_works_from_its_root(packed, bare_python, tmp_path):
    files = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")
    run(bare_python, "-m", "monai.bundle", "verify_net_in_out", "--net_id", "network_def", *files, cwd=packed)
    export = ("--net_id", "network_def", "--filepath", tmp_path / "model.ts", "--ckpt_file", "models/model.pt", *files)
    run(bare_python, "-m", "monai.bundle", "ckpt_export", *export, cwd=packed)
    target = ("--output_dir", tmp_path, "--ckpt_dir", tmp_path / "models", "--max_epochs", "1", "--batch_size", "2")
    train = ("--config_file", "configs/train.json", *SMALL[packed.name], *target)
    run(bare_python, "-m", "monai.bundle", "run", *train, cwd=packed)
    assert (tmp_path / "models" / "model.pt").is_file()
    load = f"from monai.bundle import load; print(type(load('{packed.name}', bundle_dir='..')).__name__)"
    assert run(bare_python, "-c", load, cwd=packed).stdout.split()[-1] == "MobileUtr"


FEDERATED = """
import json, sys
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import get_state_dict

overrides, site = json.loads(sys.argv[1]), sys.argv[2]
target = {"output_dir": site, "ckpt_dir": site + "/models"}
# The schedule of one run, whose length is known, does not continue over the rounds of a federation.
constant = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "optimizer": "@optimizer", "factor": 1.0}
algo = MonaiAlgo(
    bundle_root=".",
    local_epochs=1,
    train_kwargs={**overrides, **target, "lr_scheduler": constant},
    eval_kwargs={**overrides, **target, "section": "training"},
)
algo.initialize(extra={ExtraItems.CLIENT_NAME: "site", ExtraItems.APP_ROOT: "."})
for _ in range(2):
    weights = {name: value.clone() for name, value in get_state_dict(algo.trainer.network).items()}
    algo.train(ExchangeObject(weights=weights))
    difference = algo.get_weights().weights
    assert any(abs(value).max() > 0 for value in difference.values())
metrics = algo.evaluate(ExchangeObject(weights=get_state_dict(algo.trainer.network))).metrics
algo.finalize()
print("rounds", algo.trainer.state.epoch, "val_mean_dice" in metrics)
"""


def test_it_takes_part_in_federated_learning(packed, bare_python, tmp_path):
    name, size = SMALL[packed.name]
    overrides = json.dumps({name.lstrip("-"): json.loads(size), "batch_size": 2, "precision": "float32"})
    process = run(bare_python, "-c", FEDERATED, overrides, tmp_path, cwd=packed)
    assert process.stdout.split()[-3:] == ["rounds", "2", "True"]
