"""Runs with an engine: named in the report, refused or resumed as they must."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.inference.batch.runner import BatchRunner

ACCEPTED = {"accepted": True, "percent_differing": 0.0, "dice_change": 0.0}


@pytest.fixture
def make_runner(breast: Path, tmp_path: Path, engine_cache: Path) -> Callable[..., BatchRunner]:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in sorted((breast / "sample_data" / "images").iterdir())[:2]:
        shutil.copyfile(path, folder / path.name)

    def make(engine: str, allowed: tuple[str, ...] = (), **overrides: Any) -> BatchRunner:
        parser = ConfigParser()
        parser.read_config(str(breast / "configs" / "inference.json"))
        parser.read_meta(str(breast / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(breast), "dataset_dir": str(folder), "output_dir": str(tmp_path / "out")})
        parser.update({"engine": engine, "workers": 0, "overlays": False, "image_size": [64, 64], **overrides})
        parser["engine_parity"] = {
            "weights_sha256": hash_file(breast / "models" / "model.pt"),
            "settings": parser.get_parsed_content("settings"),
            "engines": dict.fromkeys(allowed, ACCEPTED),
        }
        runner: BatchRunner = parser.get_parsed_content("runner")
        return runner

    return make


def read_json(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def test_the_report_says_what_computed(make_runner: Callable[..., BatchRunner], tmp_path: Path) -> None:
    make_runner("torch-bf16", ("torch-bf16",)).main()
    assert read_json(tmp_path / "out", "run.json")["engine"] == "torch-bf16"
    report = read_json(tmp_path / "out", "report.json")
    assert (report["precision"], report["engine"]) == ("bfloat16", "torch-bf16")


def test_another_engine_does_not_resume_an_earlier_run(
    make_runner: Callable[..., BatchRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_runner("torch").main()
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*_mask.png")}
    with pytest.raises(SystemExit, match="2"):
        make_runner("torch-folded", ("torch-folded",)).main()
    assert "engine" in capsys.readouterr().err
    make_runner("torch-folded", ("torch-folded",), overwrite=True).main()
    assert len(first) == 2
    assert all(path.stat().st_mtime_ns > time for path, time in first.items())


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("torch-folded", "engine torch-folded was not compared with torch for these weights and settings"),
        ("tensorflow", "engine 'tensorflow' is unknown; choose one of auto, torch"),
    ],
)
def test_an_engine_that_may_not_be_used_ends_the_run_at_once(
    engine: str,
    message: str,
    make_runner: Callable[..., BatchRunner],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        make_runner(engine).main()
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_auto_takes_the_fastest_of_those_that_may_be_used(
    make_runner: Callable[..., BatchRunner], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_runner("auto", ("torch-folded",)).main()
    chosen = read_json(tmp_path / "out", "run.json")["engine"]
    assert chosen in ("torch", "torch-folded")
    assert f"engine {chosen} is the fastest here" in caplog.text
