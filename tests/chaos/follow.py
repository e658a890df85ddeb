"""A viewer in a process of its own, on the store itself: follows each run whose id it reads, one a line, and prints
each chunk it sees, one JSON line each."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import loom
from loom.wire.json import encode


async def main(url: str) -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        client = await opened(url, stack)
        async for line in await _lines():
            group.create_task(follow(client.run(line.decode().strip())))


async def opened(url: str, stack: AsyncExitStack) -> loom.Client:
    """A client of a store that may be down just now."""
    while True:
        try:
            return await stack.enter_async_context(loom.connect(url))
        except loom.Unavailable:
            await asyncio.sleep(0.05)


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
