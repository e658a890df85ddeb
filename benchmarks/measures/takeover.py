"""How long a viewer waits when the worker of its run is killed: from ``kill -9`` to the new attempt's first chunk.

Run as a script it prints the seconds; as ``work`` it is one of the workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import uvloop

import loom

GROUP = 10
PATIENCE = 5

app = loom.App()


@app.actor(retry=loom.Retry(mode="continue"))
async def whoami() -> AsyncIterator[int]:
    while True:
        yield os.getpid()
        await asyncio.sleep(0.1)


async def work(url: str, lease: float, concurrency: int) -> None:
    async with loom.connect(url, app=app, worker=True, lease=lease, concurrency=concurrency):
        print(flush=True)
        await asyncio.Event().wait()


class Workers:
    """Processes that are killed at the end at the latest."""

    def __init__(self, url: str, lease: float) -> None:
        self._command = [sys.executable, __file__, "work", url, str(lease)]
        self._processes: list[subprocess.Popen[str]] = []

    async def add(self, concurrency: int) -> None:
        await asyncio.to_thread(self._start, concurrency)

    def _start(self, concurrency: int) -> None:
        process = subprocess.Popen([*self._command, str(concurrency)], stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("a worker did not start")

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


async def first(run: loom.Run[int, None]) -> int:
    """Who drives it."""
    async with aclosing(run.values()) as values:
        async for pid in values:
            return pid
    raise SystemExit("a run ended too early")


async def second_start(run: loom.Run[int, None]) -> float:
    """When its second attempt began, on the monotonic clock."""
    starts = 0
    async with aclosing(run.chunks()) as chunks:
        async for chunk in chunks:
            starts += chunk.type == "start"
            if starts == 2:
                return time.monotonic()
    raise SystemExit("a run ended too early")


async def kill(pid: int, delay: float) -> float:
    await asyncio.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


async def group(client: loom.Client, url: str, lease: float, count: int) -> list[float]:
    """That many workers, a run each, killed one by one at any moment between two renewals; one worker to take over,
    which has watched for a while."""
    workers = Workers(url, lease)
    try:
        await asyncio.gather(*[workers.add(1) for _ in range(count)])
        runs = [await client.start(whoami) for _ in range(count)]
        pids = await asyncio.gather(*[first(run) for run in runs])
        await workers.add(2 * count)
        watched = asyncio.gather(*[second_start(run) for run in runs])
        await asyncio.sleep(lease)
        killed = await asyncio.gather(*[kill(pid, random.uniform(0, lease / 3)) for pid in pids])
        async with asyncio.timeout(PATIENCE * lease + 10):
            began = await watched
        await asyncio.gather(*[run.cancel() for run in runs])
        return [start - end for start, end in zip(began, killed, strict=True)]
    finally:
        workers.close()


async def measure(url: str, lease: float, kills: int) -> list[float]:
    waits: list[float] = []
    async with loom.connect(url, app=app) as client:
        while len(waits) < kills:
            waits += await group(client, url, lease, min(GROUP, kills - len(waits)))
    return waits


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[1] == "work":
            runner.run(work(sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
        else:
            url, lease, kills = sys.argv[1:]
            print(json.dumps({"waits": runner.run(measure(url, float(lease), int(kills)))}))


if __name__ == "__main__":
    main()
