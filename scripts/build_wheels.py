"""Builds what can be installed: the package as wheel and sdist, and the trained bundles as a wheel of their own.

``python scripts/build_wheels.py`` writes into ``dist/``:

- ``mobileutr_monai``: the package and the command, without weights;
- ``mobileutr_monai_bundles``: the bundles with their weights, model cards and samples, found by their names. The data's
  licences are those of the bundles, see ``docs/data_license.txt`` in each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from mobileutr_monai import __version__
from mobileutr_monai.bundle.files import METADATA, list_bundle_files
from mobileutr_monai.bundle.find import BUNDLES_GROUP, BUNDLES_PACKAGE

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "mobileutr_monai")
"""What the package is built from."""

MODULE = BUNDLES_PACKAGE.replace("-", "_")
PROJECT = f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{BUNDLES_PACKAGE}"
version = "{__version__}"
description = "Trained MONAI bundles of mobileutr-monai. Research only."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["mobileutr-monai>={__version__}"]
license-files = ["LICENSE", "data_licenses/*.txt"]

[project.entry-points."{BUNDLES_GROUP}"]
trained = "{MODULE}"

[tool.setuptools]
packages = ["{MODULE}"]

[tool.setuptools.package-data]
{MODULE} = ["**/*"]
"""
README = """\
# {name}

The trained bundles of mobileutr-monai, found by their names: `mobileutr predict NAME FOLDER --output OUT`, or
`mobileutr_monai.load_bundle("NAME")`. Research only. Not a medical device; not for diagnosis or treatment.

| bundle | network | its weights may be used for |
| --- | --- | --- |
{rows}
"""


def main() -> int:
    """Builds all three; returns 0, or 2 if a bundle lacks something."""
    parser = argparse.ArgumentParser(description="Build the wheels and the sdist.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist/")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        built = [*build_package(output), build_bundles(output)]
    except (OSError, ValueError) as error:
        print(f"build_wheels: error: {error}", file=sys.stderr)
        return 2
    for path in built:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def build_package(output: Path) -> tuple[Path, Path]:
    """Builds the package; returns its wheel and its sdist.

    Raises:
        ValueError: setuptools cannot build it.
    """
    with TemporaryDirectory() as temporary:
        source = Path(temporary)  # so that no build/ and no egg-info is left in the checkout
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / name, source / name)
        return _build(source, "wheel", output), _build(source, "sdist", output)


def build_bundles(output: Path, names: Iterable[str] = ()) -> Path:
    """Builds the wheel of the bundles; returns its path.

    Args:
        names: of the bundles, all that have weights by default.

    Raises:
        FileNotFoundError: a bundle has no weights, configs or licence.
        ValueError: setuptools cannot build it.
    """
    bundles = [ROOT / "bundles" / name for name in names] or [
        path.parents[1] for path in sorted((ROOT / "bundles").glob("*/models/model.pt"))
    ]
    with TemporaryDirectory() as temporary:
        source = Path(temporary)
        licenses = source / "data_licenses"
        licenses.mkdir()
        rows = []
        for bundle in bundles:
            for name, path in list_bundle_files(bundle):
                copy = source / MODULE / bundle.name / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            shutil.copyfile(bundle / "docs" / "data_license.txt", licenses / f"{bundle.name}.txt")
            metadata = json.loads((bundle / METADATA).read_text(encoding="utf-8"))
            rows.append(f"| `{bundle.name}` | {metadata['description']} | {metadata['weights_use']} |")
        shutil.copyfile(ROOT / "LICENSE", source / "LICENSE")
        (source / MODULE / "__init__.py").write_text('"""Trained bundles, as folders. Research only."""\n')
        (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
        readme = README.format(name=BUNDLES_PACKAGE, rows="\n".join(rows))
        (source / "README.md").write_text(readme, encoding="utf-8")
        return _build(source, "wheel", output)


def _build(source: Path, kind: str, output: Path) -> Path:
    """Calls setuptools in the folder of a project, in a process of its own, since it changes its process."""
    script = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    built = subprocess.run(  # noqa: S603 - this Python, on files of the project
        [sys.executable, "-c", script, str(output)], cwd=source, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise ValueError(f"setuptools cannot build the {kind}: {built.stderr.strip().splitlines()[-1]}")
    return output / built.stdout.split()[-1]


if __name__ == "__main__":
    sys.exit(main())
