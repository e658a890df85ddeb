"""The worker of `redis_stream`: takes jobs from a list and publishes what their sources say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import redis.asyncio
import uvloop
from redis_stream import Publisher, connected
from sources import source


async def run(client: redis.asyncio.Redis, job: dict[str, Any]) -> None:
    publisher = Publisher(client, job["id"])
    async for _, text in source(job["actor"], job["input"]):
        await publisher.publish("data", text)
    await publisher.complete()


async def main() -> None:
    async with connected() as client, asyncio.TaskGroup() as group:
        print(0, flush=True)
        while True:
            found: Any = await client.blpop(["jobs"], timeout=1)
            if found:
                group.create_task(run(client, json.loads(found[1])))


if __name__ == "__main__":
    uvloop.run(main())
