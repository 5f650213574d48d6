"""Packages of npm that the page needs: one tested release of each, whose files are copied only if their hashes match.

They are not part of this package, since onnxruntime-web alone has 41 MB of WebAssembly, and nothing here downloads
them: the user installs them with npm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.atomic import hash_file

__all__ = ["DICOM_PARSER", "INSTALL", "LICENCE", "PINNED", "RUNTIME", "NpmPackage", "Pinned", "find_packages"]

RUNTIME, DICOM_PARSER = "onnxruntime-web", "dicom-parser"


class Pinned(NamedTuple):
    """The release of a package that the page was tested with.

    Attributes:
        integrity: of the package's archive, as ``npm view NAME dist.integrity`` and lock files have it.
        copyright_notice: goes with the copies, as the MIT licence demands.
        files: that are copied -> their SHA-256.
    """

    version: str
    integrity: str
    copyright_notice: str
    files: dict[str, str]


PINNED = {
    RUNTIME: Pinned(
        "1.30.0",
        "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        "Copyright (c) Microsoft Corporation",
        {
            "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
            "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
            "dist/ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
            "dist/ort-wasm-simd-threaded.asyncify.wasm": (
                "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da"
            ),
        },
    ),
    DICOM_PARSER: Pinned(
        "1.8.21",
        "sha512-lYCweHQDsC8UFpXErPlg86Px2A8bay0HiUY+wzoG3xv5GzgqVHU3lziwSc/Gzn7VV7y2KeP072SzCviuOoU02w==",
        "Copyright (c) 2014 Chris Hafey",
        {"dist/dicomParser.min.js": "2b990e92de021a9c0d58f7dca693c95fa76be6398648b68441df9423de284a2b"},
    ),
}

INSTALL = "npm install --ignore-scripts " + " ".join(f"{name}@{pinned.version}" for name, pinned in PINNED.items())
"""The command that gets the packages; npm compares the archives with the registry's own integrity."""

LICENCE = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS
OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
"""The MIT licence, of both packages."""


class NpmPackage(NamedTuple):
    """An installed package, of the pinned release.

    Attributes:
        files: to copy.
    """

    name: str
    version: str
    files: tuple[Path, ...]


def find_packages(folder: Path | None) -> list[NpmPackage]:
    """Returns onnxruntime-web, and dicom-parser where it is installed next to it.

    Args:
        folder: a ``node_modules`` folder, or that of onnxruntime-web in it; by default the working directory's.

    Raises:
        ValueError: onnxruntime-web is not there, or a package is not the pinned release, or a file was altered.
    """
    modules = Path("node_modules") if folder is None else folder
    if modules.name == RUNTIME:
        modules = modules.parent
    if not (modules / RUNTIME / "package.json").is_file():
        raise ValueError(
            f"--format web needs {RUNTIME}, and {str(modules)!r} does not have it: run {INSTALL}, or name another "
            "node_modules folder with --onnxruntime-web"
        )
    return [_read(modules / name) for name in PINNED if (modules / name / "package.json").is_file()]


def _read(folder: Path) -> NpmPackage:
    name, pinned = folder.name, PINNED[folder.name]
    version = str(json.loads((folder / "package.json").read_text(encoding="utf-8")).get("version"))
    if version != pinned.version:
        raise ValueError(
            f"{str(folder)!r} is release {version}, the page was tested with {pinned.version}: run {INSTALL}"
        )
    for file, sha256 in pinned.files.items():
        path = folder / file
        if not path.is_file() or hash_file(path) != sha256:
            raise ValueError(
                f"{str(path)!r} is not the file of {name} {version}: remove {str(folder)!r}, run {INSTALL}"
            )
    return NpmPackage(name, version, tuple(folder / file for file in pinned.files))
