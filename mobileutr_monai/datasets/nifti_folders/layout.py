"""Which label belongs to which volume: NIfTI folders as the Decathlon and nnU-Net have them.

- ``imagesTr/NAME.nii.gz`` with ``labelsTr/NAME.nii.gz`` (Decathlon; several channels are a fourth axis);
- ``imagesTr/NAME_0000.nii.gz``, ``NAME_0001.nii.gz`` ... with ``labelsTr/NAME.nii.gz`` (nnU-Net, a file per channel);
- the same in ``images/`` and ``labels/`` or ``masks/``.

``dataset.json``, where there is one, names labels and channels.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mobileutr_monai.core.text import pluralize
from mobileutr_monai.datasets.duplicates import group_pairs
from mobileutr_monai.datasets.nifti_folders.duplicates import find_near_duplicate_volumes
from mobileutr_monai.datasets.split import assign_folds, split_groups
from mobileutr_monai.datasets.tables import read_column

__all__ = ["VolumeLayout", "find_volumes", "has_volumes", "make_volume_datalist"]

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))
SUFFIXES = (".nii.gz", ".nii")
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass
class VolumeLayout:
    """The volumes of a folder and their labels.

    Args:
        images: name -> files, one or one per channel.
        labels: name -> label map.
        label_names: value -> name, from ``dataset.json``.
        channel_names: from ``dataset.json``.
    """

    image_folder: Path
    label_folder: Path
    images: dict[str, list[Path]] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    label_names: dict[int, str] = field(default_factory=dict)
    channel_names: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of the cases that have both."""
        return sorted(self.images.keys() & self.labels.keys())


def has_volumes(root: Path) -> bool:
    """Whether a folder has NIfTI files in one of the layouts."""
    return any(_list_nifti(root / images) and (root / labels).is_dir() for images, labels in FOLDERS)


def find_volumes(root: Path) -> VolumeLayout:
    """Pairs volumes with their labels by their names.

    Raises:
        FileNotFoundError: the folder has no such layout.
        ValueError: ``dataset.json`` cannot be read.
    """
    for images, labels in FOLDERS:
        if _list_nifti(root / images) and (root / labels).is_dir():
            layout = VolumeLayout(root / images, root / labels)
            break
    else:
        raise FileNotFoundError(
            f"{root} has no imagesTr/NAME.nii.gz (or NAME_0000.nii.gz) with labelsTr/NAME.nii.gz, nor images/ with "
            "labels/; docs/own_data.md shows the layouts"
        )
    layout.labels = {_stem(path): path for path in _list_nifti(layout.label_folder)}
    for path in _list_nifti(layout.image_folder):
        stem = _stem(path)
        match = _CHANNEL.fullmatch(stem)
        name = match[1] if match and stem not in layout.labels else stem
        layout.images.setdefault(name, []).append(path)
    layout.label_names, layout.channel_names = _read_description(root / "dataset.json")
    return layout


def make_volume_datalist(
    root: Path,
    shares: Mapping[str, float],
    seed: int,
    *,
    folds: int = 0,
    groups: str | Path = "",
    pairs: Sequence[Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """Splits the volumes of a folder into a datalist; near-duplicates and groups stay in one section.

    Args:
        shares: section -> share of the cases; the rest is ``training``.
        folds: number the training cases by folds from 0; only ``testing`` is set aside.
        groups: CSV file with the columns ``image`` and ``group``.
        pairs: near-duplicates, if they are known already.

    Raises:
        ValueError: a volume has no label, or a section would be empty.
    """
    layout = find_volumes(root)
    missing = sorted(layout.images.keys() - layout.labels.keys())
    if missing:
        raise ValueError(
            f"{layout.label_folder} has no label of {pluralize(len(missing), 'volume')}, such as {missing[0]}"
        )
    channels = {name: len(files) for name, files in layout.images.items()}
    if len(set(channels.values())) > 1:
        least = min(channels, key=lambda name: channels[name])
        raise ValueError(f"{least} has {channels[least]} files, others have {max(channels.values())}; add the channels")
    digests = {name: _hash(layout.images[name]) for name in layout.names}
    if pairs is None:
        pairs = find_near_duplicate_volumes({name: layout.images[name][0] for name in layout.names})
    members: dict[str, list[str]] = {}
    if groups:
        keys = {name: [name, *(f"{name}{suffix}" for suffix in SUFFIXES)] for name in layout.names}
        for name, group in read_column(Path(groups), "group", keys).items():
            members.setdefault(group, []).append(name)
    for name in layout.names:  # files that are equal but cannot be compared by their values
        members.setdefault(digests[name], []).append(name)
    together = group_pairs(layout.names, [*pairs, *(pair for names in members.values() for pair in pairwise(names))])
    counts = {section: max(1, round(share * len(layout.names))) for section, share in shares.items() if share}
    sections = split_groups(together, counts, "training", seed)
    for section, names in sections.items():
        if not names:
            raise ValueError(f"{section!r} would be empty: {pluralize(len(together), 'group')} of cases; add cases")
    fold_of: dict[str, int] = {}
    if folds:
        in_training = set(sections["training"])
        fold_of = assign_folds({"": [group for group in together if set(group) <= in_training]}, folds, seed)
    datalist: dict[str, Any] = {
        "description": f"seed {seed}, {pluralize(len(pairs), 'pair')} of near-duplicates kept together"
    }
    if groups:
        datalist["description"] += f", {pluralize(len(together), 'group')} of {Path(groups).name} kept together"
    total = hashlib.sha256()
    for name in layout.names:
        total.update(f"{name} {digests[name]} {_hash([layout.labels[name]])}\n".encode())
    datalist["inputs_sha256"] = total.hexdigest()
    if layout.label_names:
        datalist["labels"] = {str(value): name for value, name in layout.label_names.items()}
    for section, names in sections.items():
        datalist[section] = [
            _item(layout, name, root) | ({"fold": fold_of[name]} if name in fold_of else {}) for name in names
        ]
    return datalist


def _item(layout: VolumeLayout, name: str, root: Path) -> dict[str, Any]:
    files = [path.relative_to(root).as_posix() for path in layout.images[name]]
    return {"image": files if len(files) > 1 else files[0], "label": layout.labels[name].relative_to(root).as_posix()}


def _list_nifti(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith("."))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _read_description(path: Path) -> tuple[dict[int, str], list[str]]:
    """Returns label names and channel names of a ``dataset.json``, of the Decathlon's kind or nnU-Net's."""
    if not path.is_file():
        return {}, []
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        labels = content.get("labels", {})
        pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in labels.items()]
        names = {int(value): str(name) for value, name in pairs if not isinstance(value, list)}
        channels = content.get("channel_names") or content.get("modality") or {}
        return dict(sorted(names.items())), [str(channels[key]) for key in sorted(channels, key=int)]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not the description of a data set: {error}; correct it or remove it") from None
