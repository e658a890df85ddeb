"""Claims that stand still, as one observer sees them."""

from __future__ import annotations

from loom.model.lease import Beat, Observed


def beat(count: int, *, run: str = "run", number: int = 1, lease: float = 10.0) -> Beat:
    return Beat(run, number, count, lease)


def test_a_heartbeat_that_stands_still_lapses_after_its_lease() -> None:
    observed = Observed()
    assert observed.look([beat(1)], 100.0) == []
    assert observed.look([beat(1)], 109.9) == []
    assert observed.look([beat(1)], 110.0) == [beat(1)]
    assert observed.look([beat(1)], 500.0) == [beat(1)]


def test_what_was_never_seen_before_has_its_whole_lease() -> None:
    """Also a restarted observer begins anew, whatever the time."""
    assert Observed().look([beat(7)], 10**9) == []


def test_a_heartbeat_that_counts_begins_its_lease_anew() -> None:
    observed = Observed()
    for count in range(10):
        assert observed.look([beat(count)], count * 9.0) == []
    assert observed.look([beat(9)], 9 * 9.0 + 10.0) == [beat(9)]


def test_a_new_claim_of_the_same_run_has_a_lease_of_its_own() -> None:
    observed = Observed()
    observed.look([beat(1)], 0.0)
    assert observed.look([beat(1, number=2)], 10.0) == []
    assert observed.look([beat(1, number=2)], 20.0) == [beat(1, number=2)]


def test_a_claim_that_was_away_begins_anew() -> None:
    observed = Observed()
    observed.look([beat(1)], 0.0)
    observed.look([], 5.0)
    assert observed.look([beat(1)], 20.0) == []
    assert observed.look([beat(1)], 30.0) == [beat(1)]


def test_each_claim_has_its_own_lease() -> None:
    observed = Observed()
    beats = [beat(1, run="a", lease=1.0), beat(1, run="b", lease=5.0), beat(1, run="c", lease=5.0)]
    observed.look(beats, 0.0)
    assert observed.look(beats, 1.0) == beats[:1]
    assert observed.look(beats, 5.0) == beats


def test_due_is_when_the_next_would_lapse() -> None:
    observed = Observed()
    assert observed.due is None
    observed.look([beat(1, run="a", lease=8.0), beat(1, run="b", lease=5.0)], 100.0)
    assert observed.due == 105.0
    observed.look([beat(1, run="a", lease=8.0), beat(2, run="b", lease=5.0)], 104.0)
    assert observed.due == 108.0
    observed.look([], 105.0)
    assert observed.due is None
