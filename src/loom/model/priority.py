"""Which priority goes first: a table, and a step through it. Pure, so that every store hands out in the same shares."""

from __future__ import annotations

from typing import Literal

__all__ = ["PRIORITIES", "SHARES", "Priority", "order", "rank"]

Priority = Literal["high", "normal", "low"]

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
"""In the order in which they go; a priority's place here is its rank, which stores keep."""

SHARES: tuple[Priority, ...] = ("high",) * 12 + ("normal",) * 3 + ("low",)
"""Of so many claims, which priority is looked at first: so low is never starved by high, nor by normal."""

_STEP = 40503
_TURNS = 1 << 16


def order(claims: int) -> tuple[Priority, ...]:
    """In which order a claim looks at the priorities, after so many claims that a store has handed out.

    Whoever takes part of them, as every second one, gets the same shares: steps of the golden ratio (40503 / 2**16)
    through the table meet no rhythm, and come to each of its rows at least once in 21 claims.
    """
    row = (claims * _STEP % _TURNS) * len(SHARES) // _TURNS
    first = SHARES[row]
    return (first, *(other for other in PRIORITIES if other != first))


def rank(priority: Priority) -> int:
    """A priority as a number: the smaller goes first."""
    return PRIORITIES.index(priority)
