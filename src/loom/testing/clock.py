"""Time that tests turn by hand, and stores that are made on it."""

from __future__ import annotations

from collections.abc import Callable

from loom.model.ports import Store

__all__ = ["Clock", "ManualClock", "StoreFactory"]

Clock = Callable[[], float]
"""Monotonic seconds, by which a store measures leases and delays."""

StoreFactory = Callable[[Clock], Store]
"""Makes a store, not entered yet."""


class ManualClock:
    """A stand-in for `time.monotonic`: it stands still until it is advanced."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
