"""Pauses between tries: doubling, jittered, bounded. Why they are no library's: `docs/adr/0016`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from loom.model import limits
from loom.model.errors import LoomError, OutcomeUnknown, StoreFull, Unavailable
from loom.model.text import escaped

__all__ = ["REPEATABLE", "Backoff", "repeated"]

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

    @classmethod
    def of_refusals(cls) -> Backoff:
        """For calls that a store refuses: they will hardly be allowed in a second."""
        return cls(limits.STORE_RETRY[0], limits.REFUSED_RETRY)

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


async def repeated(
    call: Callable[[], Awaitable[T]],
    may: Callable[[LoomError], bool],
    *,
    attempts: int,
    within: float,
    backoff: tuple[float, float],
    log: logging.Logger,
) -> T:
    """`call`, made again after an error that `may` be repeated: at most `attempts` times in all, none later than
    `within` seconds after the first.

    A pause that the other side asks for (``details["retry_after"]``) comes before ours, whole. Raises the last error.
    """
    pauses = Backoff(*backoff)
    clock = asyncio.get_running_loop().time
    end = clock() + within
    for _ in range(attempts - 1):
        try:
            return await call()
        except LoomError as error:
            pause = float(error.details.get("retry_after", 0.0)) + pauses.draw()
            if not may(error) or clock() + pause > end:
                raise
            log.info("%s; asking again in %.2f s", escaped(str(error)), pause)
        await asyncio.sleep(pause)
    return await call()
