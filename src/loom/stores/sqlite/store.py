"""The store itself: the four ports on one file, and its sweep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Self

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.ports import Durability, SweepReport

from . import upkeep
from .executor import Executor
from .logs import SqliteLogs
from .queue import SqliteQueue
from .runs import SqliteRuns, end_idle
from .upkeep import DROP_RUNS, KEEP, SWEEP_STEPS, Retention
from .workers import SqliteWorkers

__all__ = ["SqliteStore"]


class SqliteStore:
    """The four ports in the file `path`, which any number of processes of one machine may share.

    An acknowledged append survives a power cut (`durability="disk"`) or kill -9 (`"process"`: a power cut takes back
    the newest commits, and leaves the file sound). Changes by other processes are noticed within `limits.POLL`.
    Leases and delays are measured by `clock`, in monotonic seconds; stored times, and the age of ended runs, are of
    `wall`, in Unix seconds.

    Opening raises `UsageError` for what is no Loom store, another version's, or cannot be opened. Calls raise
    `Unavailable` when another process holds the write lock for `busy` seconds, or the file was deleted or replaced
    (noticed within `limits.PLACE`; it is never made anew), `StoreFull` when the disk is full, and `HandleClosed`
    before the store is opened and after it is closed.
    """

    waits = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "disk",
        retention: Retention = KEEP,
        busy: float = limits.BUSY,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if durability not in ("disk", "process"):
            raise UsageError(f"durability: an SQLite file gives 'disk' or 'process', not {durability!r}")
        self.durability = durability
        self._retention = retention
        self._wall = wall
        self._executor = Executor(os.fspath(path), durability, busy)
        self.logs = SqliteLogs(self._executor, wall)
        self.runs = SqliteRuns(self._executor, wall)
        self.queue = SqliteQueue(self._executor, clock, wall)
        self.workers = SqliteWorkers(self._executor, wall)

    async def __aenter__(self) -> Self:
        await self._executor.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Waits for what was submitted; who waits for something to happen gets `HandleClosed`."""
        self.queue.give_back()
        await self._executor.aclose()

    async def sweep(self) -> SweepReport:
        write = self._executor.write
        ended = await write(end_idle, self._wall())
        requeued = await write(upkeep.requeue, self._wall())
        dropped = 0
        for _ in range(limits.SWEEP_RUNS // DROP_RUNS):
            expired = await write(upkeep.expire, self._retention, self._wall())
            dropped += expired
            if not expired:
                break
        # Make what was dropped free room, and drop more while the file is too large.
        for _ in range(SWEEP_STEPS):
            if await write(upkeep.clear):
                continue
            if not await write(upkeep.make_room, self._retention):
                break
            dropped += 1
        await write(upkeep.tidy, self._wall())
        return SweepReport(requeued=requeued, dropped=dropped, ended=ended)
