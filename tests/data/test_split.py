"""Seeded splits."""

from __future__ import annotations

from itertools import chain

import pytest

from mobileutr_monai.data.split import split_groups

GROUPS = [["a"], ["b", "c"], ["d"], ["e", "f", "g"], ["h"], ["i"], ["j"]]


def test_the_split_of_a_seed_never_changes() -> None:
    # Results are published for splits that were made with this order of hashes.
    assert split_groups(GROUPS, {"validation": 3, "testing": 2}, "training", seed=0) == {
        "validation": ["b", "c", "j"],
        "testing": ["d", "i"],
        "training": ["a", "e", "f", "g", "h"],
    }


@pytest.mark.parametrize("seed", range(8))
def test_keeps_groups_whole_and_sizes_as_wanted(seed: int) -> None:
    sections = split_groups(GROUPS, {"validation": 3, "testing": 2}, "training", seed)
    assert {name: len(names) for name, names in sections.items()} == {"validation": 3, "testing": 2, "training": 5}
    assert sorted(chain(*sections.values())) == list("abcdefghij")
    for group in GROUPS:
        assert any(set(group) <= set(names) for names in sections.values())


def test_a_section_gets_fewer_when_only_larger_groups_are_left() -> None:
    sections = split_groups([["a", "b"], ["c", "d"]], {"validation": 1}, "training", seed=0)
    assert sections == {"validation": [], "training": ["a", "b", "c", "d"]}


@pytest.mark.parametrize("groups", [GROUPS[::-1], [group[::-1] for group in GROUPS]])
def test_does_not_depend_on_the_order(groups: list[list[str]]) -> None:
    counts = {"validation": 3, "testing": 2}
    assert split_groups(groups, counts, "training", 0) == split_groups(GROUPS, counts, "training", 0)


def test_another_seed_gives_another_split() -> None:
    splits = {tuple(split_groups(GROUPS, {"validation": 3}, "training", seed)["validation"]) for seed in range(8)}
    assert len(splits) > 4


@pytest.mark.parametrize("counts", [{"validation": 10}, {"validation": 6, "testing": 4}, {"validation": 11}])
def test_rejects_sections_that_leave_nothing(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="of 10 cases and leave some for 'training'; take fewer"):
        split_groups(GROUPS, counts, "training", 0)
