"""Cancelled at each await: whoever it is, nothing is left behind, and the run comes to a proper end.

A scene is played on virtual time over a store that waits at every call: a worker drives a run that says something,
is told something, fails once, goes on and ends, while a reader holds it back. Each time it is played, one of those
concerned is cancelled at the next of the places where it waits.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import pytest

import loom
from loom.engine.client import Client
from loom.engine.tasks import spawn
from loom.engine.transport import StoreTransport
from loom.engine.worker import Worker
from loom.model import limits
from loom.model.grammar import State
from loom.model.ports import Notice
from loom.stores.memory import MemoryStore
from tests.faults.moments import Moment, open_generators
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

from .kit import chunks_in, grammatical, until

PATIENCE = 1000.0
"""Virtual seconds after which something hangs."""

THREAD_EXIT = 5.0
"""Seconds for a thread's last step on a busy machine."""

CONTINUE = loom.Retry(mode="continue", backoff=(0.5, 0.5))

app = loom.App()
inside: list[int] = []
"""The attempts whose producer has not left yet."""


@app.actor(retry=CONTINUE, max_crashes=50, ahead=2)
async def chat(ctx: loom.Context) -> AsyncIterator[str]:
    """Says hello, fails once, and then says what it is told; leaving takes it a while."""
    said = len([chunk for chunk in ctx.previous if chunk.type == "data"])
    inside.append(ctx.attempt)
    try:
        if said == 0:
            yield "hello"
            raise OSError("once")
        word = (await ctx.receive("word")).data
        for n in range(said, 6):
            await asyncio.sleep(0.1)
            yield f"{word} {n}"
    finally:
        try:
            await asyncio.sleep(0.05)
        finally:
            inside.remove(ctx.attempt)


@app.actor(retry=loom.Retry(mode="continue", backoff=(0.01, 0.01)), max_crashes=50, ahead=2)
def chat_in_a_thread(ctx: loom.Context) -> Iterator[str]:
    """The same, in a thread."""
    said = len([chunk for chunk in ctx.previous if chunk.type == "data"])
    if said == 0:
        yield "hello"
        raise OSError("once")
    word = ctx.receive_sync("word").data
    for n in range(said, 6):
        yield f"{word} {n}"


async def owner(client: Client, actor: Any) -> None:
    """Starts a run that is his, tells it what it waits for, and reads it to its end."""
    async with client.stream(actor.using(id="run")) as run:
        await run.send("word", "again")
        async for _ in run.chunks():
            pass


async def starter(client: Client, actor: Any) -> None:
    """Starts a run that goes on without him."""
    run = await client.start(actor.using(id="run"))
    await run.send("word", "again")
    await run.result()


async def caller(client: Client, actor: Any) -> None:
    """Wants the result only, and cancels a run that takes him too long."""
    telling = spawn(_tell(client), "telling")
    try:
        await client.execute(actor.using(id="run"))
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _tell(client: Client) -> None:
    run = client.run("run")
    while True:
        try:
            await run.send("word", "again", id="word")
        except loom.LogNotFound:
            await asyncio.sleep(0.1)
        else:
            return


async def canceller(client: Client, actor: Any) -> None:
    """Starts a run, and cancels it when it has said something."""
    run = await client.start(actor.using(id="run"))
    async for chunk in run.chunks(raise_errors=False):
        if chunk.type == "data":
            await run.cancel(wait=True)


Part = Callable[[Client, Any], Awaitable[None]]


