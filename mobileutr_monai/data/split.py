"""Seeded splits that keep near-duplicates together and come out the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

__all__ = ["split_groups"]


def split_groups(
    groups: Sequence[Sequence[str]], counts: Mapping[str, int], rest: str, seed: int
) -> dict[str, list[str]]:
    """Assigns whole groups of names to sections.

    Groups are taken in the order of a hash of seed and first name, and fill the sections one after the other as long as
    they fit, so that neither the order of the files nor the machine matters.

    Args:
        groups: names that must stay together.
        counts: section -> number of names wanted; a section gets fewer when only larger groups are left.
        rest: section of what remains.
        seed: another seed gives another split.

    Raises:
        ValueError: the sections want all names or more.
    """
    total = sum(len(group) for group in groups)
    if sum(counts.values()) >= total:
        raise ValueError(f"cannot take {sum(counts.values())} of {total} cases and leave some for {rest!r}; take fewer")
    sections: dict[str, list[str]] = {name: [] for name in (*counts, rest)}
    for group in sorted(groups, key=lambda g: _digest(seed, min(g))):
        section = next((s for s, n in counts.items() if len(sections[s]) + len(group) <= n), rest)
        sections[section] += group
    return {section: sorted(names) for section, names in sections.items()}


def _digest(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
