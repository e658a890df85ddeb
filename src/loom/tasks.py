"""The one place that makes tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

__all__ = ["TaskSet", "abandon", "cancel_and_wait", "spawn", "together", "wait_out", "wind_up"]

T = TypeVar("T")
U = TypeVar("U")


def spawn(coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task that its caller owns: it must be awaited, or ended with `cancel_and_wait`."""
    return asyncio.create_task(coro, name=name)


async def together(
    first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U], name: str, *, at_once: bool = True
) -> tuple[T, U]:
    """Make two calls and return both results; unless `at_once`, the second begins when the first has returned. Raises
    the error of one of them (of both: the first's) when both have ended. A cancel cancels both."""
    if not at_once:
        try:
            return await first, await second
        finally:
            second.close()
    beside = spawn(second, name)
    try:
        try:
            result = await first
        except Exception:
            await asyncio.wait({beside})
            raise
        return result, await beside
    finally:
        if not beside.done():
            await cancel_and_wait(beside)
        elif not beside.cancelled():
            beside.exception()  # seen


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


def abandon(task: asyncio.Task[Any]) -> None:
    """Leave a task that does not stop to itself: closing its loop, as `asyncio.run` does, no longer waits for it.

    Source: "Extending asyncio", task lifetime support.
    """
    asyncio.tasks._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is told as abandoned already


async def wind_up(within: float) -> None:
    """At the end of a loop of ours: end what still runs there, as `asyncio.run` does, but wait no longer than `within`
    seconds for tasks, and as long for asynchronous generators. What does not end is abandoned."""
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    for task in asyncio.all_tasks() - {own}:
        task.cancel()
    await _wait_others(own, within)
    spawn(loop.shutdown_asyncgens(), "loom-asyncgens")
    await _wait_others(own, within)
    for task in asyncio.all_tasks() - {own}:
        abandon(task)
    # Closing the loop waits for its executor's threads: of a new one there are none.
    loop.set_default_executor(ThreadPoolExecutor(1))


async def _wait_others(own: asyncio.Task[Any] | None, within: float) -> None:
    others = asyncio.all_tasks() - {own}
    if others:
        await asyncio.wait(others, timeout=within)


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
