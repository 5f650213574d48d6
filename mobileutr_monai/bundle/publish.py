"""Bundles for places where people look for models: folders for the MONAI Model Zoo and for a Hugging Face repository.

Both hold the package in the bundle's root, as the zips of ``scripts/pack_bundle.py`` do, so that MONAI and the packages
of the metadata are enough to run them. Nothing is uploaded. The zoo's rules are those of its CONTRIBUTING.md and of
ci/verify_bundle.py (https://github.com/Project-MONAI/model-zoo, Apache-2.0), written again.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from mobileutr_monai.bundle.files import METADATA, list_packed_files, make_packed_metadata
from mobileutr_monai.core.atomic import hash_file

__all__ = ["find_zoo_problems", "write_hub_folder", "write_zoo_folder"]

LARGEST_ZOO_FILE = 25_000_000
"""Bytes; the zoo takes no larger file."""
WEIGHTS = "models/model.pt"
LARGE_FILES = "large_files.yml"

_ZOO_FILES = ("LICENSE", METADATA, "configs/inference.json", "docs/README.md")
# Config -> what the zoo wants in it; # goes into a dictionary, as in MONAI's configs.
_ZOO_IDS = {
    "inference": ("bundle_root", "device", "network_def", "inferer", "output_dir"),
    "train": (
        *("bundle_root", "device", "dataset_dir", "output_dir"),
        *("train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers"),
        *("validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data"),
    ),
}
_ZOO_NAME = re.compile(r"[a-z][a-zA-Z0-9]*(_[a-zA-Z0-9]+)+")

CARD_HEAD = """\
---
{block}---

"""
CARD_USE = """
## Use from here

Download this repository into a folder named `{name}`. It holds all code that it needs besides MONAI and the packages of
`configs/metadata.json`. The configs are code: run only bundles that you trust.

```bash
cd {name}
python -m monai.bundle run --config_file configs/inference.json --dataset_dir FOLDER --output_dir OUT
```

`models/model.safetensors` has the same weights as `models/model.pt`.
"""


def write_zoo_folder(
    bundle: Path, output: Path, weights_url: str | None = None, model_info: Mapping[str, Any] | None = None
) -> Path:
    """Writes the folder ``models/NAME`` of a pull request to the MONAI Model Zoo.

    Args:
        output: folder to make, of the bundle's name.
        weights_url: where ``models/model.pt`` will be; the folder then has ``large_files.yml`` with its SHA-256 instead
            of the file. Without it the file is in the folder.
        model_info: the zoo's ``models/model_info.json``, which says what versions there are.

    Raises:
        FileExistsError: ``output`` is there already.
        FileNotFoundError: the folder is no bundle, or has no weights.
        ValueError: the zoo would refuse it; the message has every reason.
    """
    if output.name != bundle.name:
        raise ValueError(f"the zoo calls a bundle by its folder: {str(output)!r} must end in {bundle.name}")
    if weights_url is not None and not weights_url.startswith("https://"):
        raise ValueError(f"the zoo downloads weights from a public https:// address, got {weights_url!r}")
    with TemporaryDirectory(dir=_make_parent(output)) as temporary:
        folder = _write_files(bundle, Path(temporary) / bundle.name)
        if weights_url is not None:
            weights = folder / WEIGHTS
            entry = {"path": WEIGHTS, "url": weights_url, "hash_val": hash_file(weights), "hash_type": "sha256"}
            (folder / LARGE_FILES).write_text(yaml.safe_dump({"large_files": [entry]}, sort_keys=False))
            weights.unlink()
        if problems := list(find_zoo_problems(folder, model_info)):
            raise ValueError(f"the zoo would refuse {bundle.name}: {'; '.join(problems)}")
        return folder.rename(output)


def find_zoo_problems(folder: Path, model_info: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yields what the zoo would refuse a bundle for. MONAI's ``verify_metadata`` checks the schema, which is online."""
    name = folder.name
    if not _ZOO_NAME.fullmatch(name):
        yield f"{name!r} is not a name of words with _ between them, such as spleen_ct_segmentation"
    if "_v" in name:
        yield f"{name!r} contains '_v', where the zoo takes the version to begin"
    for needed in _ZOO_FILES:
        if not (folder / needed).is_file():
            yield f"{needed} is missing"
    if not (folder / WEIGHTS).is_file() and not (folder / LARGE_FILES).is_file():
        yield f"{WEIGHTS} is missing, and {LARGE_FILES} too"
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size > LARGEST_ZOO_FILE:
            yield f"{path.relative_to(folder)} has more than 25 MB; list it in {LARGE_FILES}"
    if (folder / METADATA).is_file():
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        version = metadata.get("version")
        if version is None or version not in metadata.get("changelog", {}):
            yield f"version {version} has no line in the changelog of {METADATA}"
        if f"{name}_v{version}" in (model_info or {}):
            yield f"version {version} is in the zoo already; choose a new one"
    for config, ids in _ZOO_IDS.items():
        path = folder / "configs" / f"{config}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            missing = [key for key in ids if not _has_id(content, key)]
            if missing:
                yield f"configs/{config}.json has no {', '.join(missing)}"


def write_hub_folder(bundle: Path, output: Path) -> Path:
    """Writes a Hugging Face repository: the bundle, its card with a metadata block, and its weights as safetensors.

    Args:
        output: folder to make.

    Raises:
        FileExistsError: ``output`` is there already.
        FileNotFoundError: the folder is no bundle, or has no weights.
        ValueError: safetensors is not installed, or reads other weights than were written.
    """
    try:
        from safetensors.torch import load_file, save_file
    except ImportError:
        raise ValueError('a Hugging Face repository needs a package: pip install "mobileutr-monai[hub]"') from None
    with TemporaryDirectory(dir=_make_parent(output)) as temporary:
        folder = _write_files(bundle, Path(temporary) / bundle.name)
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        path = (folder / WEIGHTS).with_suffix(".safetensors")
        save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata={"format": "pt"})
        again = load_file(path)
        if again.keys() != weights.keys() or not all(torch.equal(again[key], weights[key]) for key in weights):
            raise ValueError(f"{path.name} does not hold the weights of {WEIGHTS}")
        (folder / "README.md").write_text(_make_hub_card(folder), encoding="utf-8")
        return folder.rename(output)


def _make_hub_card(folder: Path) -> str:
    """Returns the bundle's card as the repository's first page: with its metadata, and links from the root."""
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    block = {
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": ["monai", "medical", "segmentation", "mobileutr", "research-only", *metadata["modalities"]],
        # The weights are Apache-2.0, and what they may be used for depends on the data.
        "license": "other",
        "license_name": "apache-2.0-and-terms-of-the-data",
        "license_link": "docs/data_license.txt",
    }
    card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    card = re.sub(r"\]\((?![a-z]+:|#|/)", "](docs/", card)
    head = CARD_HEAD.format(block=yaml.safe_dump(block, sort_keys=False))
    return head + card.rstrip() + "\n" + CARD_USE.format(name=folder.name)


def _make_parent(output: Path) -> Path:
    if output.exists():
        raise FileExistsError(f"{str(output)!r} exists already; choose another --output, or remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    return output.parent


def _write_files(bundle: Path, folder: Path) -> Path:
    """Writes the files of a packed bundle; returns their folder."""
    for name, path in list_packed_files(bundle):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (folder / METADATA).write_text(json.dumps(make_packed_metadata(bundle), indent=4) + "\n", encoding="utf-8")
    return folder


def _has_id(content: Mapping[str, Any], key: str) -> bool:
    found: Any = content
    for part in key.split("#"):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True
