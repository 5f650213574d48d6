"""Every command of the bundles' cards, run as written there on the shipped weights and samples."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigWorkflow, load
from PIL import Image

from mobileutr_monai.datasets.datalist import load_datalist
from mobileutr_monai.networks import MobileUtr

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SCHEMA = Path(__file__).parent / "meta_schema_20240725.json"
# One bundle of each family goes through every command; small sizes, since these tests are about commands.
SMALL_SIZE = {
    "breast_ultrasound_segmentation": ("--image_size", "[32,32]"),
    "hippocampus_mri_segmentation": ("--roi_size", "[16,16,16]"),
}
SMALL = ("--batch_size", "2", "--max_epochs", "2")


@pytest.fixture(scope="module", params=sorted(path.parent.name for path in BUNDLES.glob("*/bundle.yaml")))
def any_bundle(request: pytest.FixtureRequest) -> Path:
    return BUNDLES / request.param


@pytest.fixture(scope="module", params=SMALL_SIZE)
def bundle(request: pytest.FixtureRequest) -> Path:
    return BUNDLES / request.param


@pytest.fixture(scope="module")
def small(bundle: Path) -> tuple[str, ...]:
    return (*SMALL_SIZE[bundle.name], *SMALL)


def make_network(bundle: Path) -> MobileUtr:
    data_format = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]
    image, pred = data_format["inputs"]["image"], data_format["outputs"]["pred"]
    return MobileUtr(len(image["spatial_shape"]), image["num_channels"], pred["num_channels"])


def find_samples(bundle: Path) -> Path:
    """Returns a bundle's samples; one whose licence forbids to ship any borrows another's."""
    samples = bundle / "sample_data"
    return samples if samples.is_dir() else BUNDLES / "breast_ultrasound_segmentation" / "sample_data"


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def read_pixels(folder: Path) -> dict[str, np.ndarray]:
    images = {path.name: np.array(Image.open(path)) for path in folder.rglob("*_mask.png")}
    volumes = {path.name: np.asarray(nib.load(path).dataobj) for path in folder.rglob("*_mask.nii.gz")}
    return images | volumes


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_monai_load_gives_the_network_with_its_weights(any_bundle, workflow_type, monkeypatch):
    monkeypatch.chdir(any_bundle)
    network = load(any_bundle.name, bundle_dir=any_bundle.parent, workflow_type=workflow_type)
    assert isinstance(network, MobileUtr)
    shipped = torch.load(any_bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value, shipped[name].to(value.dtype)) for name, value in network.state_dict().items())


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_no_property_is_missing(any_bundle, workflow_type):
    workflow = ConfigWorkflow(
        config_file=str(any_bundle / "configs" / f"{workflow_type}.json"),
        workflow_type=workflow_type,
        logging_file=False,
        bundle_root=str(any_bundle),
        dataset_dir=str(find_samples(any_bundle) / ("images" if workflow_type == "inference" else "")),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_metadata_fits_the_schema(any_bundle, monai_bundle):
    monai_bundle("verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", SCHEMA, cwd=any_bundle)


def test_metadata_says_research_only(any_bundle):
    metadata = json.loads((any_bundle / "configs" / "metadata.json").read_text())
    assert "Research only" in metadata["intended_use"]
    assert "Not a medical device" in metadata["intended_use"]
    assert metadata["modalities"]
    assert metadata["version"] in metadata["changelog"]


def test_training_runs_from_the_bundles_root(bundle, small, monai_bundle, tmp_path):
    config = ("--config_file", "configs/train.json", "--dataset_dir", "sample_data")
    target = ("--output_dir", tmp_path, "--ckpt_dir", tmp_path / "models")
    monai_bundle("run", *config, *small, *target, cwd=bundle)
    log = read_csv(tmp_path / "training_log.csv")
    assert log[0][:4] == ["epoch", "loss", "learning_rate", "seconds"]
    assert [row[0] for row in log[1:]] == ["1", "2"]
    make_network(bundle).load_state_dict(torch.load(tmp_path / "models" / "model.pt", weights_only=True))


def test_the_papers_recipe_is_one_override(bundle, small, monai_bundle, tmp_path):
    configs = "['configs/train.json','configs/paper_recipe.json']"
    target = ("--output_dir", tmp_path, "--ckpt_dir", tmp_path / "models")
    monai_bundle("run", "--config_file", configs, *small, *target, cwd=bundle)
    rates = [float(row[2]) for row in read_csv(tmp_path / "training_log.csv")[1:]]
    assert rates == pytest.approx([0.01 * 0.5**0.9, 0], abs=1e-4)


GPU_TRAINING = ("--config_file", "['configs/train.json','configs/gpu_train.json']")


def test_training_for_a_gpu_trains_where_only_its_graphs_are_left_out(breast, monai_bundle, tmp_path):
    arguments = (*GPU_TRAINING, "--image_size", "[32,32]", *SMALL, "--precision", "float32")
    without_gpu = ("--train#trainer#network", "@network", "--require_gpu", "$print")
    monai_bundle("run", *arguments, *without_gpu, "--output_dir", tmp_path, "--ckpt_dir", tmp_path, cwd=breast)
    head, first, second = read_csv(tmp_path / "training_log.csv")
    assert head == ["epoch", "loss", "learning_rate", "seconds", "val_mean_dice", "val_mean_iou"]
    assert first[4] == "" and float(second[4]) >= 0  # validated every fifth epoch, and of fewer the last
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_training_for_a_gpu_says_that_it_needs_one(breast, python, tmp_path):
    arguments = ("--image_size", "[32,32]", "--ckpt_dir", tmp_path)
    process = python("-m", "monai.bundle", "run", *GPU_TRAINING, *arguments, cwd=breast)
    assert process.returncode != 0
    assert "Loading dataset" not in process.stderr  # which may take minutes
    assert "CUDA graphs need a GPU, but device is cpu; train without gpu_train.json" in process.stderr


@pytest.mark.slow
def test_a_killed_training_goes_on_from_anywhere_to_the_same_weights(bundle, small, monai_bundle, tmp_path):
    arguments = ("run", "--bundle_root", bundle, "--config_file", bundle / "configs" / "train.json")
    # In bfloat16, 3D convolutions on a CPU with AMX round differently from run to run, stopped or not.
    arguments += (*small[:-1], "8", "--precision", "float32")

    def target(name: str) -> tuple:
        return ("--output_dir", tmp_path / name, "--ckpt_dir", tmp_path / name / "models")

    monai_bundle(*arguments, *target("whole"), cwd=tmp_path)
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", *map(str, (*arguments, *target("killed")))]
    checkpoint = tmp_path / "killed" / "models" / "training" / "last.pt"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not checkpoint.is_file():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "killed" / "models" / "model.pt").exists()
    monai_bundle(*arguments, *target("killed"), "--resume", "True", cwd=tmp_path)

    logs = [read_csv(tmp_path / name / "training_log.csv") for name in ("whole", "killed")]
    assert [row[:3] + row[4:] for row in logs[0]] == [row[:3] + row[4:] for row in logs[1]]
    states = [torch.load(tmp_path / n / "models" / "model.pt", weights_only=True) for n in ("whole", "killed")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_evaluation_writes_every_metric_of_every_image(bundle, monai_bundle, tmp_path):
    configs = "['configs/train.json','configs/evaluate.json']"
    arguments = ("--dataset_dir", "sample_data", "--section", "training", "--output_dir", tmp_path)
    monai_bundle("run", "--config_file", configs, *arguments, cwd=bundle)
    means = dict(read_csv(tmp_path / "metrics.csv"))
    cases = len(load_datalist(bundle / "sample_data")["training"])
    for name in ("val_mean_dice", "val_mean_iou", "val_precision", "val_recall", "val_hd95"):
        rows = read_csv(tmp_path / f"{name}_raw.csv")[1:]
        values = [[float(value) for value in row[1:-1]] for row in rows]  # one per label, then their mean
        assert len(rows) == cases
        assert float(means[name]) == pytest.approx(np.nanmean(values), rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_and_evaluate(bundle, small, monai_bundle, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle")
    train = "['configs/train.json','configs/multi_gpu_train.json']"
    target = ("--output_dir", tmp_path, "--ckpt_dir", tmp_path / "models")
    monai_bundle("run", "--config_file", train, *small, *target, cwd=bundle, module=torchrun)
    assert [row[0] for row in read_csv(tmp_path / "training_log.csv")[1:]] == ["1", "2"]

    evaluate = "['configs/train.json','configs/evaluate.json','configs/multi_gpu_evaluate.json']"
    arguments = (*SMALL_SIZE[bundle.name], "--section", "training", "--weights", tmp_path / "models" / "model.pt")
    monai_bundle("run", "--config_file", evaluate, *arguments, "--output_dir", tmp_path, cwd=bundle, module=torchrun)
    assert "val_mean_dice" in dict(read_csv(tmp_path / "metrics.csv"))


def test_inference_evaluator_and_command_give_the_same_pixels(bundle, monai_bundle, mobileutr, tmp_path):
    config = ("run", "--config_file", "configs/inference.json", "--dataset_dir", "sample_data/images")
    program = ("-m", "monai.bundle")  # a process once, as on the card
    monai_bundle(*config, "--output_dir", tmp_path / "runner", cwd=bundle, module=program)
    monai_bundle(*config, "--output_dir", tmp_path / "evaluator", "--run", "$@evaluator.run()", cwd=bundle)
    process = mobileutr("predict", bundle, bundle / "sample_data" / "images", "--output", tmp_path / "command")
    assert process.returncode == 0, process.stderr

    expected = read_pixels(tmp_path / "runner")
    assert len(expected) == len(list((bundle / "sample_data" / "images").iterdir()))
    for other in ("evaluator", "command"):
        found = read_pixels(tmp_path / other)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_network_is_verified_on_the_shapes_of_the_metadata(bundle, monai_bundle):
    files = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")
    monai_bundle("verify_net_in_out", "--net_id", "network_def", *files, cwd=bundle)


def test_exports_agree_with_the_weights(bundle, monai_bundle, tmp_path):
    files = ("--ckpt_file", "models/model.pt", "--meta_file", "configs/metadata.json")
    files += ("--config_file", "configs/inference.json", "--net_id", "network_def")
    script, onnx = tmp_path / "model.ts", tmp_path / "model.onnx"
    monai_bundle("ckpt_export", "--filepath", script, *files, cwd=bundle)
    image_format = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"][
        "image"
    ]
    shape = [1, image_format["num_channels"], *image_format["spatial_shape"]]
    monai_bundle("onnx_export", "--filepath", onnx, "--input_shape", str(shape), *files, cwd=bundle)

    network = make_network(bundle).eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    image = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image)
        scripted = torch.jit.load(script)(image)
    session = onnxruntime.InferenceSession(onnx)
    (exported,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    # Round-off of float32, which the gates amplify: tolerance of the reference vectors.
    torch.testing.assert_close(scripted, expected, rtol=0, atol=5e-4)
    torch.testing.assert_close(torch.from_numpy(exported), expected, rtol=0, atol=5e-4)
