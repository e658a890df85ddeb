"""T9: one worker that stores what its runs say in Redis, every chunk acknowledged: chunks a second of one run that is
always ready, of 64, and of 64 that give way to the loop after each chunk. Of Loom each append is fenced and told to
whoever follows.

Run as a script, ``loom`` and ``hand`` print their figures. Worker on one core, Redis on the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import redis.asyncio
import uvloop

import loom

RUNS = 64

app = loom.App()


class Finish:
    """Told by each run when it has said its last chunk."""

    def __init__(self) -> None:
        self._left = 0
        self._over = asyncio.Event()

    def expect(self, runs: int) -> None:
        self._left = runs
        self._over.clear()

    def one(self) -> None:
        self._left -= 1
        if not self._left:
            self._over.set()

    async def wait(self) -> None:
        await self._over.wait()


finish = Finish()


@app.actor
async def ready(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"
    finish.one()


@app.actor
async def turns(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"
        await asyncio.sleep(0)
    finish.one()


async def runs(url: str, kind: str, n: int) -> float:
    """Chunks a second until the last is stored. Nobody follows: what is measured is the worker."""
    async with loom.connect(url, app=app, worker=True) as client:
        actor = "turns" if kind == "turns" else "ready"

        async def all_of(count: int, n: int) -> float:
            finish.expect(count)
            before = time.perf_counter()
            started = [await client.start(actor, n) for _ in range(count)]
            await finish.wait()
            for run in started:
                await run.wait()
            return count * n / (time.perf_counter() - before)

        await all_of(1, 1000)
        return await all_of(1 if kind == "one" else RUNS, n)


async def by_hand(url: str, kind: str, seconds: float) -> float:
    """XADD a chunk, each awaited, with redis-py."""
    async with redis.asyncio.Redis.from_url(url) as client:
        count, over = 0, False

        async def produce(run: int) -> None:
            nonlocal count
            while not over:
                await client.xadd(f"stream:{run}", {"type": "data", "data": f"token {count}"})
                count += 1
                if kind == "turns":
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for run in range(1 if kind == "one" else RUNS):
                group.create_task(produce(run))
            await asyncio.sleep(0.5)
            before, begun = count, time.perf_counter()
            await asyncio.sleep(seconds)
            rate = (count - before) / (time.perf_counter() - begun)
            over = True
        return rate


def main() -> None:
    what, url, kind, amount = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runs(url, kind, int(amount)) if what == "loom" else by_hand(url, kind, float(amount))
        print(json.dumps({"rate": runner.run(measured)}))


if __name__ == "__main__":
    main()
