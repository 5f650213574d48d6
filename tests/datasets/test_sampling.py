"""Shares of data sets become weights of cases."""

from __future__ import annotations

import pytest

from mobileutr_monai.datasets.sampling import weigh_cases

ITEMS = [{"set": "a"}, {"set": "a"}, {"set": "a"}, {"set": "b"}]


def test_a_small_set_is_drawn_by_its_share() -> None:
    assert weigh_cases(ITEMS, {"a": 0.6, "b": 0.4}) == pytest.approx([0.2, 0.2, 0.2, 0.4])


def test_without_shares_all_cases_weigh_the_same() -> None:
    assert weigh_cases(ITEMS, {}) == [1.0] * 4


@pytest.mark.parametrize(
    ("shares", "words"), [({"a": 1.0}, "no share for the data set 'b'"), ({"a": 1, "b": 1, "c": 1}, "data set 'c'")]
)
def test_rejects_sets_that_do_not_fit(shares: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        weigh_cases(ITEMS, shares)
