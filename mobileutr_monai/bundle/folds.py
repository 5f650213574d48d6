"""Cross-validation: one training per fold, and one table of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.bundle.training import read_case_scores, summarise, train_bundle
from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.model_settings import settings_path
from mobileutr_monai.datasets.datalist import find_json, read_sections

__all__ = ["train_folds"]

TABLE, OPTIONS = "folds.csv", "folds.json"


def train_folds(
    bundle: Path,
    data: Path,
    output: Path,
    folds: int,
    overrides: Mapping[str, Any],
    overlays: Sequence[str],
    make_list: Callable[[int], dict[str, Any]],
) -> str:
    """Trains once per fold into ``output/fold_K``; returns the table, which is in ``folds.csv``, too.

    The same call again resumes: folds that are done are left as they are, one that was stopped is resumed.

    Args:
        make_list: number of folds -> datalist with folds; used for a folder without a list.

    Raises:
        ValueError: the list has other folds, or an earlier run in ``output`` other options.
    """
    output.mkdir(parents=True, exist_ok=True)
    options = {"folds": folds, "data": str(data.resolve()), "overlays": list(overlays), **overrides}
    _keep_options(output / OPTIONS, json.loads(json.dumps(options, default=str)))
    path = find_json(data, overrides.get("datalist", ""))
    if path is None:
        path = output / "datalist.json"
        if not path.is_file():
            write_text(path, json.dumps(make_list(folds), indent=1) + "\n")
    numbers = _find_folds(path, folds)
    lines = ["fold,cases,dice,low,high,best_epoch"]
    everything: list[float] = []
    for number in numbers:
        folder = output / f"fold_{number}"
        if not settings_path(folder / "model.pt").is_file():
            resume = (folder / "training" / "last.pt").is_file()
            print(f"fold {number} of {', '.join(map(str, numbers))}{', resumed' if resume else ''}")
            given = {**overrides, "datalist": path, "fold": number, "resume": resume, "install": "never"}
            if not resume and (folder / "run.json").is_file():  # stopped before its first epoch was saved
                (folder / "run.json").unlink()
            train_bundle(bundle, data, folder, given, overlays)
        scores = read_case_scores(folder / "cases.csv")
        everything += scores
        facts = json.loads(settings_path(folder / "model.pt").read_text(encoding="utf-8"))
        lines.append(f"{number},{_row(scores)},{facts['epoch']}")
    lines.append(f"all,{_row(everything)},")
    write_text(output / TABLE, "\n".join(lines) + "\n")
    return "\n".join("".join(f"{cell:>11}" for cell in line.split(",")) for line in lines)


def _row(scores: Sequence[float]) -> str:
    return f"{len(scores)}," + ",".join(f"{value:.4f}" for value in summarise(scores))


def _keep_options(path: Path, options: Mapping[str, Any]) -> None:
    """Writes the options of a run, or compares them with those of an earlier one."""
    if not path.is_file():
        write_text(path, json.dumps(options, indent=1) + "\n")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before != options:
        name = next(key for key in {**before, **options} if before.get(key) != options.get(key))
        raise ValueError(
            f"{path.parent} has folds that were trained with {name} {before.get(name)}, not {options.get(name)}; "
            "choose another --output, or the same options to resume"
        )


def _find_folds(path: Path, folds: int) -> list[int]:
    """Returns the numbers of a datalist's folds.

    Raises:
        ValueError: it has none, or another number of them.
    """
    training = read_sections(path).get("training", [])
    numbers = sorted({item["fold"] for item in training if "fold" in item})
    if len(numbers) != folds or not all("fold" in item for item in training):
        raise ValueError(
            f"{path} has {len(numbers) or 'no'} folds, --folds is {folds}; make a list with mobileutr split --folds "
            f"{folds}, or leave the list out"
        )
    return numbers
