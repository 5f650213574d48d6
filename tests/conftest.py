"""What the tests share: the repository's bundles, and commands run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def breast() -> Path:
    """The breast ultrasound bundle, with its shipped weights and samples."""
    return BREAST


@pytest.fixture(scope="session")
def python() -> Command:
    """Runs ``python ARGUMENTS`` with this interpreter; returns the process with its output as text."""

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


@pytest.fixture(scope="session")
def monai_bundle(python: Command) -> Command:
    """Runs ``python -m monai.bundle ARGUMENTS`` and expects that it works."""

    def run(
        *arguments: object, cwd: Path, module: tuple[str, ...] = ("-m", "monai.bundle")
    ) -> subprocess.CompletedProcess:
        process = python(*module, *arguments, cwd=cwd)
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
        return process

    return run


@pytest.fixture(scope="session")
def mobileutr(python: Command) -> Command:
    """Runs ``python -m mobileutr_monai ARGUMENTS``, whatever comes of it."""

    def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
        return python("-m", "mobileutr_monai", *arguments, cwd=cwd)

    return run


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for what engines make once, shared by all tests: exporting takes a while."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEUTR_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def raw_onnx(breast: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast ultrasound bundle as an ONNX file that takes pixels."""
    from mobileutr_monai.export.bundle import export_bundle

    return export_bundle(breast, "onnx", tmp_path_factory.mktemp("raw") / "breast.onnx", raw=True).files[0]
