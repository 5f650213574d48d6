"""The built wheel, installed outside the checkout, segments with a bundle that was copied there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "mobileutr_monai")


def test_wheel_segments_outside_the_checkout(repository, breast, tmp_path):
    source, wheels, environment = tmp_path / "source", tmp_path / "wheels", tmp_path / "environment"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (repository / name).is_dir() else shutil.copyfile
        copy(repository / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    needed = {path.relative_to(repository).as_posix() for path in (repository / "mobileutr_monai").rglob("*.html")}
    assert needed
    assert {*needed, "mobileutr_monai/py.typed"} <= set(ZipFile(wheel).namelist())

    # An environment with the dependencies of this one (by a .pth file, in which editable installs do not count) and
    # with nothing of the project but the wheel.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["--python", environment, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True)

    bundle = shutil.copytree(breast, tmp_path / "bundle")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import mobileutr_monai; print(mobileutr_monai.__file__)"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(environment) in where.stdout
    command = [
        environment / "bin" / "mobileutr",
        "predict",
        bundle,
        bundle / "sample_data" / "images",
        "--output",
        "out",
    ]
    process = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 8
    assert (tmp_path / "out" / "report.html").is_file()
