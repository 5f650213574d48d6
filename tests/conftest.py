"""What the tests share: the repository's bundles, and commands run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
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
