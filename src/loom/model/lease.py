"""Which claims stand still: heartbeats as one observer saw them, by its own monotonic clock.

Whoever holds a claim counts its heartbeat up; nobody compares wall clocks, which jump.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

__all__ = ["Beat", "Observed", "patience"]


class Beat(NamedTuple):
    """A claim's heartbeat as it is stored: the claim's number, the counter, the claim's lease in seconds, and who holds
    it. None holds an entry that is delayed: its lease is the delay."""

    run: str
    number: int
    beat: int
    lease: float
    worker: str | None = ""


def patience(lease: float, *, own: bool) -> float:
    """For how many seconds a claim has to stand still before it is taken over.

    The holder itself waits for twice its lease: it renews what it drives, and who no longer drives it takes it again.
    """
    return 2 * lease if own else lease


class Observed:
    """What one observer has seen of the claims of a queue. A restarted observer begins anew: a lease is never
    taken for shorter than it is.

    Between two looks a claim is taken to have stood still for half its lease at most. Whatever stopped the observer (a
    paused machine, a blocked loop) may have stopped the holder too, who then has the other half to renew.
    """

    def __init__(self) -> None:
        self._stood: dict[str, tuple[Beat, float]] = {}
        self._looked = inf
        self.due: float | None = None
        """When the next of the claims last seen would lapse, of those that had not: in the same clock's seconds."""

    def look(self, beats: Iterable[Beat], now: float, worker: str | None = None) -> list[Beat]:
        """Note the present claims' heartbeats at `now` (monotonic seconds; all of them: others are forgotten).

        Returns those that `worker` may take over.
        """
        passed = max(now - self._looked, 0.0)
        self._looked = now
        before = self._stood
        self._stood = {}
        lapsed, ends = [], []
        for beat in beats:
            seen, stood = before.get(beat.run, (None, 0.0))
            stood = stood + min(passed, _most(beat)) if seen == beat else 0.0
            self._stood[beat.run] = (beat, stood)
            left = patience(beat.lease, own=beat.worker is not None and beat.worker == worker) - stood
            if left <= 0:
                lapsed.append(beat)
            else:
                ends.append(now + left)
        self.due = min(ends, default=None)
        return lapsed


def _most(beat: Beat) -> float:
    """What counts of the time between two looks: of a delay all, for nobody has to renew it."""
    return inf if beat.worker is None else beat.lease / 2
