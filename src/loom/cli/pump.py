"""Writes to a terminal or pipe from a thread, so that a reader who pauses stops our reading, not our heartbeats."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from loom.tasks import cancel_and_wait, spawn

from .standard import OUTPUT, named

__all__ = ["Pump", "write_all"]


class Pump:
    """Whenever the file descriptor is free and somebody said `nudge`, writes what `pull` gives.

    What comes while a write is under way is the next write: nothing waits, and a busy stream batches by itself.
    `done` ends when writing fails (a reader that left: `BrokenPipeError`). An async context manager.
    """

    def __init__(self, descriptor: int, pull: Callable[[], bytes], every: float | None = None) -> None:
        self._descriptor = descriptor
        self._pull = pull
        self._every = every
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "loom-output")

    async def __aenter__(self) -> Self:
        self.done: asyncio.Task[None] = spawn(self._run(), "loom-output")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await cancel_and_wait(self.done)
        self._thread.shutdown(wait=False)

    def nudge(self) -> None:
        """There may be something to write."""
        self._idle.clear()
        self._news.set()

    async def settle(self) -> None:
        """Until all that there was is written. Raises `OSError` when it cannot be."""
        self.nudge()
        idle = spawn(self._idle.wait(), "loom-output-idle")
        try:
            await asyncio.wait({idle, self.done}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(idle)
        if self.done.done():
            self.done.result()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wait()
            self._news.clear()
            data = self._pull()
            if data:
                await loop.run_in_executor(self._thread, write_all, self._descriptor, data)
            if not self._news.is_set():
                self._idle.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._news.wait()
        except TimeoutError:
            return  # time has passed: what moves is drawn anew


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` to standard output, blocking. Raises `OSError` that names it."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise named(error, OUTPUT) from None
