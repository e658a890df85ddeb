"""Shares, and that none is starved."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from loom.model.priority import PRIORITIES, SHARES, order, rank


def test_each_claim_looks_at_all_of_them() -> None:
    for claims in range(1000):
        assert sorted(order(claims)) == sorted(PRIORITIES)
        assert [other for other in PRIORITIES if other != order(claims)[0]] == list(order(claims)[1:])


def test_they_are_looked_at_first_in_their_shares() -> None:
    firsts = Counter(order(claims)[0] for claims in range(1 << 16))
    assert firsts == {priority: SHARES.count(priority) << 12 for priority in PRIORITIES}


@pytest.mark.parametrize(("step", "longest"), [(1, 21), (2, 21), (3, 34), (4, 45), (8, 56), (16, 116)])
def test_whoever_gets_part_of_the_claims_gets_the_same_shares(step: int, longest: int) -> None:
    """Whichever part it is: two workers that take turns, for one."""
    for beginning in range(0, 1 << 16, 1009):
        firsts = [order(beginning + step * number)[0] for number in range(2000)]
        assert firsts.count("low") == pytest.approx(2000 / 16, abs=8)
        assert firsts.count("high") == pytest.approx(2000 * 12 / 16, abs=16)
        places = [number for number, first in enumerate(firsts) if first == "low"]
        assert max(later - sooner for sooner, later in pairwise(places)) <= longest


def test_ranks() -> None:
    assert [rank(priority) for priority in PRIORITIES] == [0, 1, 2]
