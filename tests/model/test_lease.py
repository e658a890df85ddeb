"""Claims that stand still, as one observer sees them."""

from __future__ import annotations

from loom.model.lease import Beat, Observed


def beat(count: int, *, run: str = "run", number: int = 1, lease: float = 10.0, delayed: bool = False) -> Beat:
    return Beat(run, number, count, lease, delayed)


def watch(observed: Observed, beats: list[Beat], begin: float, end: float) -> list[Beat]:
    """Look once a second; what the last look found."""
    return [observed.look(beats, begin + second) for second in range(int(end - begin) + 1)][-1]


def test_a_heartbeat_that_stands_still_lapses_after_its_lease() -> None:
    observed = Observed()
    assert watch(observed, [beat(1)], 100.0, 109.0) == []
    assert observed.look([beat(1)], 109.9) == []
    assert observed.look([beat(1)], 110.0) == [beat(1)]
    assert observed.look([beat(1)], 500.0) == [beat(1)]


def test_what_was_never_seen_before_has_its_whole_lease() -> None:
    """Also a restarted observer begins anew, whatever the time."""
    assert Observed().look([beat(7)], 10**9) == []


def test_time_without_a_look_counts_for_half_a_lease() -> None:
    """What stopped the observer may have stopped the holder. Rare looks find a lapsed claim all the same."""
    observed = Observed()
    assert observed.look([beat(1)], 0.0) == []
    assert observed.look([beat(1)], 1000.0) == []
    assert observed.look([beat(1)], 1004.0) == []
    assert observed.look([beat(1)], 2000.0) == [beat(1)]


def test_all_of_a_delay_counts() -> None:
    delayed = beat(1, delayed=True)
    observed = Observed()
    assert observed.look([delayed], 0.0) == []
    assert observed.look([delayed], 10.0) == [delayed]


def test_a_heartbeat_that_counts_begins_its_lease_anew() -> None:
    observed = Observed()
    for count in range(10):
        assert observed.look([beat(count)], count * 4.0) == []
    assert watch(observed, [beat(9)], 37.0, 45.0) == []
    assert observed.look([beat(9)], 46.0) == [beat(9)]


def test_a_new_claim_of_the_same_run_has_a_lease_of_its_own() -> None:
    observed = Observed()
    watch(observed, [beat(1)], 0.0, 9.0)
    assert watch(observed, [beat(1, number=2)], 10.0, 19.0) == []
    assert observed.look([beat(1, number=2)], 20.0) == [beat(1, number=2)]


def test_a_claim_that_was_away_begins_anew() -> None:
    observed = Observed()
    observed.look([beat(1)], 0.0)
    observed.look([], 5.0)
    assert watch(observed, [beat(1)], 20.0, 29.0) == []
    assert observed.look([beat(1)], 30.0) == [beat(1)]


def test_each_claim_has_its_own_lease() -> None:
    observed = Observed()
    beats = [beat(1, run="a", lease=2.0), beat(1, run="b", lease=5.0), beat(1, run="c", lease=5.0)]
    assert watch(observed, beats, 0.0, 2.0) == beats[:1]
    assert watch(observed, beats, 3.0, 5.0) == beats


def test_due_is_when_the_next_would_lapse() -> None:
    observed = Observed()
    assert observed.due is None
    observed.look([beat(1, run="a", lease=8.0), beat(1, run="b", lease=5.0)], 100.0)
    assert observed.due == 105.0
    observed.look([beat(1, run="a", lease=8.0), beat(2, run="b", lease=5.0)], 104.0)
    assert observed.due == 108.0
    observed.look([], 105.0)
    assert observed.due is None
