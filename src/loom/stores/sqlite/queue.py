"""The queue: the port. What its calls do in a session stands in `claims`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from loom.model import limits
from loom.model.errors import Fenced
from loom.model.run import Claim, Entry, Meta, Place
from loom.stores.watchers import pause

from . import claims
from .claims import Desk, Taken
from .executor import Executor
from .news import QUEUE

__all__ = ["SqliteQueue"]


class SqliteQueue:
    """The `WorkQueue`."""

    def __init__(self, executor: Executor, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._executor = executor
        self._wall = wall
        self._desk = Desk(clock, wall)
        self._untold: list[Claim] = []
        """Claims whose callers were cancelled before they had them."""

    async def put(self, meta: Meta) -> None:
        await self._executor.write(claims.put, meta, self._wall())

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, exclude: Collection[str] = ()
    ) -> Claim | None:
        if wait <= 0:
            return (await self._take(queues, worker, lease, exclude))[0]
        clock = asyncio.get_running_loop().time
        end = clock() + wait
        changed = asyncio.Event()
        unwatch = self._executor.watch(QUEUE, lambda notice: changed.set())
        try:
            while True:
                claim, due = await self._take(queues, worker, lease, exclude)
                left = end - clock()
                if claim is not None or left <= 0:
                    return claim
                await pause(changed, min(left, limits.OBSERVE if due is None else min(due, limits.OBSERVE)))
        finally:
            unwatch()

    async def force_claim(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        return await self._executor.write(claims.force_claim, meta, worker, lease)

    async def renew(self, claim: Claim) -> None:
        if not all(await self.renew_all([claim])):
            raise claims.lost(claim)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        return await self._executor.write(self._desk.renew, claims)

    async def ack(self, claim: Claim) -> None:
        await self._executor.write(claims.ack, claim)

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        await self._executor.write(claims.release, claim, delay)

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        limit = min(max(limit, 1), limits.LIST_LIMIT)
        return await self._executor.read(claims.list_entries, queue, place, limit)

    def give_back(self) -> None:
        """Release the claims that no caller knows of: the store is closed."""
        while self._untold:
            self._executor.begin(claims.give_back, self._untold.pop())

    async def _take(self, queues: Sequence[str], worker: str, lease: float, exclude: Collection[str]) -> Taken:
        """One look. A claim whose caller was cancelled before it had it is the same worker's again, or lapses."""
        kept = await self._kept(worker)
        if kept is not None:
            return kept, None
        future = self._executor.begin(self._desk.claim, queues, worker, lease, exclude)
        try:
            taken = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._keep)
            raise
        if taken[0] is None and (kept := await self._kept(worker)) is not None:
            return kept, None
        return taken

    def _keep(self, future: asyncio.Future[Taken]) -> None:
        if not future.cancelled() and future.exception() is None and (claim := future.result()[0]) is not None:
            self._untold.append(claim)

    async def _kept(self, worker: str) -> Claim | None:
        """A claim that this worker holds without knowing, whatever it asks for by now: no other worker would get it
        before its lease is over."""
        claim = next((claim for claim in self._untold if claim.worker == worker), None)
        if claim is None:
            return None
        self._untold.remove(claim)
        try:
            await self.renew(claim)
        except Fenced:
            return await self._kept(worker)
        except BaseException:
            self._untold.append(claim)
            raise
        return claim
