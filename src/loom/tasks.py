"""The one place that makes tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

__all__ = ["TaskSet", "cancel_and_wait", "spawn", "wait_out"]

T = TypeVar("T")


def spawn(coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task that its caller owns: it must be awaited, or ended with `cancel_and_wait`."""
    return asyncio.create_task(coro, name=name)


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, once, and wait until they are really gone. Their outcomes are dropped; our own cancellation is
    raised after that."""
    for task in tasks:
        task.cancel()
    try:
        await wait_out(*tasks)
    finally:
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # seen


async def wait_out(*tasks: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Wait until tasks have ended, at most `timeout` seconds. Our own cancellation waits as well: a task that is
    cleaning up must neither be left alone nor be interrupted by it."""
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    interrupted: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        left = None if end is None else end - loop.time()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait(pending, timeout=left)
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


class TaskSet:
    """Tasks of one owner. Leaving the block cancels what still runs and waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = spawn(coro, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Cancel what still runs and wait until it is gone."""
        await cancel_and_wait(*self._tasks)

    async def wait_all(self, timeout: float | None = None) -> None:
        """Wait until all have ended, at most `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout)

    async def wait_out(self) -> None:
        """Wait until all have ended, also through our own cancellation."""
        await wait_out(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
