"""How often a client and a worker wait for Redis in the life of a run: calls that go out together are one trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import loom
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model.run import Start
from loom.stores.redis import RedisStore, parse_url
from loom.tasks import cancel_and_wait

pytestmark = pytest.mark.anyio

TURNS = 50
"""After so many turns of the loop nobody is about to ask."""

RUN = "the-run-that-is-counted"

app = loom.App()


@app.actor
async def word() -> AsyncIterator[str]:
    yield "one"


class Rounds:
    """The store's calls go in rounds, as over a network that is slower than any process: a round is made of all that
    somebody wants to ask before anything more is answered."""

    def __init__(self, store: RedisStore) -> None:
        self.of_run: list[list[str]] = []
        """Those rounds in which something was asked about the run, and what."""
        self._asked: list[str] = []
        self._gates: list[asyncio.Future[None]] = []
        self._answered = asyncio.Semaphore(0)
        self._call = store._servers.call
        self._over = asyncio.Event()

    async def call(self, function: str, *args: Any) -> Any:
        """As `Servers.call`, in the next round."""
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate
        over = self._over
        try:
            answer = await self._call(function, *args)
        finally:
            self._answered.release()
        if RUN in f"{args}{answer}":
            self._asked.append(function)
        await over.wait()
        return answer

    async def go_on(self) -> None:
        """For ever; a caller cancels it."""
        while True:
            waiting = -1
            while waiting != len(self._gates) or not waiting:
                waiting = len(self._gates)
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            gates = [gate for gate in self._gates if not gate.done()]  # else its caller was cancelled
            self._over, self._gates = asyncio.Event(), []
            for gate in gates:
                gate.set_result(None)
            for _ in gates:
                await self._answered.acquire()
            if self._asked:
                self.of_run.append(self._asked)
            self._asked = []
            self._over.set()


@pytest.fixture
async def rounds(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rounds]:
    rounds = Rounds(store)
    monkeypatch.setattr(store._servers, "call", rounds.call)
    going = asyncio.create_task(rounds.go_on())
    yield rounds
    monkeypatch.undo()
    await cancel_and_wait(going)


@pytest.fixture
async def other(url: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(parse_url(url)) as store:
        yield store


async def test_a_start_waits_once(store: RedisStore, rounds: Rounds) -> None:
    await StoreTransport(store, app.registry).start(Start(run=RUN, actor="word"))
    assert len(rounds.of_run) == 1, rounds.of_run


async def test_a_worker_waits_six_times_for_a_run_of_one_chunk(
    store: RedisStore, rounds: Rounds, other: RedisStore
) -> None:
    transport = StoreTransport(other, app.registry)
    await transport.start(Start(run=RUN, actor="word"))
    async with Worker(store, app.registry):
        async for _ in transport.follow(RUN):
            pass
    await transport.aclose()
    assert len(rounds.of_run) <= 6, rounds.of_run
