"""What a sweep does: open runs that no queue holds are put back, or ended; lists forget runs that have expired."""

from __future__ import annotations

import contextlib
import logging
import uuid

from loom.model import limits
from loom.model.errors import Conflict, Damaged, Fenced, LogEnded, LogNotFound, LoomError
from loom.model.ports import SweepReport

from .client.servers import Servers
from .keys import Keys
from .lists import RunLists
from .queue import RedisQueue
from .runs import RedisRuns

__all__ = ["Sweeper"]

_log = logging.getLogger("loom.store")

SWEEPER = 3 * limits.SWEEP_EVERY
"""One process sweeps for all. When it is gone another does after this."""

SWEEP_SLICES = 20
"""Times `limits.SWEEP_RUNS` of the oldest runs that one sweep looks for, as long as some have expired: two thousand a
second."""


class Sweeper:
    """Goes round the lists, so many runs at a time. Between the list and the run's own keys lie two calls: what is
    missing is taken for gone only when it is missing again."""

    def __init__(self, servers: Servers, keys: Keys, lists: RunLists, runs: RedisRuns, queue: RedisQueue) -> None:
        self._servers = servers
        self._keys = keys
        self._lists = lists
        self._runs = runs
        self._queue = queue
        self._reached = {keys.open: "-inf", keys.runs: "-inf"}
        self._missing: set[str] = set()
        """What an earlier sweep did not find."""
        self._name = uuid.uuid4().hex

    async def sweep(self) -> SweepReport:
        await self._lists.catch_up()
        if not await self._is_ours():
            return SweepReport()
        dropped = await self._forget_expired()
        requeued, ended = await self._put_back()
        return SweepReport(requeued=requeued, dropped=dropped, ended=ended)

    async def _is_ours(self) -> bool:
        """One process sweeps for all; when it has not for a while, another does."""
        return bool(await self._servers.call("turn", (self._keys.sweeper,), self._name, int(SWEEPER)))

    async def settle(self, run: str) -> None:
        """The queue holds it no longer."""
        with contextlib.suppress(LoomError):  # what fails now the sweep finds
            await self._runs.acknowledged(run)

    async def _put_back(self) -> tuple[int, int]:
        """The log is the truth: who has not ended is in the queue, or is put there, but for those in which nothing has
        happened for too long. (How many were put, how many ended.)"""
        requeued = ended = 0
        for run in await self._queue.unqueued(await self._some(self._keys.open)):
            try:
                head = await self._runs.get(run)
            except LogNotFound:
                continue
            except Damaged as damage:  # nobody can run it; the others' turn comes all the same
                _log.error("not put back: run %s: %s", run, damage)
                continue
            if head.ended:
                await self.settle(run)
                continue
            if head.state == "running" and await self._end_idle(run):
                ended += 1
                continue
            await self._queue.put(head.meta)
            requeued += 1
        return requeued, ended

    async def _end_idle(self, run: str) -> bool:
        try:
            ended = await self._runs.end_idle(run)
        except (Fenced, Conflict, LogEnded):  # somebody writes it after all
            return False
        if ended:
            await self.settle(run)
        return ended

    async def _forget_expired(self) -> int:
        """Of the oldest as many as are gone, and of the others some in each sweep."""
        count, known, reached = 0, frozenset(self._missing), "-inf"
        for _ in range(SWEEP_SLICES):
            runs, reached = await self._slice(self._keys.runs, reached)
            missing = await self._runs.missing(runs)
            count += await self._forget(runs, missing, known)
            if not missing or reached == "-inf":
                break
        runs = await self._some(self._keys.runs)
        return count + await self._forget(runs, await self._runs.missing(runs), known)

    async def _forget(self, runs: list[str], missing: set[str], known: frozenset[str]) -> int:
        gone = missing & known
        await self._lists.remove(*gone)
        self._missing.difference_update(runs)
        self._missing |= missing - gone
        return len(gone)

    async def _some(self, index: str) -> list[str]:
        """The next of a list, and from its end on again its first."""
        runs, self._reached[index] = await self._slice(index, self._reached[index])
        return runs

    async def _slice(self, index: str, reached: str) -> tuple[list[str], str]:
        """Some of a list from there on, and where the next begin."""
        some = await self._servers.ask(
            index, "ZRANGEBYSCORE", index, reached, "+inf", "WITHSCORES", "LIMIT", 0, limits.SWEEP_RUNS
        )
        reached = f"({some[-1][1]!r}" if len(some) == limits.SWEEP_RUNS else "-inf"
        return [run.decode() for run, _ in some], reached
