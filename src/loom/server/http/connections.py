"""The open connections of one server: their bound, and which one is evicted for a new one."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from typing import Any, Protocol, cast

from uvicorn.server import ServerState

from loom.model import limits

from .framing import ChunkedCoding

try:
    import resource
except ImportError:  # Windows, which has no such bound
    resource = None  # type: ignore[assignment]

__all__ = ["Connections", "Evictable", "max_connections", "network_of"]

DESCRIPTOR_SHARE = 0.75
"""Of the descriptors that the process may open (`ulimit -n`), the share that connections may take: the rest is for the
store, its producers and their models."""

NETWORK_IDLE = 1000
"""Idle connections of one address after an answer: more than a proxy keeps open."""


class Evictable(Protocol):
    """A connection that `Connections` may close."""

    network: str
    """Its peer's network, as by `network_of`."""

    def evict(self) -> None:
        """Closes it at once."""


class Connections(ServerState):
    """The server's open connections. One is *held* while an admitted request is under way on it. At the bound, a new
    connection evicts the one that has been without such a request for longest, whatever it is doing: clients without a
    key cannot keep others out."""

    def __init__(self) -> None:
        super().__init__()
        self.coding = ChunkedCoding()
        self._empty = asyncio.Event()
        self._evictable: OrderedDict[Evictable, None] = OrderedDict()  # not held, oldest first
        self._idle: dict[str, OrderedDict[Evictable, None]] = {}  # of these, those that had an answer

    def admit(self, connection: Evictable) -> bool:
        """Adds a new connection, evicting others for it. Returns False if all that are allowed are held."""
        most = max_connections()
        while len(self.connections) > most and self._evictable:
            self._evict(next(iter(self._evictable)))
        self._evictable[connection] = None  # also if it is refused
        return len(self.connections) <= most

    def begin(self, connection: Evictable) -> None:
        """Notes that a request begins to come in: the connection is no longer idle, and the last to be evicted."""
        if connection in self._evictable:
            self._forget(connection)
            self._evictable[connection] = None

    def hold(self, connection: Evictable) -> None:
        """Protects the connection until `release`: an admitted request is under way on it."""
        self._forget(connection)

    def release(self, connection: Evictable) -> None:
        """Makes it evictable again, after an answer. Evicts the oldest such connection of its network if there are more
        than `NETWORK_IDLE`. A connection that is lost is ignored."""
        self._forget(connection)
        if cast("Any", connection) not in self.connections:
            return
        self._evictable[connection] = None
        answered = self._idle.setdefault(connection.network, OrderedDict())
        answered[connection] = None
        if len(answered) > NETWORK_IDLE:
            self._evict(next(iter(answered)))

    def remove(self, connection: Evictable) -> None:
        """Forgets a lost connection."""
        self._forget(connection)
        if not self.connections:
            self._empty.set()

    async def wait_empty(self) -> None:
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    def _forget(self, connection: Evictable) -> None:
        self._evictable.pop(connection, None)
        if (answered := self._idle.get(connection.network)) is not None:
            answered.pop(connection, None)
            if not answered:
                del self._idle[connection.network]

    def _evict(self, connection: Evictable) -> None:
        self._forget(connection)
        self.connections.discard(cast("Any", connection))
        connection.evict()


def max_connections() -> int:
    """The bound on open connections: `limits.CONNECTIONS`, or less where the process may open few descriptors. At the
    system's own bound no connection could be accepted, not even to refuse it, and the store could open no file."""
    if resource is None:
        return limits.CONNECTIONS
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return limits.CONNECTIONS
    return min(limits.CONNECTIONS, int(allowed * DESCRIPTOR_SHARE))


def network_of(host: str) -> str:
    """The smallest network that one site usually has: an IPv4 address, or a /64 of IPv6 (RFC 6177)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host  # a Unix socket has none
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or address.packed[:8].hex())
