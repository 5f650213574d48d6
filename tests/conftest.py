"""What the tests share: the repository's bundles, and commands, in this process or in one of their own."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"

SPREAD = ("test_bundle_commands.py",)
"""Files that make nothing costly that their tests share: several processes may run them."""

Command = Callable[..., subprocess.CompletedProcess]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With several processes, one runs all tests of a file, so that its fixtures are made once.

    Not ``--dist loadgroup``: with pytest 9.2, pytest-xdist 3.8 no longer sees the groups.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            if "/monai_label/" in file:  # whose servers start once for all files
                return "label_pacs" if "pacs" in file else "label"
            return nodeid if file.endswith(SPREAD) else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def breast() -> Path:
    """The breast ultrasound bundle, with its shipped weights and samples."""
    return BREAST


@pytest.fixture
def open_runner(breast: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes the runner of the bundle's config, from the folder ``in`` of a test to ``out``; ids may be replaced."""
    from monai.bundle import ConfigParser

    def make(**values: Any) -> Any:
        parser = ConfigParser()
        parser.read_config(str(breast / "configs" / "inference.json"))
        parser.read_meta(str(breast / "configs" / "metadata.json"))
        folders = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
        parser.update({"bundle_root": str(breast)} | folders | values)
        return parser.get_parsed_content("runner")

    return make


@pytest.fixture(scope="session")
def python() -> Command:
    """Runs ``python ARGUMENTS`` in a process of its own; returns the process with its output as text."""

    def run(*arguments: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONWARNINGS": "ignore", **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@contextmanager
def leave_no_trace(cwd: Path) -> Iterator[None]:
    """Does in ``cwd`` what a process may do to itself, and undoes it: the directory, the path, the logging."""
    before, path, handlers, level = Path.cwd(), list(sys.path), list(logging.root.handlers), logging.root.level
    hook = sys.excepthook
    os.chdir(cwd)
    for reference in logging._handlerList:
        # absl's closes its stream when MONAI configures the logging: pytest's file of what is captured.
        if isinstance(handler := reference(), logging.StreamHandler) and type(handler).__module__.startswith("absl"):
            handler.setStream(io.StringIO())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        sys.excepthook = hook


def call(function: Callable[[list[str]], object], arguments: list[str], cwd: Path) -> subprocess.CompletedProcess:
    """Calls a program's entry here, as if it were a process: importing torch and MONAI again takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with leave_no_trace(cwd), redirect_stdout(out), redirect_stderr(err):
        try:
            code = function(arguments)
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(arguments, int(code or 0), out.getvalue(), err.getvalue())  # type: ignore[call-overload]


def run_monai_bundle(arguments: list[str]) -> int:
    """What ``python -m monai.bundle ARGUMENTS`` does."""
    import fire
    from monai.bundle import ckpt_export, onnx_export, run, verify_metadata, verify_net_in_out

    verbs = (run, verify_metadata, verify_net_in_out, ckpt_export, onnx_export)
    fire.Fire({verb.__name__: verb for verb in verbs}, command=arguments, name="monai.bundle")
    return 0


@pytest.fixture(scope="session")
def monai_bundle(python: Command) -> Command:
    """Does ``python -m monai.bundle ARGUMENTS`` and expects that it works; with ``module`` in a process of its own."""

    def run(*arguments: object, cwd: Path, module: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        if module:
            process = python(*module, *arguments, cwd=cwd)
        else:
            process = call(run_monai_bundle, [str(argument) for argument in arguments], cwd)
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
        return process

    return run


@pytest.fixture(scope="session")
def mobileutr() -> Command:
    """Does ``mobileutr ARGUMENTS``, whatever comes of it."""
    from mobileutr_monai.__main__ import main

    def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
        return call(main, [str(argument) for argument in arguments], cwd)

    return run


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One folder for all processes of a test run: what takes long to make is made once, under a lock."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def engine_cache(shared_folder: Path) -> Iterator[Path]:
    """A cache of the test run's own for what engines make once: exporting takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEUTR_CACHE", str(shared_folder / "cache"))
        yield shared_folder / "cache"


@pytest.fixture(scope="session")
def end_to_end_onnx(breast: Path, shared_folder: Path) -> Path:
    """The breast ultrasound bundle as an ONNX file that takes pixels."""
    from mobileutr_monai.export.bundle import export_bundle

    output = shared_folder / "end_to_end" / "breast.onnx"
    with FileLock(shared_folder / "end_to_end.lock"):
        if not output.is_file():
            output.parent.mkdir(exist_ok=True)
            export_bundle(breast, "onnx", output, end_to_end=True)
    return output
