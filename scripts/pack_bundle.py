"""Packs a bundle with the package in its root, so that it runs where only MONAI and its dependencies are installed.

``python scripts/pack_bundle.py bundles/NAME`` writes ``dist/NAME_VERSION.zip``; the same files give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mobileutr_monai.bundle.files import METADATA, list_bundle_files
from mobileutr_monai.core.atomic import write_atomic

PACKAGE = Path(__file__).resolve().parents[1] / "mobileutr_monai"
DISTRIBUTION = "mobileutr-monai"
# MONAI Label has an app of its own for bundles.
LEFT_OUT = ("monai_label",)
# The oldest date that a zip can have.
DATE = (1980, 1, 1, 0, 0, 0)


def main() -> int:
    """Writes the zip; returns 0, or 2 if the folder is no bundle."""
    parser = argparse.ArgumentParser(description="Pack a bundle with the package inside.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: dist/NAME_VERSION.zip")
    options = parser.parse_args()
    try:
        output = pack(options.bundle, options.output)
    except (OSError, ValueError) as error:
        print(f"pack_bundle: error: {error}", file=sys.stderr)
        return 2
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB")
    return 0


def pack(bundle: Path, output: Path | None = None) -> Path:
    """Writes a bundle and the package into one zip atomically; returns its path.

    Raises:
        FileNotFoundError: the folder is no bundle, or has no weights.
    """
    bundle = bundle.resolve()
    files = sorted([*list_bundle_files(bundle), *_find_package_files()])
    metadata = json.loads((bundle / METADATA).read_text(encoding="utf-8"))
    metadata["required_packages_version"].pop(DISTRIBUTION, None)  # it is inside
    output = output or Path("dist") / f"{bundle.name}_{metadata['version']}.zip"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, lambda file: _write_archive(file, bundle.name, files, metadata))
    return output


def _write_archive(
    file: IO[bytes], folder: str, files: Sequence[tuple[str, Path]], metadata: Mapping[str, Any]
) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files:
            content = path.read_bytes()
            if name == METADATA:
                content = json.dumps(metadata, indent=4).encode()
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", DATE), content, zipfile.ZIP_DEFLATED)


def _find_package_files() -> Iterator[tuple[str, Path]]:
    for path in PACKAGE.rglob("*"):
        inside = path.relative_to(PACKAGE)
        if path.is_file() and inside.parts[0] not in LEFT_OUT and "__pycache__" not in inside.parts:
            yield f"{PACKAGE.name}/{inside.as_posix()}", path


if __name__ == "__main__":
    sys.exit(main())
