"""What the Python peers stream. Text is formatted by the cheapest means, not encoded: to the peers' advantage."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator


async def ready(n: int) -> AsyncIterator[tuple[int, str]]:
    """Always ready: never suspends."""
    for i in range(n):
        yield i, f'{{"text":"token {i}"}}'


async def turns(n: int) -> AsyncIterator[tuple[int, str]]:
    """One event each turn of the loop."""
    for i in range(n):
        yield i, f'{{"text":"token {i}"}}'
        await asyncio.sleep(0)


async def ticks(every: float) -> AsyncIterator[tuple[int, str]]:
    """One stamped event at once, then one every so many seconds, the first after a random part of that time: streams
    that begin together do not stay together."""
    yield 0, f'{{"t":{time.time()}}}'
    i = 1
    async for _ in beats(every):
        yield i, f'{{"t":{time.time()}}}'
        i += 1


async def beats(every: float) -> AsyncIterator[None]:
    """One every so many seconds, whatever happens in between: what was late once does not stay with what made it so."""
    due = time.monotonic() + every * random.random()
    while True:
        await asyncio.sleep(due - time.monotonic())
        yield
        due += every


async def tokens(prompt: str, every: float = 0.05) -> AsyncIterator[str]:
    """A chat's stamped tokens, as `ticks`. Once it is stopped, the UDP port that the prompt names is told so."""
    try:
        yield f"t={time.time()} "
        await asyncio.sleep(every * random.random())
        while True:
            yield f"t={time.time()} "
            await asyncio.sleep(every)
    finally:
        if prompt.isdigit():
            with socket.socket(type=socket.SOCK_DGRAM) as teller:
                teller.sendto(b"stopped", ("127.0.0.1", int(prompt)))


async def paced(n: int) -> AsyncIterator[tuple[int, str]]:
    """So many events, one every 5 ms: each is stored and sent alone."""
    for i in range(n):
        yield i, f'{{"t":{time.time()}}}'
        await asyncio.sleep(0.005)


class Moments:
    """Streams of one process that all speak at the same moments: whoever is the first of a moment says when it was,
    and all of that moment are stamped so."""

    def __init__(self) -> None:
        self._last = (0, 0.0)

    async def every(self, seconds: float) -> AsyncIterator[float]:
        while True:
            now = time.time()
            number = round(now / seconds)
            if number != self._last[0]:
                self._last = (number, now)
            yield self._last[1]
            await asyncio.sleep((number + 1) * seconds - time.time())


moments = Moments()


async def bursts(every: float) -> AsyncIterator[tuple[int, str]]:
    i = 0
    async for moment in moments.every(every):
        yield i, f'{{"t":{moment}}}'
        i += 1


class Broadcast:
    """One source for many viewers: a queue for each."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[tuple[int, str]]] = set()
        self._task: asyncio.Task[None] | None = None

    async def _run(self, every: float) -> None:
        async for item in ticks(every):
            for queue in self._queues:
                queue.put_nowait(item)

    async def view(self, every: float) -> AsyncIterator[tuple[int, str]]:
        if self._task is None:
            self._task = asyncio.create_task(self._run(every))
        queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


broadcast = Broadcast()


def source(kind: str, argument: float) -> AsyncIterator[tuple[int, str]]:
    """The stream that a path names: /ready/N, /turns/N, /paced/N, /ticks/SECONDS, /bursts/SECONDS, /view/SECONDS."""
    match kind:
        case "ready":
            return ready(int(argument))
        case "turns":
            return turns(int(argument))
        case "paced":
            return paced(int(argument))
        case "bursts":
            return bursts(argument)
        case "view":
            return broadcast.view(argument)
        case _:
            return ticks(argument)
