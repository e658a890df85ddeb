"""Forgets the oldest of a log that goes on for ever, as its writer adds to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from loom.backoff import Backoff
from loom.model import limits
from loom.model.chunk import Batch
from loom.model.errors import LogNotFound
from loom.model.keep import Keep, Ledger
from loom.model.ports import Fence, LogStore
from loom.tasks import cancel_and_wait, spawn

from .trouble import Trouble

__all__ = ["Trimmer"]

_log = logging.getLogger("loom.worker")


class Trimmer:
    """Trims one writer's log by `keep`, in a task of its own: the writer never waits for it.

    `on_freed` is told how many bytes are no longer kept. What is too old goes also while nothing is added.
    """

    def __init__(self, logs: LogStore, run: str, keep: Keep, fence: Fence, on_freed: Callable[[int], None]) -> None:
        self._logs = logs
        self._run = run
        self._on_freed = on_freed
        self._ledger = Ledger(keep, fence.tail, fence.size, time.monotonic())
        self._every = keep.seconds / limits.TRIM_PARTS if keep.age is not None else None
        self._news = asyncio.Event()
        self._before = 0
        self._task = spawn(self._trim(), f"loom-trim {run}")

    def stored(self, batch: Batch) -> None:
        """`batch` was stored."""
        self._ledger.add(batch.last, len(batch), len(batch.payload), time.monotonic())
        self._cut()

    def _cut(self) -> None:
        size = self._ledger.size
        before = self._ledger.cut(time.monotonic())
        if before is not None:
            self._before = before
            self._news.set()
            self._on_freed(size - self._ledger.size)

    async def _trim(self) -> None:
        trouble, late = Trouble(_log, f"run {self._run}: its log is not trimmed"), Backoff.of_refusals()
        while True:
            await self._wait()
            try:
                await Backoff.of_store().attempt(lambda: self._logs.trim(self._run, self._before))
            except LogNotFound:
                return  # dropped: whoever writes it is told
            except Exception as error:  # a store's own fault: the log grows on, up to its bound
                trouble.met(self, error)
                self._news.set()
                await late.pause()
            else:
                trouble.over(self)
                late.reset()

    async def _wait(self) -> None:
        """Until there is something to forget."""
        while not self._news.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._news.wait()
            self._cut()
        self._news.clear()

    async def aclose(self) -> None:
        await cancel_and_wait(self._task)
