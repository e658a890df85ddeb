"""A viewer in a process of its own, on the same SQLite file: prints each chunk it sees, one JSON line each."""

from __future__ import annotations

import asyncio
import sys

import loom
from loom.wire.json import encode


async def main(url: str, runs: list[str]) -> None:
    async with loom.connect(url) as client:
        await asyncio.gather(*(follow(client.run(run)) for run in runs))


async def follow(run: loom.Run[object, object]) -> None:
    async for chunk in run.chunks(raise_errors=False):
        line = encode([run.id, str(chunk.cursor), chunk.type, chunk.data])
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
