"""Actors that do not stop when they are told to, each in another way; and two programs that lend them a process."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator

import loom
from loom.model import limits

limits.ABANDON_AFTER = 0.3  # what takes ten seconds need not take them here
limits.WIND_UP = 0.2

app = loom.App()
EVER = 10_000.0


def begun(name: str) -> None:
    print(f"begun {name}\n", end="", flush=True)  # one write: others print in other threads


@app.actor
def thread() -> None:
    begun("thread")
    time.sleep(EVER)


async def _deaf() -> None:
    while True:
        try:
            await asyncio.sleep(EVER)
        except asyncio.CancelledError:
            continue


@app.actor
async def coroutine() -> None:
    begun("coroutine")
    await _deaf()


@app.actor
async def generator() -> AsyncIterator[int]:
    begun("generator")
    await _deaf()
    yield 1


@app.actor
async def cleaning() -> None:
    """Its cleaning up never ends."""
    begun("cleaning")
    try:
        await asyncio.sleep(EVER)
    finally:
        await _deaf()


@app.actor
async def child() -> None:
    """A task of its own that does not end with it."""
    asyncio.create_task(_deaf())  # noqa: RUF006 - the mistake that it is to make
    begun("child")
    await asyncio.sleep(EVER)


@app.actor
async def executor() -> None:
    begun("executor")
    await asyncio.to_thread(time.sleep, EVER)


@app.actor
def thread_of_its_own() -> None:
    threading.Thread(target=time.sleep, args=(EVER,)).start()
    begun("thread_of_its_own")


OURS = ("thread", "coroutine", "generator", "cleaning")
"""What Loom abandons; the others hang in what belongs to the process."""


async def with_asyncio(store: str) -> None:
    async with loom.connect(store, app=app, worker=True, drain=0.1) as client:
        for name in OURS:
            await client.start(name)
        await asyncio.to_thread(sys.stdin.readline)


def with_a_portal(store: str) -> None:
    with loom.connect_sync(store, app=app, worker=True, drain=0.1) as client:
        for name in OURS:
            client.start(name)
        sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[1] == "asyncio":
        asyncio.run(with_asyncio(sys.argv[2]))
    else:
        with_a_portal(sys.argv[2])
    print("left", flush=True)
