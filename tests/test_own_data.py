"""The commands of docs/own_data.md, taken from the page and run in its order on a part of BUSI in another coding."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from mobileutr_monai.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
BUSI = ROOT.parent / "shared" / "data" / "busi"
SHAPES = ROOT / "tests" / "networks" / "data" / "state_dict_shapes.json"
CASES = [f"{kind} ({number})" for kind in ("benign", "malignant") for number in (3, 5, 7, 9, 11, 13)]


def read_commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "own_data.md").read_text(), re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in block.replace("\\\n", " ").strip().splitlines()]


def cut_down(command: str) -> str:
    """Makes a command of the page short, since this is about the commands."""
    command = re.sub(r"--epochs \d+", "--epochs 1", command).replace("--roi-size 32,48,32", "--roi-size 16,16,16")
    if command.startswith(("mobileutr train", "mobileutr evaluate")):
        command += " --set batch_size=2"
        if "VOLUMES" not in command:
            command += " --set image_size=[64,64]"
    return command + " --image_size [64,64]" * ("monai.bundle" in command)


def run_command(command: str) -> None:
    """Runs the command in this process; those of other programs in a shell."""
    if command.startswith("mobileutr "):
        assert main(shlex.split(command)[1:]) == 0, command
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def save_volumes(data: Path) -> None:
    """Writes volumes as nnU-Net has them: the shipped samples, under names of more cases."""
    samples = ROOT / "bundles" / "hippocampus_mri_segmentation" / "sample_data"
    files = sorted((samples / "images").glob("*.nii.gz"))
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for index in range(5):
        source = files[index % len(files)]
        image = nib.load(source)
        values = np.asarray(image.dataobj, np.float32) + index  # no two files are equal
        nib.save(nib.Nifti1Image(values, image.affine), data / "imagesTr" / f"case_{index}_0000.nii.gz")
        shutil.copy(samples / "labels" / source.name, data / "labelsTr" / f"case_{index}.nii.gz")


def save_red_masks(data: Path) -> None:
    """Writes cases as BUSI is on Kaggle, one folder per diagnosis, with masks in red on black."""
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
    """Runs the commands of the page in its order; returns ``WORK``."""
    if not BUSI.is_dir():
        pytest.skip(f"no images in {BUSI}")
    root = tmp_path_factory.mktemp("own")
    places = ("DATA", "WORK", "IMAGES", "CHECKPOINT", "NEW_VOLUMES", "VOLUMES")
    names = {name: root / name.lower() for name in places}
    for name in ("WORK", "IMAGES", "NEW_VOLUMES"):
        names[name].mkdir()
    save_red_masks(names["DATA"])
    save_official_checkpoint(names["CHECKPOINT"])
    save_volumes(names["VOLUMES"])
    shutil.copy(names["VOLUMES"] / "imagesTr" / "case_0_0000.nii.gz", names["NEW_VOLUMES"] / "new.nii.gz")
    Image.open(BUSI / "images" / f"{CASES[0]}.jpg").save(names["IMAGES"] / "new.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for command in read_commands():
            short = cut_down(" ".join(command.split()))
            run_command(re.sub(rf"\b({'|'.join(places)})\b", lambda match: str(names[match[1]]), short))
    return names["WORK"]


def test_check_reads_the_red_masks(work: Path) -> None:
    coding = json.loads((work / "report.json").read_text())["mask_coding"]
    assert "#ff0000" in json.dumps(coding)


def test_a_run_keeps_what_the_page_says(work: Path) -> None:
    run = work / "my_lesions" / "runs" / "first"
    page = (ROOT / "docs" / "own_data.md").read_text()
    table = page.split("The run has a folder of its own:")[1].split("\n\n`WORK")[0]
    names = re.findall(r"`([\w./]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "`" in line))
    assert names and all((run / name).exists() for name in names)
    with (run / "training_log.csv").open(newline="") as log:
        assert [row["epoch"] for row in csv.DictReader(log)] == ["1"]


def test_evaluation_scores_the_set_aside_images(work: Path) -> None:
    rows = (work / "evaluation" / "val_mean_dice_raw.csv").read_text().splitlines()
    datalist = json.loads((work.parent / "data" / "datalist.json").read_text())
    assert sum("_mask" not in row and ".png" in row for row in rows) == len(datalist["testing"])


def test_folds_have_one_table(work: Path) -> None:
    rows = (work / "my_lesions" / "runs" / "folds" / "folds.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["0", "6"], ["1", "6"], ["all", "12"]]


@pytest.mark.parametrize("folder", ["predictions", "together", "together_monai", "official"])
def test_predictions_have_the_size_of_the_image(folder: str, work: Path) -> None:
    image = Image.open(work.parent / "images" / "new.png")
    assert Image.open(work / folder / "new_mask.png").size == image.size


def test_both_commands_average_the_same(work: Path) -> None:
    masks = [np.asarray(Image.open(work / folder / "new_mask.png")) for folder in ("together", "together_monai")]
    assert np.array_equal(*masks)


def test_volumes_are_segmented_on_their_own_grid(work: Path) -> None:
    image = nib.load(work.parent / "new_volumes" / "new.nii.gz")
    assert nib.load(work / "organ_predictions" / "new_mask.nii.gz").shape == image.shape
