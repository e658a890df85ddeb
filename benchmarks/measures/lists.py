"""Lists of runs by what they are filtered by, among many runs: milliseconds a page.

Run as a script with a store's URL and a number of runs, it prints its figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from statistics import median
from typing import Any

import uvloop

from loom import Client
from loom.connect import open_store
from loom.engine.follow.transport import StoreTransport

AT_ONCE = 200
"""How many runs are started at a time."""

USERS = 1000
"""Each has as many runs as the others."""

CANCELLED = 100
"""Of so many runs one has ended."""

PAGES: dict[str, dict[str, Any]] = {
    "newest": {},
    "state=queued": {"state": "queued"},
    "state=cancelled": {"state": "cancelled"},
    "actor": {"actor": "actor-7"},
    "label": {"labels": {"user": "7"}},
    "label and state": {"labels": {"user": "0"}, "state": "cancelled"},
}
"""Each by 100 runs."""

ROUNDS = 50


async def fill(client: Client, count: int) -> None:
    """Runs of ten actors, a label each, of which some have ended."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            labels = {"user": str(number % USERS)}
            run = await client.start(f"actor-{number % 10}", number, labels=labels)
            if number % CANCELLED == 0:
                await run.cancel()

    await asyncio.gather(*[some() for _ in range(AT_ONCE)])


async def pages(url: str, count: int) -> dict[str, float]:
    """The median time of a page, in ms, by its filter."""
    async with open_store(url) as store, contextlib.aclosing(Client(StoreTransport(store))) as client:
        await fill(client, count)
        return {name: await page(client, filters) for name, filters in PAGES.items()}


async def page(client: Client, filters: dict[str, Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        before = time.perf_counter()
        found = await client.runs(limit=100, **filters)
        times.append(time.perf_counter() - before)
        assert found, filters
    return median(times) * 1e3


def main() -> None:
    url, count = sys.argv[1:]
    print(json.dumps(uvloop.run(pages(url, int(count)))))


if __name__ == "__main__":
    main()
