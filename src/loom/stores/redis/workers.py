"""The worker registry, as calls of the server-side functions."""

from __future__ import annotations

import asyncio

import msgspec

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.run import WorkerInfo
from loom.stores.stored import FAULTS
from loom.wire.json import encode

from .client.link import Reply
from .client.servers import Servers
from .keys import Keys

__all__ = ["RedisWorkers"]

_info = msgspec.json.Decoder(WorkerInfo)


class RedisWorkers:
    """The `WorkerRegistry`."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys

    async def register(self, info: WorkerInfo) -> bool:
        return bool(await self._call("attend", info.name, encode(info), repr(info.started), repr(limits.WORKER_SEEN)))

    async def deregister(self, worker: str) -> None:
        await self._call("dismiss", worker)

    async def list_workers(self) -> list[WorkerInfo]:
        flat = await self._call("workers", repr(limits.WORKER_SEEN))
        found: list[WorkerInfo | None] = []
        for start in range(0, len(flat), 2 * limits.LIST_LIMIT):
            some = flat[start : start + 2 * limits.LIST_LIMIT]
            names, seen = some[::2], some[1::2]
            stored, asked = await asyncio.gather(
                *(self._servers.ask(key, "HMGET", key, *names) for key in self._keys.register)
            )
            found += map(_worker, stored, seen, asked)
        return sorted((info for info in found if info is not None), key=lambda info: info.name)

    async def request_drain(self, worker: str) -> None:
        if not await self._call("ask_to_drain", worker, repr(limits.WORKER_SEEN)):
            raise UsageError(f"there is no worker {worker!r}", code="unknown_worker")

    async def _call(self, function: str, *args: str | bytes | int) -> Reply:
        return await self._servers.call(function, self._keys.queues, *args)


def _worker(stored: bytes | None, seen: bytes, asked: bytes | None) -> WorkerInfo | None:
    """None if it cannot be read: the worker writes it again when it registers next."""
    started, _, said = (stored or b"").partition(b" ")
    try:
        info = _info.decode(said)
    except FAULTS:
        return None
    return msgspec.structs.replace(info, seen=float(seen), draining=info.draining or asked == started)
