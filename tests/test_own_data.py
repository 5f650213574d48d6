"""The commands of docs/own_data.md, taken from the page and run in its order on a part of BUSI in another coding."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
BUSI = ROOT.parent / "shared" / "data" / "busi"
SHAPES = ROOT / "tests" / "networks" / "data" / "state_dict_shapes.json"
CASES = [f"{kind} ({number})" for kind in ("benign", "malignant") for number in (3, 5, 7, 9, 11, 13)]
# Cut down, since this is about the commands.
SMALL = {"train.json": "--image_size [64,64] --batch_size 2", "inference.json": "--image_size [64,64]"}


def read_commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "own_data.md").read_text(), re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in block.replace("\\\n", " ").strip().splitlines()]


def cut_down(command: str) -> str:
    command = re.sub(r"--max_epochs \d+", "--max_epochs 1", command)
    return command + "".join(f" {options}" for config, options in SMALL.items() if config in command)


def save_red_masks(data: Path) -> None:
    """Writes cases as BUSI is on Kaggle, one folder a diagnosis, with masks in red on black."""
    for name in CASES:
        folder = data / name.split()[0]
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(BUSI / "images" / f"{name}.jpg").save(folder / f"{name}.png")
        foreground = np.asarray(Image.open(next((BUSI / "masks" / "0").glob(f"{name}.*"))).convert("L")) > 127
        red = np.stack([255 * foreground, 0 * foreground, 0 * foreground], -1).astype(np.uint8)
        Image.fromarray(red).save(folder / f"{name}_mask.png")


def save_official_checkpoint(path: Path) -> None:
    shapes = json.loads(SHAPES.read_text())["mobileutr"]
    torch.save({"state_dict": {key: torch.zeros(shape) for key, shape in shapes.items()}}, path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs the page in one shell, as one does; returns ``WORK``."""
    if not BUSI.is_dir():
        pytest.skip(f"no images in {BUSI}")
    root = tmp_path_factory.mktemp("own")
    names = {name: root / name.lower() for name in ("DATA", "WORK", "IMAGES", "CHECKPOINT")}
    names["WORK"].mkdir()
    names["IMAGES"].mkdir()
    save_red_masks(names["DATA"])
    save_official_checkpoint(names["CHECKPOINT"])
    Image.open(BUSI / "images" / f"{CASES[0]}.jpg").save(names["IMAGES"] / "new.png")
    script = "\n".join(cut_down(command) for command in read_commands())
    script = re.sub(r"\b(DATA|WORK|IMAGES|CHECKPOINT)\b", lambda match: str(names[match[1]]), script)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", f"set -x\n{script}"],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return names["WORK"]


def test_the_page_goes_through_every_step() -> None:
    verbs = [re.search(r"mobileutr (\S+)|configs/(\w+)\.json'?\]?\"? ", command) for command in read_commands()]
    assert [match[1] or match[2] for match in verbs if match] == [
        *("check", "check", "check", "split", "new-bundle", "train", "evaluate", "predict", "convert")
    ]


def test_check_reads_the_red_masks(work: Path) -> None:
    coding = json.loads((work / "report.json").read_text())["mask_coding"]
    assert "#ff0000" in json.dumps(coding)


def test_trained_weights_replace_those_that_training_began_with(work: Path) -> None:
    bundle = work / "my_lesions"
    (before,) = (bundle / "models" / "previous").iterdir()
    assert before.read_bytes() == (ROOT / "bundles/breast_ultrasound_segmentation/models/model.pt").read_bytes()
    with (bundle / "eval" / "training_log.csv").open(newline="") as log:
        assert [row["epoch"] for row in csv.DictReader(log)] == ["1"]


def test_evaluation_scores_the_set_aside_images(work: Path) -> None:
    rows = (work / "evaluation" / "val_mean_dice_raw.csv").read_text().splitlines()
    datalist = json.loads((work.parent / "data" / "datalist.json").read_text())
    assert sum("_mask" not in row and ".png" in row for row in rows) == len(datalist["testing"])


@pytest.mark.parametrize("folder", ["predictions", "official"])
def test_predictions_have_the_size_of_the_image(folder: str, work: Path) -> None:
    image = Image.open(work.parent / "images" / "new.png")
    assert Image.open(work / folder / "new_mask.png").size == image.size