class Scene:
    """One time that the scene is played."""

    def __init__(self, part: Part, actor: Any, clock: Clock | None) -> None:
        self.part = part
        self.actor = actor
        self.lease = 10.0 if clock is not None else 0.2
        self.memory = MemoryStore(clock=clock or time.monotonic)
        self.store = FaultStore(self.memory)
        self.store.paced = True
        self.over = asyncio.Event()
        self.inside_at_end: list[int] = []
        self.memory.watch("run", self._look)

    def _look(self, notice: Notice) -> None:
        if notice.ended:
            self.inside_at_end = list(inside)

    async def play(self, moment: Moment) -> None:
        with moment.watched():
            worker = spawn(self._work("first"), "worker first")
            block = spawn(self._client_block(), "block")
            hit = spawn(moment.hit.wait(), "hit")
            await asyncio.wait({block, hit}, return_when=asyncio.FIRST_COMPLETED)
            hit.cancel()
            rescue = spawn(self._work("second"), "rescue")
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({block})
                await self._ends()
            self.over.set()
            await asyncio.wait({worker, rescue, hit})
        for task in (block, worker):
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), loom.RunError)
        rescue.result()

    async def _work(self, name: str) -> None:
        async with Worker(self.store, app.registry, name=name, lease=self.lease, drain=0.0):
            await self.over.wait()

    async def _client_block(self) -> None:
        async with Client(StoreTransport(self.store, app.registry)) as client:
            consumer = spawn(_plain(self.part(client, self.actor)), "consumer")
            try:
                await asyncio.wait({consumer})
            finally:
                consumer.cancel()
                await asyncio.wait({consumer})
            if not consumer.cancelled():
                consumer.result()

    async def _ends(self) -> None:
        """The run has ended, if it was ever begun, and the queue holds nothing."""
        while True:
            heads = await self.memory.heads()
            if all(head.ended for head in heads) and "run" not in self.memory._queue:
                break
            for head in heads:
                if not head.ended:  # whoever was to tell it may have been cancelled before
                    await StoreTransport(self.memory).send(head.meta.run, loom.Message("word", "x", "rescue", "word"))
            await asyncio.sleep(limits.CLAIM_WAIT / 5)
        for head in heads:
            assert grammatical(await chunks_in(self.memory)) is State.ENDED
            assert head.state in ("completed", "cancelled")
        assert self.inside_at_end == [], "the end was said before the producer was gone"


async def _plain(part: Awaitable[None]) -> None:
    await part


def played(clock: Clock | None, complaints: Complaints, part: Part, actor: Any, name: str, number: int) -> bool:
    """Play the scene, without a `clock` in real time; whether that moment ever came. Checks that nothing is left."""

    async def play() -> bool:
        before = asyncio.all_tasks()
        with open_generators() as unclosed:
            moment = Moment(name, number)
            await Scene(part, actor, clock).play(moment)
            await until(lambda: asyncio.all_tasks() == before)
        assert unclosed == []
        return moment.hit.is_set()

    if clock is not None:
        clock.forget()
    with asyncio.Runner(loop_factory=None if clock is None else VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        hit = runner.run(play())
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("loom-")]:
        thread.join(THREAD_EXIT)  # it has told all, and may still be at its last step
        assert not thread.is_alive()
    return hit


Complaints = list[dict[str, Any]]
"""What asyncio says about tasks that nobody looked after."""


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints: Complaints = []
    yield complaints
    gc.collect()
    assert complaints == []


WHO = ["consumer", "block", "worker first", "loom-claimed", "loom-run", "loom-claim first", "loom-renew", "loom-own"]
INSIDE = ["loom-writer", "loom-inbox", "loom-feed", "loom-reader", "loom-leave"]


@pytest.mark.parametrize("part", [owner, starter, caller, canceller])
@pytest.mark.parametrize("name", WHO)
def test_cancelled_at_each_await(virtual_time: Clock, complaints: Complaints, part: Part, name: str) -> None:
    for number in count(1):
        if not played(virtual_time, complaints, part, chat, name, number):
            break
    assert number > (1 if name in ("consumer", "block", "loom-claimed") else 0)


@pytest.mark.parametrize("name", INSIDE)
def test_a_part_that_is_cancelled_from_within(virtual_time: Clock, complaints: Complaints, name: str) -> None:
    for number in count(1):
        if not played(virtual_time, complaints, owner, chat, name, number):
            return


@pytest.mark.parametrize("name", ["consumer", "worker first", "loom-claimed", "loom-run"])
def test_cancelled_at_each_await_around_a_thread(
    monkeypatch: pytest.MonkeyPatch, complaints: Complaints, name: str
) -> None:
    """In real time, for a thread takes its own."""
    monkeypatch.setattr(limits, "CLAIM_WAIT", 0.02)
    for number in count(1):
        if not played(None, complaints, owner, chat_in_a_thread, name, number):
            return
