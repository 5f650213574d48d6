"""``mobileutr train`` and ``mobileutr evaluate``, in the process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from mobileutr_monai.__main__ import main
from mobileutr_monai.bundle.new_bundle import make_bundle
from mobileutr_monai.bundle.training import format_scores
from tests.bundle.training_data import SIDES, save_images

SMALL = ("--epochs", "1", "--set", "image_size=[32,32]", "--set", "batch_size=2", "--set", "precision=float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("data"))


@pytest.fixture
def bundle(breast: Path, tmp_path: Path) -> Path:
    return make_bundle("mine", breast, ["lesion"], tmp_path / "bundles", pretrained=False).folder


def test_train_says_what_it_does_and_gives_the_weights_of_monai_bundle_run(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(bundle), str(data), "--output", str(run), *SMALL]) == 0
    said = capsys.readouterr().out
    for text in ("precision float32", "4 cases to train on, 2 to validate on", "1 epoch of 2 steps", f"output: {run}"):
        assert text in said
    assert (run / "worst_cases.png").is_file() and (run / "curve.png").is_file()

    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "train.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(bundle),
        dataset_dir=str(data),
        output_dir=str(tmp_path / "monai"),
        image_size=[32, 32],
        batch_size=2,
        max_epochs=1,
        precision="float32",
    )
    workflow.initialize()
    workflow.run()
    ours, theirs = (torch.load(f / "model.pt", weights_only=True) for f in (run, tmp_path / "monai"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "lerning_rate=0.1"), "no id 'lerning_rate'; did you mean 'learning_rate'?"),
        (("--set", "variant=huge"), "variant 'huge' is unknown; choose one of ['base', 'large']"),
        (("--pretrained", "none.pt"), "no weights at"),
        (("--overlay", "none"), "has no configs/none.json"),
        (("--resume",), "--resume needs the --output"),
        (("--datalist", "none.json"), "does not exist; mobileutr split makes one"),
    ],
)
def test_train_says_in_one_line_what_cannot_be_used(
    options: tuple[str, ...], message: str, bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(bundle), str(data), *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mobileutr: error: ")]
    assert message in line


def test_tensorboard_has_loss_and_scores_of_each_epoch(bundle: Path, data: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    command = ["train", str(bundle), str(data), "--output", str(run), *SMALL, "--set", "tensorboard=true"]
    assert main([*command, "--epochs", "2"]) == 0
    found: dict[str, list[int]] = {}
    for path in run.rglob("events.out.tfevents.*"):
        log = events.EventAccumulator(str(path)).Reload()
        for tag in log.Tags()["scalars"]:
            found.setdefault(tag, []).extend(event.step for event in log.Scalars(tag))
    assert sorted(set(found["val_mean_dice"])) == [1, 2]
    assert any("loss" in tag and len(steps) >= 2 for tag, steps in found.items())


def test_mlflow_has_loss_and_scores_of_each_epoch(
    bundle: Path, data: Path, tmp_path: Path, monai_bundle: Callable[..., object]
) -> None:
    mlflow = pytest.importorskip("mlflow")
    run = tmp_path / "run"
    command = ("run", "--config_file", "configs/train.json", "--dataset_dir", data, "--output_dir", run)
    small = ("--max_epochs", 2, "--image_size", "[32,32]", "--batch_size", 2, "--precision", "float32")
    monai_bundle(*command, *small, "--tracking", "mlflow", cwd=bundle)
    mlflow.set_tracking_uri(f"sqlite:///{run / 'mlruns.db'}")
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (tracked,) = client.search_runs(experiments)
    for metric, steps in {"train_loss": [1, 2, 3, 4], "val_mean_dice": [1, 2]}.items():
        assert [point.step for point in client.get_metric_history(tracked.info.run_id, metric)] == steps


def test_training_stops_at_errors_of_the_data_unless_told_not_to(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_images(tmp_path / "data")
    (data / "images" / "5.png").write_bytes((data / "images" / "0.png").read_bytes())
    (data / "masks" / "5.png").write_bytes((data / "masks" / "0.png").read_bytes())
    command = ["train", str(bundle), str(data), "--output", str(tmp_path / "run"), *SMALL]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "1 split_leak (" in said and "0.png = 5.png: training and validation" in said
    assert not (tmp_path / "run" / "model.pt").exists()
    assert main([*command, "--set", "check_data=false"]) == 0


def test_evaluate_prints_a_row_per_label_and_counts_images_that_lack_it(
    breast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = save_images(tmp_path / "data", training=1, validation=3), tmp_path / "scores"
    Image.new("L", SIDES[::-1]).save(data / "masks" / "1.png")
    given = (
        "--section",
        "validation",
        "--set",
        "image_size=[32,32]",
        "--set",
        "threshold=0.001",
        "--set",
        "min_peak=0",
    )
    assert main(["evaluate", str(breast), str(data), "--output", str(output), *given]) == 0
    said = capsys.readouterr().out
    (row,) = [line.split() for line in said.splitlines() if line.startswith("val_mean_dice")]
    assert row[1] == "lesion" and row[-1] == "2"
    assert "lesion: 1 of 3 images lack it" in said and "it is predicted in 1 of them" in said
    assert (output / "metrics.csv").is_file()


def test_scores_of_several_labels_have_their_names(tmp_path: Path) -> None:
    rows = ["filename,class0,class1,mean", "a.png,0.5,nan,0.5", "b.png,0.7,0.9,0.8"]
    (tmp_path / "val_mean_dice_raw.csv").write_text("\n".join(rows) + "\n")
    _, first, second = format_scores(tmp_path, ["val_mean_dice"], ["anterior", "posterior"]).splitlines()
    assert first.split()[1:3] == ["anterior", "0.6000"] and first.split()[-1] == "2"
    assert second.split()[1:3] == ["posterior", "0.9000"] and second.split()[-1] == "1"


def test_folds_are_trained_once_each_and_resumed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = save_images(tmp_path / "data", training=6, validation=0), tmp_path / "folds"
    (data / "datalist.json").unlink()
    command = ["train", str(bundle), str(data), "--output", str(run), "--folds", "2", *SMALL]
    assert main(command) == 0
    first = (run / "fold_0" / "model.pt").stat().st_mtime_ns
    (run / "fold_1" / "model.json").unlink()
    for name in ("run.json", "model.pt"):
        (run / "fold_1" / name).unlink()
    (run / "fold_1" / "training" / "last.pt").unlink()
    assert main(command) == 0
    assert (run / "fold_0" / "model.pt").stat().st_mtime_ns == first
    lines = (run / "folds.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["fold", "0", "1", "all"]
    assert lines[-1].split(",")[1] == "6"
    assert {item["fold"] for item in json.loads((run / "datalist.json").read_text())["training"]} == {0, 1}
    assert main([*command, "--set", "learning_rate=0.1"]) == 2
    assert "learning_rate" in capsys.readouterr().err
