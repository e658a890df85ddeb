"""What a sweep does: open runs that no queue holds are put back, lists forget runs that have expired."""

from __future__ import annotations

import contextlib
import uuid

from loom.model import limits
from loom.model.errors import LoomError
from loom.model.ports import Swept

from .keys import Keys
from .logs import Logs
from .queue import Queue
from .servers import Servers

__all__ = ["Sweeper"]


class Sweeper:
    """Goes round the lists, so many runs at a time. Between the list and the run's own keys lie two calls: what is
    missing is taken for gone only when it is missing again."""

    def __init__(self, servers: Servers, keys: Keys, logs: Logs, queue: Queue) -> None:
        self._servers = servers
        self._keys = keys
        self._logs = logs
        self._queue = queue
        self._reached = {keys.open: "-inf", keys.runs: "-inf"}
        self._missing: set[str] = set()
        self._name = uuid.uuid4().hex

    async def sweep(self) -> Swept:
        if not await self._is_ours():
            return Swept()
        dropped = await self._forget_expired()
        return Swept(requeued=await self._put_back(), dropped=dropped)

    async def _is_ours(self) -> bool:
        """One process sweeps for all; when it has not for a while, another does."""
        return bool(await self._servers.call("turn", (self._keys.sweeper,), self._name, int(limits.SWEEPER)))

    async def settle(self, run: str) -> None:
        """The queue holds it no longer."""
        with contextlib.suppress(LoomError):  # what fails now the sweep finds
            if await self._logs.settle(run):
                await self._servers.ask(self._keys.open, "ZREM", self._keys.open, run)

    async def _put_back(self) -> int:
        """The log is the truth: who has not ended is in the queue, or is put there."""
        count = 0
        for run in await self._queue.unqueued(await self._some(self._keys.open)):
            listed = (await self._logs.listed([run]))[0]
            if listed is None:
                continue
            if listed.ended:
                await self.settle(run)
                continue
            await self._queue.put((await self._logs.head(run)).meta)
            count += 1
        return count

    async def _forget_expired(self) -> int:
        runs = await self._some(self._keys.runs)
        missing = {run for run, head in zip(runs, await self._logs.listed(runs), strict=True) if head is None}
        gone = missing & self._missing
        self._missing = missing - gone
        for index in (self._keys.runs, self._keys.open):
            if gone:
                await self._servers.ask(index, "ZREM", index, *gone)
        return len(gone)

    async def _some(self, index: str) -> list[str]:
        """The next of a list, and from its end on again its first."""
        some = await self._servers.ask(
            index, "ZRANGEBYSCORE", index, self._reached[index], "+inf", "WITHSCORES", "LIMIT", 0, limits.SWEEP_RUNS
        )
        self._reached[index] = f"({some[-1][1]!r}" if len(some) == limits.SWEEP_RUNS else "-inf"
        return [run.decode() for run, _ in some]
