"""A viewer in a process of its own, on the store itself: follows each run whose id it reads, one a line, and prints
each chunk it sees, one JSON line each."""

from __future__ import annotations

import asyncio
import sys

import loom
from loom.wire.json import encode


async def main(url: str) -> None:
    async with loom.connect(url) as client, asyncio.TaskGroup() as group:
        async for line in await _lines():
            group.create_task(follow(client.run(line.decode().strip())))


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def follow(run: loom.Run[object, object]) -> None:
    async for chunk in run.chunks(raise_errors=False):
        line = encode([run.id, str(chunk.cursor), chunk.type, chunk.data])
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
