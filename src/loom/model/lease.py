"""Which claims stand still: heartbeats as one observer saw them, by its own monotonic clock.

Whoever holds a claim counts its heartbeat up; nobody compares wall clocks, which jump.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Beat", "Observed"]


class Beat(NamedTuple):
    """A claim's heartbeat as it is stored: the claim's number, the counter, and the claim's lease in seconds."""

    run: str
    number: int
    beat: int
    lease: float


class Observed:
    """What one observer has seen of the claims of a queue. A restarted observer begins anew: a lease is never
    taken for shorter than it is."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Beat, float]] = {}
        self.due: float | None = None
        """When the next of the claims last seen would lapse, of those that had not: in the same clock's seconds."""

    def look(self, beats: Iterable[Beat], now: float) -> list[Beat]:
        """Note the present claims' heartbeats at `now` (monotonic seconds; all of them: others are forgotten).

        Returns those seen unchanged for their lease.
        """
        before = self._since
        self._since = {}
        lapsed, ends = [], []
        for beat in beats:
            seen, since = before.get(beat.run, (beat, now))
            if seen != beat:
                since = now
            self._since[beat.run] = (beat, since)
            if now - since >= beat.lease:
                lapsed.append(beat)
            else:
                ends.append(since + beat.lease)
        self.due = min(ends, default=None)
        return lapsed
