"""The store itself: the four ports on Redis or Valkey, one server, behind Sentinels, or a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from loom.model import limits
from loom.model.errors import HandleClosed, UsageError
from loom.model.ports import Durability, Survey, SweepReport

from .client.address import Address
from .client.servers import Servers
from .keys import Keys
from .lists import RunLists
from .logs import RedisLogs
from .notices import Notices
from .queue import RedisQueue
from .runs import RedisRuns
from .survey import survey
from .sweep import Sweeper
from .workers import RedisWorkers

__all__ = ["RedisStore"]


class RedisStore:
    """The four ports on the servers at `address`, shared by every process that uses the same `prefix` there.

    What an acknowledged append survives is what the server gives (`durability`, known once the store is open), or with
    ``durability=replica`` what `replicas` have confirmed. Ended runs expire `retention` seconds after their end (None:
    never) unless they say otherwise. Leases are measured by `clock`, in monotonic seconds; delayed starts go by the
    server's clock; stored times are of `wall`, in Unix seconds.

    Opening raises `UsageError` for a server that is too old, or does not give the durability that was asked for,
    `Unauthorized`, and `Unavailable`. Calls raise `StoreFull` when the server has no memory or disk left, `Unavailable`
    when it cannot be reached, `OutcomeUnknown` when too few replicas have confirmed, and `HandleClosed` before the
    store is opened and after it is closed.
    """

    waits = True

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
        self._lists = RunLists(self._servers, self._keys)
        self.logs = RedisLogs(self._servers, self._keys, self._lists, self._notices, wall)
        self.queue = RedisQueue(self._servers, self._keys, self._notices, clock)
        self.runs = RedisRuns(self._servers, self._keys, self._lists, self.logs, self.queue, retention, wall)
        self.workers = RedisWorkers(self._servers, self._keys)
        self._sweeper = Sweeper(self._servers, self._keys, self._lists, self.runs, self.queue)
        self.queue.acknowledged = self._sweeper.settle
        self._begun = self._open = False

    async def __aenter__(self) -> Self:
        if self._begun:
            raise HandleClosed("a store object is opened once")
        self._begun = True
        try:
            await self._servers.open()
            self.durability = await self._durability()
            await self._lists.check_format()
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

    async def sweep(self) -> SweepReport:
        return await self._sweeper.sweep()

    async def survey(self) -> Survey:
        return await survey(self._servers, self._keys.queue, self._address.durability)
