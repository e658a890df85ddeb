"""Streams over Redis as a first version is written: XADD a chunk, XREAD BLOCK a viewer, both with redis-py."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio

CLEANUP = 3600


def connected() -> redis.asyncio.Redis:
    """To the server that REDIS_URL names."""
    return redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True, max_connections=15_000)


class Publisher:
    """One stream's writer."""

    def __init__(self, client: redis.asyncio.Redis, stream: str) -> None:
        self._client = client
        self._key = f"stream:{stream}"

    async def publish(self, type: str, data: str) -> None:
        await self._client.xadd(self._key, {"type": type, "data": data})

    async def complete(self) -> None:
        await self.publish("complete", "null")
        await self._client.expire(self._key, CLEANUP)


async def read(client: redis.asyncio.Redis, stream: str) -> AsyncIterator[tuple[str, str, str]]:
    """Id, type and data of each chunk to the end. A blocked XREAD holds a connection."""
    key, last = f"stream:{stream}", "0"
    while True:
        found: Any = await client.xread({key: last}, block=1000)
        for _, entries in found:
            for last, fields in entries:
                yield last, fields["type"], fields["data"]
                if fields["type"] in ("complete", "error"):
                    return


async def ask(client: redis.asyncio.Redis, job: dict[str, Any]) -> None:
    """Have a worker run it."""
    await client.rpush("jobs", json.dumps(job))
