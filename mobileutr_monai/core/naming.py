"""Names of results that no file system takes for the same."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import PurePosixPath

__all__ = ["fold_name", "name_outputs"]


def fold_name(name: str) -> str:
    """Returns what two names share that a file system may take for the same.

    Windows and macOS do not tell small letters from capitals, macOS not composed letters from decomposed ones.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def name_outputs(names: Sequence[str], stems: Sequence[str]) -> list[str]:
    """Returns a stem for each file; its whole name, or that and a number, where others have the same.

    Args:
        names: paths of files, with slashes.
        stems: the same without their suffixes.
    """
    uses = Counter(map(fold_name, stems))
    taken = {stem for stem, number in uses.items() if number == 1}
    outputs = []
    for name, stem in zip(names, stems, strict=True):
        output = stem
        if uses[fold_name(stem)] > 1:
            whole = PurePosixPath(stem).with_name(PurePosixPath(name).name.replace(".", "_")).as_posix()
            candidates = (whole if number == 1 else f"{whole}_{number}" for number in count(1))
            output = next(candidate for candidate in candidates if fold_name(candidate) not in taken)
            taken.add(fold_name(output))
        outputs.append(output)
    return outputs
