"""`ahead`: how far a run may be ahead of its slowest attached reader."""

from __future__ import annotations

import asyncio
import time

from loom.model import limits
from loom.model.ports import Logs, Notice

from .backoff import Backoff

__all__ = ["Readers"]


class Readers:
    """The readers' marks of one run. A reader not heard of for `limits.READER_LEASE` no longer counts."""

    def __init__(self, logs: Logs, run: str, ahead: int) -> None:
        self._logs = logs
        self._run = run
        self._ahead = ahead
        self._seen: dict[str, tuple[int, float]] = {}
        self._slowest: int | None = None
        self._news = asyncio.Event()
        self._news.set()
        self._unwatch = logs.watch(run, self._notice)

    async def room(self, seq: int) -> None:
        """Wait until chunk `seq` + 1 may be said: at most `ahead` chunks lie behind the slowest reader's position."""
        while True:
            if self._news.is_set():
                self._news.clear()
                await self._look()
            if self._slowest is None or seq < self._slowest + self._ahead:
                return
            await self._wait()

    async def _look(self) -> None:
        marks = await Backoff.of_store().attempt(lambda: self._logs.marks(self._run))
        now = time.monotonic()
        seen = {}
        for mark in marks:
            beat, since = self._seen.get(mark.reader, (-1, now))
            seen[mark.reader] = (mark.beat, since if beat == mark.beat else now)
        self._seen = seen
        alive = [mark.seq for mark in marks if now - seen[mark.reader][1] < limits.READER_LEASE]
        self._slowest = min(alive, default=None)

    async def _wait(self) -> None:
        """For a notice, or until a reader that went silent may have lapsed."""
        try:
            async with asyncio.timeout(limits.READER_LEASE / limits.RENEW_FRACTION):
                await self._news.wait()
        except TimeoutError:
            self._news.set()

    def _notice(self, notice: Notice) -> None:
        if notice.marks:
            self._news.set()

    def close(self) -> None:
        self._unwatch()
