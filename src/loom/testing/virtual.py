"""Virtual time: an event loop on which nobody waits. When nothing is ready, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import math
import selectors

__all__ = ["VirtualLoop"]

Events = list[tuple[selectors.SelectorKey, int]]


class _Selector(selectors.DefaultSelector):
    """Asks for events without waiting; the time-out that was given passes at once."""

    def __init__(self, *, polls: bool) -> None:
        super().__init__()
        self.now = 1000.0
        self._polls = polls

    def select(self, timeout: float | None = None) -> Events:
        if timeout is None:
            return super().select(None)
        events = super().select(0) if self._polls else []
        if not events:
            self.now += max(timeout, 0.0)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time: ``asyncio.Runner(loop_factory=VirtualLoop)``.

    What a thread or a socket does still takes its real time; the clock goes on meanwhile. Without `polls` the system
    is not asked for events while any timer runs: for loops that have neither, which turn faster then.
    """

    def __init__(self, *, polls: bool = True) -> None:
        self._virtual = _Selector(polls=polls)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    @property
    def _clock_resolution(self) -> float:
        """Timers are never early, as the system's clock lets them be: what is left of a wait then does not pass while
        two that wait for it keep the loop awake."""
        return math.ulp(self._virtual.now)

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """It is set by `asyncio`, to that of the system's clock."""

    def stand_still(self, seconds: float) -> None:
        """As if the process had been stopped, or its loop blocked: the time passes and nothing happens in it."""
        self._virtual.now += seconds
