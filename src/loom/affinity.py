"""Objects that belong to one event loop: what waits in them is a future of that loop, which no other one can wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from loom.model.errors import UsageError

__all__ = ["LoopAffinity", "LoopBound", "running_loop"]

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class LoopAffinity:
    """The event loop of an object: the one in which it was first used."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Raise `UsageError` outside the object's event loop."""
        running = running_loop()
        if running is None:
            raise UsageError("no asyncio event loop runs here: code that blocks uses loom.connect_sync")
        if running is not self._loop:
            self._bind(running)

    def _bind(self, running: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise UsageError(
                "this client was connected in another event loop: connect inside each asyncio.run, or share one client"
                " between them with loom.connect_sync"
            )
        self._loop = running


class LoopBound(AsyncGenerator[T, None]):
    """An async generator, for one event loop. Continued in another one it would hang, or end early without an error:
    `asyncio.run` closes the generators of the loop that it leaves."""

    __slots__ = ("_check", "_items")

    def __init__(self, items: AsyncGenerator[T, None], check: Callable[[], None]) -> None:
        self._items = items
        self._check = check

    def __aiter__(self) -> AsyncGenerator[T, None]:
        """The generator itself: one `async for` never changes its loop, and a check of each chunk would double the cost
        of reading it."""
        self._check()
        return self._items

    def asend(self, value: None) -> Coroutine[Any, Any, T]:
        self._check()
        return self._items.asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, T]:
        self._check()
        return self._items.athrow(*error)

    async def aclose(self) -> None:
        """Idempotent."""
        self._check()
        await self._items.aclose()
