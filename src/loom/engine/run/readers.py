"""`ahead`: how far a run may be ahead of its slowest attached reader. Both sides: the run's, and a reader's."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

from loom.backoff import REPEATABLE, Backoff
from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import LoomError
from loom.model.ports import LogStore, Notice
from loom.tasks import cancel_and_wait, spawn

__all__ = ["Reader", "Readers"]

Tell = Callable[[str, str, int | None], Awaitable[None]]
"""`LogStore.commit_position`, or the same through a server."""

Wait = Callable[[Coroutine[Any, Any, Literal[True]]], Coroutine[Any, Any, Literal[True]]]
"""Awaits what blocks, as a run does that gives back its slot meanwhile."""

PATIENCE = 0.02
"""Seconds for which a run keeps its slot while it waits for a reader. To give it back and take it again costs as much
as the rest of a chunk, and a reader that keeps up moves within less."""

_LOOK = limits.READER_LEASE / limits.RENEW_FRACTION


class Readers:
    """The readers' marks of one run. A reader not heard of for `limits.READER_LEASE` no longer counts. `wait`
    awaits what waits for one: it may be a run, which needs the slot of this one."""

    def __init__(self, logs: LogStore, run: str, ahead: int, wait: Wait | None = None) -> None:
        self._logs = logs
        self._wait = wait
        self._run = run
        self._ahead = ahead
        self._seen: dict[str, tuple[int, float]] = {}
        self._slowest: int | None = None
        self._waiting = 0
        self._slow = False
        """The slowest has not moved for `PATIENCE`, while it was waited for."""
        self._patience: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._news.set()
        self._backoff = Backoff.of_store()
        self._unwatch = logs.watch(run, self._notice)
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look_again)

    async def room(self, seq: int) -> None:
        """Wait until chunk `seq` + 1 may be said: at most `ahead` chunks lie behind the slowest reader's position."""
        while True:
            if self._news.is_set():
                self._news.clear()
                await self._backoff.attempt(self._look)
            if self._slowest is None or seq < self._slowest + self._ahead:
                return
            await self._wait_for_news()

    async def _wait_for_news(self) -> Literal[True]:
        if self._wait is not None:
            if self._slow:
                return await self._wait(self._news.wait())
            if self._patience is None:
                self._arm()
        self._waiting += 1
        try:
            return await self._news.wait()
        finally:
            self._waiting -= 1

    def _arm(self) -> None:
        self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._lose_patience, self._slowest)

    def _lose_patience(self, slowest: int | None) -> None:
        self._patience = None
        if self._waiting:
            if self._slowest == slowest:
                self._slow = True
                self._news.set()
            else:
                self._arm()

    async def _look(self) -> None:
        marks = await self._logs.positions(self._run)
        now = time.monotonic()
        seen = {}
        for mark in marks:
            beat, since = self._seen.get(mark.reader, (-1, now))
            seen[mark.reader] = (mark.beat, since if beat == mark.beat else now)
        self._seen = seen
        alive = [mark.seq for mark in marks if now - seen[mark.reader][1] < limits.READER_LEASE]
        slowest = min(alive, default=None)
        if slowest != self._slowest:
            self._slowest, self._slow = slowest, False

    def _look_again(self) -> None:
        """A reader that went silent tells nothing: look whether one has lapsed."""
        self._news.set()
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look_again)

    def _notice(self, notice: Notice) -> None:
        if notice.marks:
            self._news.set()

    def close(self) -> None:
        self._unwatch()
        self._timer.cancel()
        if self._patience is not None:
            self._patience.cancel()


class Reader:
    """One reader of a run with `ahead`: says how far it has read, and while it is slow, that it is alive."""

    def __init__(self, tell: Tell, run: str) -> None:
        self._tell = tell
        self._run = run
        self._id = uuid.uuid4().hex
        self._seq = 0
        self._task = spawn(self._beat(), f"loom-reader {run}")

    async def read_through(self, cursor: Cursor | None) -> None:
        """Everything up to `cursor` is read; the run knows it when this returns. Waits out outages."""
        self._seq = cursor.seq if cursor else 0
        try:
            await self._tell(self._run, self._id, self._seq)
        except REPEATABLE:
            await Backoff.of_store().attempt(self._mark)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(limits.READER_LEASE / limits.RENEW_FRACTION)
            await Backoff.of_store().attempt(self._mark)

    async def _mark(self) -> None:
        await self._tell(self._run, self._id, self._seq)

    async def aclose(self) -> None:
        """The reader leaves: the run no longer waits for it."""
        await cancel_and_wait(self._task)
        try:
            async with asyncio.timeout(limits.LEAVE):
                await self._tell(self._run, self._id, None)
        except (LoomError, TimeoutError):
            return  # out of reach, or the run is gone: the mark lapses by itself
