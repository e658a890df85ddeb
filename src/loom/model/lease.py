"""Which claims stand still: heartbeats as one observer saw them, by its own monotonic clock.

Whoever holds a claim counts its heartbeat up; nobody compares wall clocks, which jump.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

__all__ = ["Beat", "Observed"]


class Beat(NamedTuple):
    """A claim's heartbeat as it is stored: the claim's number, the counter, and the claim's lease in seconds.

    An entry that nobody holds, and that is delayed, has one too: its lease is the delay.
    """

    run: str
    number: int
    beat: int
    lease: float
    delayed: bool = False

    @property
    def _most(self) -> float:
        """What counts of the time between two looks: of a delay all, for nobody has to renew it."""
        return inf if self.delayed else self.lease / 2


class Observed:
    """What one observer has seen of the claims of a queue. A restarted observer begins anew: a lease is never
    taken for shorter than it is.

    Between two looks a claim is taken to have stood still for half its lease at most: whatever stopped the observer (a
    paused machine, a blocked loop) may have stopped the holder too, who then has the other half to renew.
    """

    def __init__(self) -> None:
        self._stood: dict[str, tuple[Beat, float]] = {}
        self._looked = inf
        self.due: float | None = None
        """When the next of the claims last seen would lapse, of those that had not: in the same clock's seconds."""

    def look(self, beats: Iterable[Beat], now: float) -> list[Beat]:
        """Note the present claims' heartbeats at `now` (monotonic seconds; all of them: others are forgotten).

        Returns those that stood still for their lease.
        """
        passed = max(now - self._looked, 0.0)
        self._looked = now
        before = self._stood
        self._stood = {}
        lapsed, ends = [], []
        for beat in beats:
            seen, stood = before.get(beat.run, (None, 0.0))
            stood = stood + min(passed, beat._most) if seen == beat else 0.0
            self._stood[beat.run] = (beat, stood)
            if stood >= beat.lease:
                lapsed.append(beat)
            else:
                ends.append(now + beat.lease - stood)
        self.due = min(ends, default=None)
        return lapsed
