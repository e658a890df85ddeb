"""The store itself: logs and a queue on Redis or Valkey, one server, behind Sentinels, or a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Self

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed, LogNotFound, UsageError
from loom.model.ports import Durability, Fence, Notify, Survey, Swept, Unwatch
from loom.model.run import Claim, Entry, Head, Mark, Meta, Place, RunState, WorkerInfo
from loom.stores.watchers import pause

from .client.address import Address
from .client.servers import Servers
from .keys import Keys
from .logs import Logs
from .notices import Notices
from .queue import Queue
from .survey import survey
from .sweep import Sweeper

__all__ = ["RedisStore"]


class RedisStore:
    """Logs and a queue on the servers at `address`, shared by whoever uses the same `prefix` there.

    What an acknowledged append survives is what the server gives (`durability`, known once the store is open), or with
    ``durability=replica`` what `replicas` have confirmed. Ended runs expire `retention` seconds after their end (None:
    never) unless they say otherwise. Leases are measured by `clock`, in monotonic seconds; delayed starts go by the
    server's clock; stored times are of `wall`, in Unix seconds.

    Opening raises `UsageError` for a server that is too old, or does not give the durability that was asked for,
    `Unauthorized`, and `Unavailable`. Calls raise `StoreFull` when the server has no memory or disk left, `Unavailable`
    when it cannot be reached, `OutcomeUnknown` when too few replicas have confirmed, and `HandleClosed` before the
    store is opened and after it is closed.
    """

    def __init__(
        self,
        address: Address,
        *,
        retention: float | None = limits.REDIS_RETENTION,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.durability: Durability = address.durability or "memory"
        self._address = address
        self._keys = Keys(address.prefix)
        self._servers = Servers(address)
        self._notices = Notices(self._servers, self._keys)
        self._logs = Logs(self._servers, self._keys, retention=retention, wall=wall)
        self._queue = Queue(self._servers, self._keys, self._notices, clock)
        self._sweeper = Sweeper(self._servers, self._keys, self._logs, self._queue)
        self._begun = self._open = False

    async def __aenter__(self) -> Self:
        if self._begun:
            raise HandleClosed("a store object is opened once")
        self._begun = True
        try:
            await self._servers.open()
            self.durability = await self._durability()
        except BaseException:
            await self._servers.aclose()
            raise
        await self._notices.open()
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Who waits for something to happen gets `HandleClosed`."""
        if self._open:
            self._open = False
            await self._notices.aclose()
            await self._servers.aclose()

    async def _durability(self) -> Durability:
        """What the server gives, and whether that is what was asked for."""
        asked = self._address.durability
        if asked == "replica":
            return "replica"
        given = await self._servers.durability()
        order: tuple[Durability, ...] = ("memory", "process", "disk")
        if asked is not None and given is not None and order.index(given) < order.index(asked):
            raise UsageError(
                f"Redis at {self._address} gives durability {given!r}, not {asked!r}: "
                f"set appendonly yes{' and appendfsync always' if asked == 'disk' else ''} there"
            )
        return asked or given or "memory"

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def create(self, meta: Meta) -> Head:
        self._check()
        await self._servers.call("index", (self._keys.runs, self._keys.open), meta.run)
        return await self._logs.create(meta)

    async def head(self, run: str, *, full: bool = True) -> Head:
        self._check()
        return await (self._logs.head(run) if full else self._logs.light_head(run))

    async def heads(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        self._check()
        limit = min(max(limit, 1), limits.LIST_LIMIT)
        below = "+inf" if before is None else await self._place(before)
        found: list[Head] = []
        filtered = state is not None or actor is not None
        while len(found) < limit:
            some = await self._servers.ask(
                self._keys.runs,
                "ZREVRANGEBYSCORE",
                self._keys.runs,
                below,
                "-inf",
                "WITHSCORES",
                "LIMIT",
                0,
                limits.LIST_LIMIT if filtered else limit - len(found),
            )
            if not some:
                break
            heads = await self._logs.listed([run.decode() for run, _ in some])
            found += [head for head in heads if _fits(head, state, actor)]
            below = f"({some[-1][1]!r}"
        return found[:limit]

    async def _place(self, run: str) -> str:
        place = await self._servers.ask(self._keys.runs, "ZSCORE", self._keys.runs, run)
        if place is None or await self._logs.missing([run]):
            raise LogNotFound(f"there is no run {run!r}")
        return f"({place!r}"

    async def fence(self, run: str, token: str, *, failures: int = 0) -> Fence:
        self._check()
        return await self._logs.fence(run, token, failures)

    async def end_unstarted(self, run: str, line: bytes) -> bool:
        self._check()
        ended = await self._logs.end_unstarted(run, line)
        if ended:
            await self._queue.forget(run, "later")
        return ended

    async def touch(self, run: str) -> None:
        self._check()
        await self._logs.touch(run)

    async def drop(self, run: str) -> None:
        self._check()
        await self._queue.forget(run)
        await self._logs.drop(run)
        for index in (self._keys.runs, self._keys.open):
            await self._servers.ask(index, "ZREM", index, run)

    async def sweep(self) -> Swept:
        self._check()
        return await self._sweeper.sweep()

    # --- logs --------------------------------------------------------------------------------------------------------

    async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
        self._check()
        return await self._logs.append(run, batch, end=end)

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        return False

    async def send(self, run: str, message: bytes, *, sender: str, id: str) -> Cursor:
        self._check()
        return await self._logs.send(run, message, sender=sender, id=id)

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        self._check()
        page = await self._logs.read(log, after, limit)
        if page.batches or page.ended or wait <= 0:
            return page
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        changed = asyncio.Event()
        unwatch = self.watch(log, lambda notice: None if notice.marks else changed.set())
        try:
            # Looked at once more, as it may have changed before it was watched, and again when the server has
            # confirmed that it will tell: that is the first change that a log's first watcher is told of.
            while True:
                page = await self._logs.read(log, after, limit)
                left = end - loop.time()
                if page.batches or page.ended or left <= 0:
                    return page
                await pause(changed, left)
                self._check()
        finally:
            unwatch()

    async def trim(self, run: str, before: int) -> int:
        self._check()
        return await self._logs.trim(run, before)

    def watch(self, log: str, notify: Notify) -> Unwatch:
        return self._notices.watch(log, notify)

    # --- readers' marks ----------------------------------------------------------------------------------------------

    async def mark(self, run: str, reader: str, seq: int | None) -> None:
        self._check()
        await self._logs.mark(run, reader, seq)

    async def marks(self, run: str) -> list[Mark]:
        self._check()
        return await self._logs.marks(run)

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def put(self, meta: Meta) -> None:
        self._check()
        await self._queue.put(meta)

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, without: Collection[str] = ()
    ) -> Claim | None:
        self._check()
        return await self._queue.claim(queues, worker, lease=lease, wait=wait, without=without)

    async def seize(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        self._check()
        return await self._queue.seize(meta, worker, lease=lease)

    async def renew(self, claim: Claim) -> None:
        self._check()
        await self._queue.renew(claim)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        self._check()
        return await self._queue.renew_all(claims)

    async def ack(self, claim: Claim) -> None:
        self._check()
        await self._queue.ack(claim)
        await self._sweeper.settle(claim.run)

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        self._check()
        await self._queue.release(claim, delay=delay)

    async def entries(self, *, queue: str | None = None, place: Place | None = None, limit: int = 100) -> list[Entry]:
        self._check()
        return await self._queue.entries(queue=queue, place=place, limit=limit)

    async def attend(self, info: WorkerInfo) -> bool:
        self._check()
        return await self._queue.attend(info)

    async def dismiss(self, worker: str) -> None:
        self._check()
        await self._queue.dismiss(worker)

    async def workers(self) -> list[WorkerInfo]:
        self._check()
        return await self._queue.workers()

    async def ask_to_drain(self, worker: str) -> None:
        self._check()
        await self._queue.ask_to_drain(worker)

    # --- its server --------------------------------------------------------------------------------------------------

    async def survey(self) -> Survey:
        self._check()
        return await survey(self._servers, self._keys.queue, self._address.durability)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self._open:
            raise HandleClosed("this store is not open")


def _fits(head: Head, state: RunState | None, actor: str | None) -> bool:
    return (state is None or head.state == state) and (actor is None or head.meta.actor == actor)
