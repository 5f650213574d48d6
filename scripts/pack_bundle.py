"""Packs a bundle with the package in its root, so that it runs where only MONAI and its dependencies are installed.

``python scripts/pack_bundle.py bundles/NAME`` writes ``dist/NAME_VERSION.zip``; the same files give the same bytes.
``--for zoo`` writes the folder ``dist/zoo/NAME`` for a pull request to the MONAI Model Zoo, checked by the zoo's rules.
``--for hub`` writes ``dist/hub/NAME`` for a Hugging Face repository. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mobileutr_monai.bundle.files import METADATA, list_packed_files, make_packed_metadata
from mobileutr_monai.core.atomic import write_atomic

# The oldest date that a zip can have.
DATE = (1980, 1, 1, 0, 0, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the zip or the folder; returns 0, or 2 if the folder is no bundle or the zoo would refuse it."""
    parser = argparse.ArgumentParser(description="Pack a bundle with the package inside.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    parser.add_argument("--for", dest="target", choices=("zip", "zoo", "hub"), default="zip", help="default: zip")
    parser.add_argument("--output", type=Path, metavar="PATH", help="default: dist/NAME_VERSION.zip or dist/FOR/NAME")
    parser.add_argument(
        "--weights-url", metavar="URL", help="zoo: where models/model.pt will be; it goes into large_files.yml"
    )
    parser.add_argument(
        "--model-info",
        type=Path,
        metavar="FILE",
        help="zoo: its models/model_info.json, to check that the version is new",
    )
    options = parser.parse_args(arguments)
    if options.target != "zoo" and (options.weights_url or options.model_info):
        parser.error("--weights-url and --model-info are for --for zoo")
    bundle = options.bundle.resolve()
    folder = options.output or Path("dist") / options.target / bundle.name
    try:
        if options.target == "zip":
            output = pack(bundle, options.output)
            print(f"{output}  {output.stat().st_size / 1e6:.1f} MB")
            return 0
        from mobileutr_monai.bundle.publish import write_hub_folder, write_zoo_folder

        if options.target == "hub":
            output = write_hub_folder(bundle, folder)
        else:
            info = read_model_info(options.model_info) if options.model_info else None
            output = write_zoo_folder(bundle, folder, options.weights_url, info)
    except (OSError, ValueError) as error:
        print(f"pack_bundle: error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}  {size / 1e6:.1f} MB")
    return 0


def read_model_info(path: Path) -> dict[str, Any]:
    """Returns the zoo's versions of bundles.

    Raises:
        ValueError: the file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; give the zoo's models/model_info.json") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} has no versions of bundles; give the zoo's models/model_info.json")
    return content


def pack(bundle: Path, output: Path | None = None) -> Path:
    """Writes a bundle and the package into one zip atomically; returns its path.

    Raises:
        FileNotFoundError: the folder is no bundle, or has no weights.
    """
    bundle = bundle.resolve()
    files = sorted(list_packed_files(bundle))
    metadata = make_packed_metadata(bundle)
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


if __name__ == "__main__":
    sys.exit(main())
