"""Readers' marks: beats change with each, and tell how long a reader has been silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model import limits
from loom.stores.positions import beat_after, is_forgotten

TIMES = st.floats(0.0, 4e9)


@given(st.none() | st.integers(0, 4 * 10**12), TIMES)
def test_a_beat_is_another_than_the_one_before_and_of_now(before: int | None, now: float) -> None:
    beat = beat_after(before, now)
    assert beat != before
    if before is None or before < now * 1000:
        assert not is_forgotten(beat, now)


@pytest.mark.parametrize(
    ("age", "forgotten"),
    [(0.0, False), (limits.READER_LEASE, False), (limits.READER_LEASE + 1, True), (-limits.READER_LEASE - 1, True)],
)
def test_a_reader_is_forgotten_when_it_was_silent_for_long(age: float, forgotten: bool) -> None:
    """Also when the clock was set back since: its mark would be from the future for long."""
    now = 1e9
    assert is_forgotten(beat_after(None, now - age), now) is forgotten


def test_a_thousand_marks_within_a_millisecond_all_differ() -> None:
    beats: list[int] = []
    for _ in range(1000):
        beats.append(beat_after(beats[-1] if beats else None, 5.0))
    assert len(set(beats)) == 1000
