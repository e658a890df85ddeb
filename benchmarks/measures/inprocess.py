"""T6: in process, on the memory store, from the producer's `yield` to the reader's `async for`.

Run as a script, alone on its core, it prints microseconds of CPU a chunk.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable

import uvloop

import loom

app = loom.App()


class Gate:
    """What a producer waits at until its reader has come."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def open(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


gate = Gate()


@app.actor
async def ready(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"


@app.actor
async def in_step(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"
        await gate.wait()


async def measure(scale: float) -> dict[str, float]:
    async with loom.connect("memory://", app=app, worker=True) as client:

        async def run(name: str, n: int, seen: Callable[[], None] = lambda: None, **options: int) -> float:
            n = int(n * scale)
            run = await client.start(name, n, **options)
            before = time.process_time()
            async for _ in run.chunks():
                seen()
            return (time.process_time() - before) / n * 1e6

        await run("ready", 10_000)
        return {
            "ready": await run("ready", 300_000),
            "in step": await run("in_step", 50_000, gate.open),
            "ahead": await run("ready", 20_000, ahead=1),
            "queue": await through_a_queue(int(300_000 * scale)),
            "by hand": await hand_to_hand(int(50_000 * scale)),
        }


async def through_a_queue(n: int) -> float:
    """What a bounded `asyncio.Queue` alone costs."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(256)

    async def produce() -> None:
        for i in range(n):
            await queue.put(f"token {i}")
        await queue.put(None)

    before = time.process_time()
    task = asyncio.create_task(produce())
    while await queue.get() is not None:
        pass
    await task
    return (time.process_time() - before) / n * 1e6


async def hand_to_hand(n: int) -> float:
    """What two tasks cost that wait for each other, a value at a time: a future each way, and nothing else."""
    loop = asyncio.get_running_loop()
    value: asyncio.Future[str | None] = loop.create_future()
    taken: asyncio.Future[None] = loop.create_future()

    async def produce() -> None:
        nonlocal taken
        for i in range(n):
            taken = loop.create_future()
            value.set_result(f"token {i}")
            await taken
        value.set_result(None)

    before = time.process_time()
    task = asyncio.create_task(produce())
    while await value is not None:
        value = loop.create_future()
        taken.set_result(None)
    await task
    return (time.process_time() - before) / n * 1e6


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(float(sys.argv[1])))))
