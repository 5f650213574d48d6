"""Writes the datalists that the bundles were trained and scored with.

``training`` and ``validation`` are what a bundle learns from and is chosen on, ``testing`` is scored once, at the end.
``duplicates`` names the ``testing`` cases that have a near-duplicate among the others.

- BUSI, three official splits: the official validation list is ``testing``; the official train list is divided, a
  grouped tenth is ``validation``. The normal images are divided alike: 40 for the report, a tenth of the rest for
  choosing. A normal image that nearly equals one with a lesion is left out. Near-duplicates stay together except across
  the official lists, which leak.
- ISIC 2018 task 1 and Kvasir-SEG: the lists that come with our copies, as they are.
- Hippocampus: five folds by hash of the name; the fold itself is ``testing``, a tenth of the rest ``validation``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.datasets.datalist import pair_cases, relative_case
from mobileutr_monai.datasets.duplicates import find_near_duplicates, group_pairs
from mobileutr_monai.datasets.split import split_groups
from mobileutr_monai.datasets.tables import read_lines

SEED = 0
NORMAL_TESTING = 40
VALIDATION_SHARE = 0.1
FOLDS = 5
Sections = dict[str, list[dict[str, Any]]]


def make_busi_split(root: Path, fold: int) -> Sections:
    """Returns the datalist of one official split of BUSI; paths are relative to ``root``."""
    lesions, normals = pair_cases(root / "busi"), pair_cases(root / "busi_normal")
    cases = {**lesions, **normals}
    pairs = find_near_duplicates({name: case["image"] for name, case in cases.items()})
    train = read_lines(root / "busi" / "splits" / f"busi_train{fold}.txt")
    test = read_lines(root / "busi" / "splits" / f"busi_val{fold}.txt")

    chosen = split_groups(
        group_pairs(train, pairs), {"validation": round(VALIDATION_SHARE * len(train))}, "training", SEED
    )
    like_lesion = {name for pair in pairs if len({*pair[:2]} & normals.keys()) == 1 for name in pair[:2]}
    clean = sorted(normals.keys() - like_lesion)
    counts = {
        "normal_testing": NORMAL_TESTING,
        "normal_validation": round(VALIDATION_SHARE * (len(clean) - NORMAL_TESTING)),
    }
    chosen |= split_groups(group_pairs(clean, pairs), counts, "normal_training", SEED)
    chosen["testing"] = test
    return _relative(chosen | {"duplicates": _linked(test, train, pairs)}, cases, root)


def make_given_split(root: Path, folder: str, lists: Mapping[str, str]) -> Sections:
    """Returns a datalist of text lists, section -> file; paths are relative to ``root``."""
    cases = pair_cases(root / folder)
    pairs = find_near_duplicates({name: case["image"] for name, case in cases.items()})
    chosen = {section: read_lines(root / folder / "splits" / name) for section, name in lists.items()}
    others = chosen["training"] + chosen["validation"]
    return _relative(chosen | {"duplicates": _linked(chosen["testing"], others, pairs)}, cases, root)


def make_hippocampus_fold(root: Path, fold: int) -> Sections:
    """Returns the datalist of one of five folds, counted from 0; paths are relative to ``root``."""
    folder = root / "msd_hippocampus"
    names = sorted(path.name for path in (folder / "imagesTr").glob("hippocampus_*.nii.gz"))
    size = len(names) // FOLDS
    folds = split_groups([[name] for name in names], {str(i): size for i in range(FOLDS - 1)}, str(FOLDS - 1), SEED)
    rest = [[name] for i, members in folds.items() if i != str(fold) for name in members]
    chosen = split_groups(rest, {"validation": round(VALIDATION_SHARE * len(rest))}, "training", SEED)
    chosen["testing"] = folds[str(fold)]
    paths = {name: {"image": folder / "imagesTr" / name, "label": [folder / "labelsTr" / name]} for name in names}
    return _relative(chosen, paths, root)


def _linked(names: Sequence[str], others: Sequence[str], pairs: Sequence[Sequence[Any]]) -> list[str]:
    linked = {name for pair in pairs for name, other in (pair[:2], pair[1::-1]) if other in set(others)}
    return [name for name in names if name in linked]


def _relative(
    sections: Mapping[str, Sequence[str]], cases: Mapping[str, dict[str, Any]], root: Path
) -> dict[str, list[dict[str, Any]]]:
    return {section: [relative_case(cases[name], root) for name in names] for section, names in sections.items()}


def make_all(root: Path) -> dict[str, Sections]:
    """Returns path of the datalist, relative to ``bundles``, -> its sections."""
    isic = {"training": "komour_train.txt", "validation": "komour_val.txt", "testing": "komour_test.txt"}
    kvasir = {section: f"effisegnet_{name}.txt" for section, name in (("training", "train"), ("testing", "test"))}
    kvasir["validation"] = "effisegnet_validation.txt"
    return {
        **{
            f"breast_ultrasound_segmentation/datalists/busi_split{fold}.json": make_busi_split(root, fold)
            for fold in (1, 2, 3)
        },
        "skin_dermoscopy_segmentation/datalists/isic2018_task1.json": make_given_split(root, "isic2018_task1", isic),
        "colon_endoscopy_segmentation/datalists/kvasir_seg.json": make_given_split(root, "kvasir_seg", kvasir),
        **{
            f"hippocampus_mri_segmentation/datalists/fold{fold}.json": make_hippocampus_fold(root, fold)
            for fold in range(FOLDS)
        },
    }


def main() -> None:
    """Writes all datalists into the bundles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the data sets: busi/, isic2018_task1/ ...")
    parser.add_argument("--output", type=Path, default=Path("bundles"), help="folder of the bundles")
    arguments = parser.parse_args()
    for name, sections in make_all(arguments.root).items():
        path = arguments.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sections) + "\n", encoding="utf-8")
        print(path, {section: len(items) for section, items in sections.items()})


if __name__ == "__main__":
    main()
