"""Time that tests turn by hand."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """A stand-in for `time.monotonic`: it stands still until it is advanced."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
