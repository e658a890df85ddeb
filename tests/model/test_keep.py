"""What of a log is kept: never less than said, and never much more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.keep import Keep, Ledger


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"chunks": 0},
        {"chunks": 1.5},
        {"chunks": True},
        {"bytes": -1},
        {"bytes": 10**400},
        {"age": 0},
        {"age": timedelta(0)},
        {"age": "1h"},
        {"age": True},
        {"age": float("inf")},
        {"age": float("nan")},
    ],
)
def test_bounds_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Keep\("):
        Keep(**wrong)


def test_an_age_is_seconds() -> None:
    assert Keep(age=timedelta(minutes=1)).seconds == Keep(age=60).seconds == 60.0
    assert Keep(chunks=1).seconds == 0.0


def grow(ledger: Ledger, *, batches: int, chunks: int = 1, size: int = 1, pace: float = 0.0) -> tuple[int, int, int]:
    """Add batches, cutting after each: the last seq, the first that is kept, and how often something was cut."""
    last, first, cuts = 0, 1, 0
    for number in range(batches):
        last += chunks
        ledger.add(last, chunks, size, number * pace)
        cut = ledger.cut(number * pace)
        if cut is not None:
            assert first < cut <= last
            first = cut
            cuts += 1
    return last, first, cuts


@pytest.mark.parametrize("chunks", [1, 3, 10, 64])
def test_by_chunks(chunks: int) -> None:
    """At least so many, an eighth and a batch more at most; cut seldom."""
    last, first, cuts = grow(Ledger(Keep(chunks=800), 0, 0, 0.0), batches=3000, chunks=chunks)
    assert 800 <= last - first + 1 <= 900 + chunks
    assert cuts <= last / 100


def test_by_few_chunks() -> None:
    last, first, _ = grow(Ledger(Keep(chunks=1), 0, 0, 0.0), batches=10)
    assert (last, first) == (10, 10)


def test_by_bytes() -> None:
    ledger = Ledger(Keep(bytes=8000), 0, 0, 0.0)
    last, first, cuts = grow(ledger, batches=1000, size=100)
    assert 80 <= last - first + 1 <= 91
    assert ledger.size == (last - first + 1) * 100
    assert cuts <= 101


def test_by_age() -> None:
    last, first, cuts = grow(Ledger(Keep(age=80), 0, 0, 0.0), batches=1000, pace=1.0)
    assert 80 <= last - first + 1 <= 92
    assert cuts <= 101


def test_what_is_old_goes_while_nothing_is_added() -> None:
    """But never the newest part."""
    ledger = Ledger(Keep(age=80), 0, 0, 0.0)
    for number in range(20):
        ledger.add(number + 1, 1, 1, number * 10.0)
    assert ledger.cut(1e6) == 20
    assert ledger.cut(1e9) is None


def test_the_narrowest_bound_counts() -> None:
    last, first, _ = grow(Ledger(Keep(chunks=1000, bytes=800, age=1e9), 0, 0, 0.0), batches=500, size=10)
    assert 80 <= last - first + 1 <= 91


def test_what_was_there_before_goes_as_one() -> None:
    """Once as much as is to be kept was added: it may have been trimmed already, nobody knows how far."""
    ledger = Ledger(Keep(chunks=80), 1000, 5000, 0.0)
    cuts = []
    for last in range(1001, 1101):
        ledger.add(last, 1, 1, 0.0)
        cuts.append(ledger.cut(0.0))
    assert next(cut for cut in cuts if cut is not None) == 1001
    assert cuts.index(1001) == 79
    assert ledger.size <= 90


def test_the_account_stays_small() -> None:
    ledger = Ledger(Keep(chunks=1_000_000), 0, 0, 0.0)
    grow(ledger, batches=200_000, chunks=10)
    assert len(ledger._parts) <= limits.TRIM_PARTS + 2
