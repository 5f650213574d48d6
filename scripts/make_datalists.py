"""Writes the datalists that the bundles were trained and scored with.

``training`` and ``validation`` are what a bundle learns from and is chosen on, ``testing`` is scored once, at the end.
``duplicates`` names the ``testing`` cases that have a near-duplicate among the others.

- BUSI, three official splits: the official validation list is ``testing``; the official train list is divided, a
  grouped tenth is ``validation``. The normal images are divided alike: 40 for the report, a tenth of the rest for
  choosing. A normal image that nearly equals one with a lesion is left out. Near-duplicates stay together except across
  the official lists, which leak.
- ISIC 2018 task 1 and Kvasir-SEG: the lists that come with our copies, as they are.
- Breast, two hospitals: each BUSI list joined with BUS-BRA folds 3 to 5. ``validation`` gains 110 images of BUS-BRA, by
  patient; ``testing_busbra`` is fold 2. Normal images in their own shape.
- Colon, two hospitals: Kvasir-SEG joined with CVC-ClinicDB by sequence, 22 to 24 for choosing, 25 to 29 for the report.
- Skin, crops and whole fields of view: ISIC 2018 task 1 joined with ISIC 2017; ``validation_whole`` holds 150 of the
  latter, whose cropped copies leave ``training``.
- Hippocampus: five folds by hash of the name; the fold itself is ``testing``, a tenth of the rest ``validation``.
"""

from __future__ import annotations

import argparse
import csv
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
BUSBRA_VALIDATION, WHOLE_VALIDATION = 110, 150
CVC_VALIDATION, CVC_TESTING = range(22, 25), range(25, 30)
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


def join_busbra(root: Path, busi: Sections) -> Sections:
    """Returns a split of BUSI joined with BUS-BRA; every item says its ``set`` and, in BUS-BRA, its ``group``."""
    cases = pair_cases(root / "busbra")
    rows = _read_rows(root / "busbra" / "cases.csv")
    patients: dict[str, list[str]] = {}
    for row in rows:
        if row["fold"] != "2":
            patients.setdefault(row["group"], []).append(Path(row["image"]).stem)
    chosen = split_groups(list(patients.values()), {"validation": BUSBRA_VALIDATION}, "training", SEED)
    chosen["testing_busbra"] = [Path(row["image"]).stem for row in rows if row["fold"] == "2"]
    groups = {Path(row["image"]).stem: row["group"] for row in rows}
    joined = {name: _mark(_native(items), "busi") for name, items in busi.items()}
    for section in ("normal_training", "normal_validation", "normal_testing"):
        joined[section] = _mark(joined[section], "busi_normal")
    for section, names in chosen.items():
        items = _relative({section: names}, cases, root)[section]
        items = [item | {"set": "busbra", "group": groups[Path(item["image"]).stem]} for item in items]
        joined[section] = joined.get(section, []) + items
    return joined


def join_cvc(root: Path, kvasir: Sections) -> Sections:
    """Returns Kvasir-SEG joined with CVC-ClinicDB, whose sequences stay whole."""
    cases = pair_cases(root / "cvc_clinicdb")
    joined = {name: _mark(items, "kvasir_seg") for name, items in kvasir.items()}
    for row in _read_rows(root / "cvc_clinicdb" / "sequences.csv"):
        sequence = int(row["sequence"])
        section = (
            "testing_cvc" if sequence in CVC_TESTING else "validation" if sequence in CVC_VALIDATION else "training"
        )
        item = relative_case(cases[row["name"]], root) | {"set": "cvc_clinicdb", "group": row["sequence"]}
        joined.setdefault(section, []).append(item)
    return joined


def join_isic2017(root: Path, isic2018: Sections) -> Sections:
    """Returns ISIC 2018 joined with ISIC 2017; both copies of an image are on one side."""
    cases = pair_cases(root / "isic2017")
    rows = _read_rows(root / "isic2017" / "meta.csv")
    official = [row["name"] for row in rows if row["split"] == "val"]
    others = [[row["name"]] for row in rows if row["split"] != "val"]
    chosen = split_groups(others, {"validation_whole": WHOLE_VALIDATION - len(official)}, "training", SEED)
    chosen["validation_whole"] = sorted(chosen["validation_whole"] + official)
    held_out = set(chosen["validation_whole"])
    joined = {name: _mark(items, "isic2018_task1") for name, items in isic2018.items()}
    joined["training"] = [item for item in joined["training"] if Path(item["image"]).stem not in held_out]
    for section, names in chosen.items():
        items = _mark(_relative({section: names}, cases, root)[section], "isic2017")
        joined[section] = joined.get(section, []) + items
    return joined


def _mark(items: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{**item, "set": name} for item in items]


def _native(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns items whose normal images are those in their own shape."""
    return [
        {
            "image": item["image"].replace("busi_normal/", "busi_normal_native/"),
            "label": [path.replace("busi_normal/", "busi_normal_native/") for path in item["label"]],
        }
        for item in items
    ]


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
    busi = {fold: make_busi_split(root, fold) for fold in (1, 2, 3)}
    isic2018 = make_given_split(root, "isic2018_task1", isic)
    kvasir_seg = make_given_split(root, "kvasir_seg", kvasir)
    return {
        **{
            f"breast_ultrasound_segmentation/datalists/busi_busbra_split{fold}.json": join_busbra(root, sections)
            for fold, sections in busi.items()
        },
        "skin_dermoscopy_segmentation/datalists/isic2018_isic2017.json": join_isic2017(root, isic2018),
        "colon_endoscopy_segmentation/datalists/kvasir_cvc.json": join_cvc(root, kvasir_seg),
        **{
            f"breast_ultrasound_segmentation/datalists/busi_split{fold}.json": sections
            for fold, sections in busi.items()
        },
        "skin_dermoscopy_segmentation/datalists/isic2018_task1.json": isic2018,
        "colon_endoscopy_segmentation/datalists/kvasir_seg.json": kvasir_seg,
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
