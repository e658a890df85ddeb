"""Starts of runs a second: many at a time, no worker taking any.

Run as a script with a store's URL, a number of runs and how many are started at a time, it prints its figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

import uvloop

from loom import Client
from loom.connect import open_store
from loom.engine.follow.transport import StoreTransport


async def rate(url: str, count: int, at_once: int) -> float:
    """Starts a second, of an actor that is known by its name alone."""
    async with open_store(url) as store, contextlib.aclosing(Client(StoreTransport(store))) as client:
        await client.start("word", 1)
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                await client.start("word", number)

        before = time.perf_counter()
        await asyncio.gather(*[some() for _ in range(at_once)])
        return count / (time.perf_counter() - before)


def main() -> None:
    url, count, at_once = sys.argv[1:]
    print(json.dumps({"rate": uvloop.run(rate(url, int(count), int(at_once)))}))


if __name__ == "__main__":
    main()
