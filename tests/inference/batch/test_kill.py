"""A run that is killed or interrupted, as a process of its own, and the resumed run."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

IMAGES = 24


@pytest.fixture
def command(breast, tmp_path) -> list[str]:
    (tmp_path / "in").mkdir()
    samples = sorted((breast / "sample_data" / "images").iterdir())
    for index in range(IMAGES):
        shutil.copyfile(samples[index % len(samples)], tmp_path / "in" / f"{index:02}.jpg")
    program = [sys.executable, "-W", "ignore", "-m", "mobileutr_monai", "predict", str(breast), str(tmp_path / "in")]
    return [*program, "--batch-size", "1", "--no-overlays", "--output"]


def read_report(folder: Path) -> list[dict[str, str]]:
    with (folder / "report.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def stop_after_some_cases(command: list[str], output: Path, number: signal.Signals) -> subprocess.CompletedProcess:
    with subprocess.Popen([*command, str(output)], stderr=subprocess.PIPE, text=True) as process:
        while not list(output.glob("*_mask.png")):
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, number)
        _, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, stderr=stderr)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_goes_on_to_what_an_uninterrupted_run_gives(command, tmp_path, number):
    output, whole = tmp_path / "out", tmp_path / "whole"
    stopped = stop_after_some_cases(command, output, number)
    assert len(list(output.glob("*_mask.png"))) < IMAGES, "it was stopped too late to prove anything"
    if number is signal.SIGINT:
        assert stopped.returncode == 1
        assert "Traceback" not in stopped.stderr
        assert "run the same command again to resume" in stopped.stderr
        assert not list(output.glob("*.tmp"))
    subprocess.run([*command, str(output)], check=True, capture_output=True)
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    expected = {path.name: path.read_bytes() for path in whole.glob("*_mask.png")}
    assert len(expected) == IMAGES
    assert {path.name: path.read_bytes() for path in output.glob("*_mask.png")} == expected
    assert read_report(output) == read_report(whole)
    pages = [re.findall('"data:image[^"]*"', (folder / "report.html").read_text()) for folder in (output, whole)]
    assert len(pages[0]) == 2 * IMAGES, "a picture and contours of every case, also of those done before the stop"
    assert pages[0] == pages[1]
