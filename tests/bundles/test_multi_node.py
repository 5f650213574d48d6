"""Training over two nodes, each a torchrun of its own on this machine, that meet at a rendezvous endpoint."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 400
TRAIN, FOR_GPU, FOR_MANY = (f"configs/{name}.json" for name in ("train", "gpu_train", "multi_gpu_train"))
SMALL = ("--image_size", "[32,32]", "--batch_size", "2", "--precision", "float32")


class Nodes:
    """The torchrun of each node, with one process for the training."""

    def __init__(self, bundle: Path, log: Path, configs: tuple[str, ...], *options: object, restarts: int = 0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
        launch = ["--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", f"--rdzv_endpoint={endpoint}"]
        launch += ["--rdzv_id=test", f"--max-restarts={restarts}", "--local_addr=127.0.0.1"]
        config = "[" + ",".join(f"'{name}'" for name in configs) + "]"
        command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *launch, "-m", "monai.bundle", "run"]
        command += ["--config_file", config, *SMALL, *map(str, options)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # what docs/scale.md tells
        self.log = log
        with log.open("ab") as file:
            self.processes = [
                subprocess.Popen(command, cwd=bundle, env=environment, stdout=file, stderr=file) for _ in range(2)
            ]

    def kill_a_rank(self, node: int = 1) -> None:
        """Kills the training of one node."""
        ranks = psutil.Process(self.processes[node].pid).children(recursive=True)
        next(rank for rank in ranks if "monai.bundle" in rank.cmdline()).send_signal(signal.SIGKILL)

    def wait_for_epoch(self, folder: Path, epoch: int) -> None:
        """Waits until an epoch is in the log, and the checkpoint to resume from is written."""
        end = time.monotonic() + SECONDS
        log, last = folder / "training_log.csv", folder / "models" / "training" / "last.pt"
        while not last.is_file() or not log.is_file() or len(read_log(folder)) <= epoch:
            assert all(process.poll() is None for process in self.processes) and time.monotonic() < end
            time.sleep(0.02)

    def wait(self) -> None:
        for process in self.processes:
            process.wait(SECONDS)
            assert process.returncode == 0, self.log.read_text()[-3000:]

    def end(self) -> None:
        """Waits for the end of a training whose rank was killed."""
        for process in self.processes:
            assert process.wait(SECONDS) != 0

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


@pytest.fixture
def train(breast):
    running: list[Nodes] = []

    def start(configs: tuple[str, ...], output: Path, *options: object, restarts: int = 0) -> Nodes:
        target = ("--output_dir", output, "--ckpt_dir", output / "models", "--resume", "auto")
        running.append(Nodes(breast, output.with_suffix(".log"), configs, *target, *options, restarts=restarts))
        return running[-1]

    yield start
    for nodes in running:
        nodes.close()


def read_log(folder: Path) -> list[list[str]]:
    with (folder / "training_log.csv").open(newline="") as file:
        return [row[:3] + row[4:] for row in csv.reader(file)]  # without the seconds


def check_same(folder: Path, whole: Path) -> None:
    """Compares the log and the weights of a training with those of one that nobody stopped."""
    assert read_log(folder) == read_log(whole)
    assert [row[0] for row in read_log(folder)[1:]] == list("123456")
    states = [torch.load(run / "models" / "model.pt", weights_only=True) for run in (whole, folder)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_whose_rank_is_killed_resumes_to_the_same_weights(train, tmp_path):
    train((TRAIN, FOR_MANY), tmp_path / "whole", "--max_epochs", 6).wait()
    nodes = train((TRAIN, FOR_MANY), tmp_path / "killed", "--max_epochs", 6)
    nodes.wait_for_epoch(tmp_path / "killed", 1)
    nodes.kill_a_rank()
    nodes.end()
    train((TRAIN, FOR_MANY), tmp_path / "killed", "--max_epochs", 6).wait()
    check_same(tmp_path / "killed", tmp_path / "whole")
    # torchrun does so itself, whichever rank is killed.
    nodes = train((TRAIN, FOR_MANY), tmp_path / "restarted", "--max_epochs", 6, restarts=3)
    for node, epoch in enumerate((1, 3)):
        nodes.wait_for_epoch(tmp_path / "restarted", epoch)
        nodes.kill_a_rank(node)
    nodes.wait()
    check_same(tmp_path / "restarted", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_for_a_gpu_and_for_many_are_combined(train, tmp_path):
    options = ("--max_epochs", 2, "--train#trainer#accumulation_steps", 2)
    train((TRAIN, FOR_GPU, FOR_MANY), tmp_path / "run", *options).wait()
    log = read_log(tmp_path / "run")
    assert [row[0] for row in log[1:]] == ["1", "2"]
    assert float(log[-1][3]) >= 0
    weights = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
