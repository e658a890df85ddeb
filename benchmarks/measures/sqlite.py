"""T7: SQLite, 64 busy runs through the whole runtime (worker, writers, one file), against one commit a chunk by hand;
and how long a chunk takes to a reader in another process.

Run as a script, ``runs``, ``hand`` and ``across`` print their figures; ``work`` is the far process of ``across``.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

import loom

RUNS = 64

app = loom.App()


@app.actor
async def ready(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"


@app.actor
async def stamps(n: int, every: float) -> AsyncIterator[float]:
    for _ in range(n):
        yield time.time()
        await asyncio.sleep(every)


async def busy(folder: Path, durability: str, n: int) -> float:
    """Chunks a second of 64 runs that are always ready, until the last is stored."""
    url = f"sqlite:///{folder / 'runs.db'}?durability={durability}"
    async with loom.connect(url, app=app, worker=True) as client:
        await client.execute(ready, 1000)
        before = time.perf_counter()
        runs = [await client.start(ready, n) for _ in range(RUNS)]
        await asyncio.gather(*[run.wait() for run in runs])
        return RUNS * n / (time.perf_counter() - before)


def by_hand(folder: Path, synchronous: str, seconds: float) -> float:
    """A row and a commit a chunk, as a first version is written; one connection, no reader."""
    with sqlite3.connect(folder / "hand.db", isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {synchronous}")
        database.execute("CREATE TABLE chunk (run TEXT, seq INTEGER, data TEXT, PRIMARY KEY (run, seq)) WITHOUT ROWID")
        count = 0
        before = time.perf_counter()
        while (now := time.perf_counter()) - before < seconds:
            database.execute("INSERT INTO chunk VALUES (?, ?, ?)", (str(count % RUNS), count, f"token {count}"))
            count += 1
    return count / (now - before)


async def work(url: str) -> None:
    """In the far process: a worker, until it is killed."""
    async with loom.connect(url, app=app, worker=True):
        await asyncio.Event().wait()


async def listen(url: str, n: int) -> list[float]:
    """Milliseconds from a chunk's `yield` in the far process to the `async for` in this one, sorted."""
    async with loom.connect(url, app=app) as client:
        run = await client.start(stamps, n, 0.05)
        return sorted([(time.time() - stamp) * 1e3 async for stamp in run.values()])


def across(folder: Path, n: int) -> list[float]:
    """`listen`, with the far process beside it."""
    url = f"sqlite:///{folder / 'far.db'}"
    far = subprocess.Popen([sys.executable, __file__, "work", url])
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(listen(url, n))
    finally:
        far.kill()
        far.wait()


def main() -> None:
    what, where, *arguments = sys.argv[1:]
    if what == "across":
        waits = across(Path(where), int(arguments[0]))
        print(json.dumps({"p50": waits[len(waits) // 2], "p99": waits[int(0.99 * (len(waits) - 1))]}))
    elif what == "hand":
        print(json.dumps({"rate": by_hand(Path(where), arguments[0], float(arguments[1]))}))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if what == "work":
                runner.run(work(where))
            else:
                print(json.dumps({"rate": runner.run(busy(Path(where), arguments[0], int(arguments[1])))}))


if __name__ == "__main__":
    main()
