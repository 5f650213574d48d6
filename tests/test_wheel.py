"""The built wheels, installed outside the checkout, segment with a bundle that is given by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from mobileutr_monai import __version__

pytestmark = pytest.mark.slow

NAME = "breast_ultrasound_segmentation"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What scripts/build_wheels.py writes, by the end of its name."""
    folder = tmp_path_factory.mktemp("dist")
    script = [sys.executable, repository / "scripts" / "build_wheels.py", "--output", folder]
    subprocess.run(script, check=True, env={**os.environ, "PYTHONPATH": str(repository)})
    package, bundles = f"mobileutr_monai-{__version__}", f"mobileutr_monai_bundles-{__version__}"
    files = {"wheel": f"{package}-py3-none-any.whl", "sdist": f"{package}.tar.gz"}
    files["bundles"] = f"{bundles}-py3-none-any.whl"
    assert {path.name for path in folder.iterdir()} == set(files.values())
    return {kind: folder / name for kind, name in files.items()}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the dependencies of this one and nothing of the project.

    They come by a .pth file, in which editable installs do not count.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (find_packages(folder) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture(scope="module")
def run(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Runs a command of the environment in a folder of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    folder = tmp_path_factory.mktemp("elsewhere")

    def call(program: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [environment / "bin" / program, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)

    return call


def find_packages(environment: Path) -> Path:
    return environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def install(wheel: Path, environment: Path) -> None:
    command = [*PIP, "--python", environment, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True)


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_sdist_makes_the_same_wheel(built: dict[str, Path], repository: Path, tmp_path: Path) -> None:
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, built["sdist"]]
    subprocess.run([*PIP, *build], check=True)
    (wheel,) = tmp_path.iterdir()
    with ZipFile(wheel) as ours, ZipFile(built["wheel"]) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())
        needed = {path.relative_to(repository).as_posix() for path in (repository / "mobileutr_monai").rglob("*.html")}
        assert needed
        assert {*needed, "mobileutr_monai/py.typed"} <= set(ours.namelist())


def test_the_wheels_segment_by_name_outside_the_checkout(
    built: dict[str, Path], environment: Path, run: Callable, breast: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(breast / "sample_data" / "images" / "malignant (53).jpg", tmp_path / "in" / "image.jpg")
    predict = ("predict", NAME, tmp_path / "in", "--output", tmp_path / "out")

    install(built["wheel"], environment)
    assert run("mobileutr", "--version").stdout.split() == ["mobileutr", __version__]
    alone = run("mobileutr", *predict)
    assert alone.returncode == 2
    (line,) = alone.stderr.splitlines()
    assert "install the wheel mobileutr-monai-bundles" in line

    install(built["bundles"], environment)
    installed = find_packages(environment) / "mobileutr_monai_bundles"
    before = list_files(installed)
    process = run("mobileutr", *predict)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "out" / "image_mask.png").stat().st_size > 0
    assert (tmp_path / "out" / "report.html").is_file()
    # MONAI's own loading takes the same folder.
    script = (
        "import mobileutr_monai, monai.bundle; print(mobileutr_monai.__file__); "
        f"print(type(monai.bundle.load({NAME!r}, bundle_dir={str(installed)!r})).__name__)"
    )
    loaded = run("python", "-c", script)
    assert str(environment) in loaded.stdout, loaded.stderr
    assert "MobileUtr" in loaded.stdout, loaded.stderr
    made = run("mobileutr", "new-bundle", "mine", "--from", NAME, "--labels", "lesion", "--output", tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "mine" / "models" / "model.pt").is_file()
    assert list_files(installed) == before
