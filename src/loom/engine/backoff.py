"""Pauses between tries: doubling, jittered, bounded. Inside a run a library's retry loop would hide the reasons."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from loom.model import limits
from loom.model.errors import OutcomeUnknown, StoreFull, Unavailable

__all__ = ["REPEATABLE", "Backoff"]

T = TypeVar("T")

REPEATABLE = (Unavailable, OutcomeUnknown, StoreFull)
"""After these the very same call may be made again: every call of a store is idempotent."""


class Backoff:
    """Doubling pauses between `first` and `longest` seconds, each drawn from its upper half."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    @classmethod
    def of_store(cls) -> Backoff:
        """For calls to a store that is out of reach."""
        return cls(*limits.STORE_RETRY)

    def reset(self) -> None:
        """It worked: the next pause is the first one again."""
        self._next = self._first

    def draw(self) -> float:
        """The next pause in seconds."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause * random.uniform(0.5, 1.0)

    async def pause(self) -> None:
        """Wait for the next pause."""
        await asyncio.sleep(self.draw())

    async def attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        """`call`, made again for as long as the store is out of reach. Its caller bounds it by cancelling."""
        while True:
            try:
                result = await call()
            except REPEATABLE:
                await self.pause()
            else:
                self.reset()
                return result
