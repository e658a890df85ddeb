"""Cancelled at each await: whoever it is, nothing is left behind, and the run comes to a proper end.

A play is given on virtual time over a store that waits at every call: a worker drives a run, and somebody starts,
tells, reads or cancels it. Each time it is given, one of those concerned is cancelled at the next of the places where
it waits. The last test says that these were all there are in the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import linecache
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast

import apsw
import pytest
from msgspec.structs import replace

import loom
import loom.engine
from loom.backoff import repeated
from loom.engine.declare.registry import Registry
from loom.engine.follow.children import RunClients
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run import worker as worker_module
from loom.engine.run.attempt import Resources
from loom.engine.run.worker import ATTEND_EVERY, Worker
from loom.engine.run.writer import BATCH_BYTES
from loom.model import limits
from loom.model.chunk import CANCEL, Message
from loom.model.errors import Fenced, StoreFull, Unauthorized
from loom.model.grammar import State
from loom.model.options import Options
from loom.model.ports import Notice, Store
from loom.model.run import Meta, Start
from loom.stores.memory import MemoryStore
from loom.stores.sqlite import SqliteStore
from loom.tasks import TaskSet, cancel_and_wait, spawn
from tests.faults.moments import Moment, Place, open_generators, places_in
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

from .kit import chunks_in, grammatical, until

PATIENCE = 1000.0
"""Seconds, mostly virtual ones, after which something hangs."""

THREAD_EXIT = 5.0
"""Seconds for a thread's last step on a busy machine."""

CONTINUE = loom.Retry(attempts=50, mode="continue", backoff=(0.5, 0.5))
AT_ONCE = loom.Retry(attempts=50, mode="continue", backoff=(0.01, 0.01))

app = loom.App()
inside: list[int] = []
"""The attempts whose producer has not left yet."""


# --- producers -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def staying(ctx: loom.Context) -> AsyncIterator[int]:
    """How much was said before; leaving takes a while."""
    inside.append(ctx.attempt)
    try:
        yield len([chunk for chunk in ctx.previous if chunk.type == "data"])
    finally:
        try:
            await asyncio.sleep(0.05)
        finally:
            inside.remove(ctx.attempt)


@app.actor(retry=CONTINUE, max_crashes=50, ahead=2)
async def chat(ctx: loom.Context) -> AsyncIterator[str]:
    """Says hello, fails once, and then says what it is told."""
    async with staying(ctx) as said:
        if said == 0:
            yield "hello"
            raise OSError("once")
        word = (await ctx.receive("word")).data
        for n in range(said, 6):
            await asyncio.sleep(0.1)
            yield f"{word} {n}"


@app.actor(retry=AT_ONCE, max_crashes=50, ahead=2)
def chat_in_a_thread(ctx: loom.Context) -> Iterator[str]:
    """The same, in a thread."""
    said = len([chunk for chunk in ctx.previous if chunk.type == "data"])
    if said == 0:
        yield "hello"
        raise OSError("once")
    ctx.sleep_sync(0.001)
    word = ctx.receive_sync("word").data
    for n in range(said, 6):
        yield f"{word} {n}"


@app.actor(retry=AT_ONCE, max_crashes=50)
async def quick(ctx: loom.Context) -> AsyncIterator[int]:
    """Never sleeps, for real time."""
    said = len([chunk for chunk in ctx.previous if chunk.type == "data"])
    if said == 0:
        yield 0
        raise OSError("once")
    await ctx.receive("word")
    for n in range(said, 4):
        yield n


@app.actor(retry=CONTINUE, max_crashes=50, ahead=2, timeout=900, idle_timeout=300)
async def slow(ctx: loom.Context) -> AsyncIterator[int]:
    """So slow that every heartbeat is needed."""
    async with staying(ctx) as said:
        await ctx.receive("word")
        for n in range(said, 3):
            await asyncio.sleep(5.0)
            yield n


@app.actor(max_crashes=0)
async def frail() -> None:
    """Survives no lost worker."""


@app.actor(retry=CONTINUE, max_crashes=50)
async def flood(ctx: loom.Context) -> AsyncIterator[object]:
    """Says more than the store takes at a time."""
    for n in range(2 * limits.YIELD_EVERY):
        yield n
    for _ in range(10):
        yield "x" * (BATCH_BYTES // 3)
    if ctx.attempt == 1:
        raise OSError("once")


async def hurry(ctx: loom.Context) -> AsyncIterator[int]:
    """Always saying something."""
    for n in range(50):
        yield n
        await asyncio.sleep(0)


hasty = app.actor("hasty", retry=CONTINUE, max_crashes=50)(hurry)
hasty_speech = app.actor("hasty-speech", retry=loom.Retry(attempts=50), max_crashes=50)(hurry)


@app.actor(retry=CONTINUE, max_crashes=50, ahead=2)
async def report(ctx: loom.Context) -> str:
    """A coroutine, which emits."""
    async with staying(ctx):
        await ctx.receive("word")
        await ctx.emit("hello")
        for n in range(4):
            await ctx.progress(n, 4)
        return "done"


@app.actor(retry=CONTINUE, max_crashes=50, concurrency=1)
async def one_at_a_time(ctx: loom.Context) -> str:
    """No worker drives two of it."""
    return str(await ctx.receive("word"))


@app.actor(max_crashes=50)
async def kid(ctx: loom.Context) -> int:
    """Started by others."""
    await asyncio.sleep(0.1)
    return 1


@app.actor(retry=CONTINUE, max_crashes=50)
async def parent(ctx: loom.Context) -> int:
    """Waits for all that a run can wait for, and starts it, too."""
    await ctx.sleep(0.1)
    await ctx.sleep(0)
    await ctx.receive("word")
    listening = spawn(ctx.receive("never"), "listening")
    try:
        one = await ctx.client.execute(kid)
        return one + sum(await asyncio.gather(ctx.client.execute(kid), ctx.client.execute(kid)))
    finally:
        await cancel_and_wait(listening)


@app.actor(max_crashes=50)
async def talk(ctx: loom.Context) -> AsyncIterator[str]:
    """Without a retry: it is lost with its worker once it has spoken."""
    async with staying(ctx):
        for _ in range(10):
            yield "hello"
            await asyncio.sleep(1.0)


@app.actor(retry=loom.Retry(attempts=50, backoff=(0.5, 0.5)), max_crashes=50)
async def speech(ctx: loom.Context) -> AsyncIterator[str]:
    """Begins anew when it is lost."""
    async with staying(ctx):
        for _ in range(20):
            yield "hello"
            await asyncio.sleep(0 if ctx.attempt == 1 else 0.1)
        await ctx.receive("word")


@app.actor(retry=loom.Retry(attempts=50, backoff=(5.0, 5.0)), max_crashes=50)
async def fails(ctx: loom.Context) -> AsyncIterator[str]:
    """Again and again."""
    async with staying(ctx):
        yield "hello"
        raise OSError


@app.actor(max_crashes=50)
async def breaks(ctx: loom.Context) -> None:
    """At once."""
    async with staying(ctx):
        raise OSError


@app.actor(max_crashes=50)
async def nonsense(ctx: loom.Context) -> AsyncIterator[object]:
    """What it says has no JSON."""
    async with staying(ctx):
        yield object()


@app.actor(max_crashes=50)
async def returns_nonsense() -> object:
    """What it returns has no JSON."""
    return object()


@app.actor(max_crashes=50)
async def stops_itself(ctx: loom.Context) -> None:
    """Its own task is cancelled by itself."""
    async with staying(ctx):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1.0)


# --- parts -----------------------------------------------------------------------------------------------------------

Part = Callable[[Client, Any], Coroutine[Any, Any, None]]


async def owner(client: Client, actor: Any) -> None:
    """Starts a run that is his, tells it what it waits for, and reads it to its end."""
    async with client.stream(actor.using(id="run")) as run:
        await run.send("word", "again")
        async for _ in run.chunks():
            pass


async def leaver(client: Client, actor: Any) -> None:
    """Leaves a run that is his before its end."""
    async with client.stream(actor.using(id="run")) as run:
        await run.send("word", "again")
        await _first(run)


async def repeater(client: Client, actor: Any) -> None:
    """Makes calls that fail, as those over HTTP do."""
    tries: list[int] = []

    async def call() -> None:
        tries.append(1)
        await asyncio.sleep(0.1)
        if len(tries) < 3:
            raise loom.Unavailable("by the test")

    log = logging.getLogger("loom.test")
    await repeated(call, lambda error: True, attempts=3, within=10.0, backoff=(0.1, 0.1), log=log)


async def late_owner(client: Client, actor: Any) -> None:
    """Lets it wait for the word, and leaves for a while now and then."""
    async with client.stream(actor.using(id="run")) as run:
        await asyncio.sleep(0.5)
        await run.send("word", "again")
        async for _ in run.chunks():
            await asyncio.sleep(4.0)


async def starter(client: Client, actor: Any) -> None:
    """Starts a run that goes on without him."""
    run = await client.start(actor.using(id="run"))
    await run.send("word", "again")
    await run.result()


async def dawdler(client: Client, actor: Any) -> None:
    """Reads so slowly that the run waits for him, and gives its slot back meanwhile."""
    run = await client.start(actor.using(id="run"))
    await run.send("word", "again")
    async for _ in run.chunks():
        await asyncio.sleep(1.0)


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


async def late_canceller(client: Client, actor: Any) -> None:
    """Cancels between two attempts."""
    run = await client.start(actor.using(id="run"))
    await _first(run)
    await asyncio.sleep(1.0)
    await run.cancel(wait=True)


async def _first(run: loom.Run[Any, Any]) -> None:
    """Read its first chunk."""
    async with aclosing(run.chunks()) as chunks:
        await anext(chunks)


async def visitor(client: Client, actor: Any) -> None:
    """Asks for everything."""
    run = await client.start(actor.using(id="run"))
    await client.runs()
    await client.actors()
    await client._transport.read("run", None, limit=10, wait=1.0)
    await client._transport.commit_position("run", "visitor", 1)
    await run.send("word", "again")
    await client._transport.commit_position("run", "visitor", None)
    async for _ in run.values():
        pass
    await run.text()
    await run.wait()
    await run.usage()
    await run


async def streamer(client: Client, actor: Any) -> None:
    """The short form."""
    told = False
    chunks = client.stream(actor.using(id="run")).__aiter__()
    async with aclosing(chunks) as stream:
        async for _ in stream:
            if not told:
                told = True
                await client.run("run").send("word", "again")


async def valuer(client: Client, actor: Any) -> None:
    """The short form of values."""
    told = False
    chunks = client.stream(actor.using(id="run")).values()
    async with aclosing(chunks) as stream:
        async for _ in stream:
            if not told:
                told = True
                await client.run("run").send("word", "again")


async def glancer(client: Client, actor: Any) -> None:
    """Has seen enough after one value."""
    run = await client.start(actor.using(id="run"))
    async with aclosing(run.values()) as values:
        await anext(values)
    await run.cancel()


async def closer(client: Client, actor: Any) -> None:
    """Closes the client while it is read."""
    run = await client.start(actor.using(id="run"))
    transport = cast(StoreTransport, client._transport)
    reading = spawn(run.wait(), "reading")
    try:
        await until(lambda: any(feed._reads for feed in transport.hub._feeds.values()))
        await client.aclose()
        await asyncio.wait({reading})
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        assert reading.cancelled() or isinstance(reading.exception(), loom.HandleClosed)


async def asker(client: Client, actor: Any) -> None:
    """Closes the client while that finds out whether a worker serves the queue of what it started."""
    await client.start(actor.using(id="run"))
    await asyncio.sleep(limits.UNSERVED_AFTER)
    await client.aclose()


async def low_caller(client: Client, actor: Any) -> None:
    """Cancels by a message, as a server's client does."""
    await client.start(actor.using(id="run"))
    await asyncio.sleep(0.2)
    await client._transport.send("run", Message(CANCEL, sender=CANCEL, id=CANCEL))
    await client.run("run").wait()


async def delayer(client: Client, actor: Any) -> None:
    """Starts for later, twice. Later is soon: this goes by the clock on the wall."""
    await client.start(actor.using(id="run", delay=1e-6))
    run = await client.start(actor.using(id="run", delay=1e-6))
    await run.send("word", "again")
    await run.result()


async def keeper(client: Client, actor: Any) -> None:
    """Looks after the queue, tries again what was cancelled, and sends the worker home."""
    run = await client.start(actor.using(id="first"))
    await run.cancel(wait=True)
    await client.entries()
    await client.retry("first", id="run")
    await client.run("run").send("word", "again")
    await asyncio.sleep(0.5)
    for info in await client.workers():
        await client.ask_to_drain(info.name)
    await asyncio.sleep(ATTEND_EVERY)


async def crowd(client: Client, actor: Any) -> None:
    """More runs than a worker may drive of this actor."""
    await client.start(actor.using(id="other"))
    await client.start(actor.using(id="run"))
    for run in ("other", "run"):
        await client.run(run).send("word", "again")
    for run in ("other", "run"):
        await client.run(run).wait()


async def parents(client: Client, actor: Any) -> None:
    """More runs that wait than there are slots."""
    await client.start(actor.using(id="other"))
    await client.start(actor.using(id="run"))
    for run in ("other", "run"):
        await client.run(run).send("word", "again")
    for run in ("other", "run"):
        await client.run(run).wait()


async def latecomer(client: Client, actor: Any) -> None:
    """His start was second, but his is the queue's entry."""
    store = cast(StoreTransport, client._transport).store
    mine = Meta(run="run", actor=actor.name, key="mine")
    await store.runs.create(mine)
    await store.queue.put(replace(mine, key="theirs"))
    await client._transport.start(Start(run="run", actor=actor.name, options=Options(key="mine")))
    await client.run("run").send("word", "again")
    await client.run("run").wait()


async def half_a_starter(client: Client, actor: Any) -> None:
    """His run is in the queue when he is cut off, and its log is not there yet."""
    store = cast(StoreTransport, client._transport).store
    await store.queue.put(Meta(run="run", actor=actor.name))
    while True:
        with contextlib.suppress(loom.LogNotFound):
            await client.run("run").send("word", "again")
            break
        await asyncio.sleep(0.01)
    await client.run("run").wait()


async def lost_once(client: Client, actor: Any) -> None:
    """A worker was lost with his run, which survives none."""
    store = cast(StoreTransport, client._transport).store
    meta = Meta(run="run", actor=actor.name)
    await store.runs.create(meta)
    await store.queue.force_claim(meta, "lost", lease=0.05)
    await client.run("run").wait()


async def stranger(client: Client, actor: Any) -> None:
    """Starts by name what no worker knows."""
    await client.start(actor, id="run")
    await client.run("run").wait()


async def refused(client: Client, actor: Any) -> None:
    """There is no room for his run."""
    with contextlib.suppress(StoreFull):
        await client.start(actor.using(id="run"))


async def publisher(client: Client, actor: Any) -> None:
    """Publishes, hands it over to himself, goes on; somebody reads it who knew of it before."""
    reading = spawn(_read_published(client), "reader")
    try:
        with contextlib.suppress(loom.LoomError):
            await _publish(client)
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _publish(client: Client) -> None:
    keep = loom.Keep(chunks=8)
    async with client.publisher("run", lease=6.0, keep=keep) as pub:
        for n in range(3):
            await pub.publish(n)
        await pub.hand_over()
    async with client.publisher("run", lease=6.0, keep=keep) as pub:
        await pub.previous()
        await client.run("run").send("word", "again")
        await pub.receive("word")
        for n in range(20):
            await pub.publish(n)
            await pub.flush()
        for _ in range(10):
            await pub.publish("x" * (BATCH_BYTES // 3))
        await asyncio.sleep(5.0)
        await pub.complete("done")


async def _read_published(client: Client) -> None:
    with contextlib.suppress(loom.LoomError):
        chunks = client.consumer.read("run", wait=100.0)
        async with aclosing(chunks) as read:
            async for _ in read:
                pass


async def failing_publisher(client: Client, actor: Any) -> None:
    """Says that it failed."""
    with contextlib.suppress(loom.LoomError):
        async with client.publisher("run", lease=6.0) as pub:
            await pub.fail("because")


async def leaving_publisher(client: Client, actor: Any) -> None:
    """Leaves the end to the block."""
    with contextlib.suppress(loom.LoomError):
        async with client.publisher("run", lease=6.0) as pub:
            await pub.publish("one")


async def speechless_publisher(client: Client, actor: Any) -> None:
    """Leaves with a result that has no JSON."""
    with contextlib.suppress(loom.LoomError):
        async with client.publisher("run", lease=6.0) as pub:
            await pub.publish(loom.Result(object()))


async def deaf_publisher(client: Client, actor: Any) -> None:
    """Does not hear that it is cancelled."""
    with contextlib.suppress(loom.LoomError):
        async with client.publisher("run", lease=6.0) as pub:
            await client.run("run").cancel()
            await pub.wait_cancelled()
            await asyncio.sleep(2 * limits.ABANDON_AFTER)


async def dead_publisher(client: Client, actor: Any) -> None:
    """Is gone without a word."""
    with contextlib.suppress(loom.LoomError):
        pub = await client.publisher("run", lease=6.0).__aenter__()
        await pub._open.aclose()
        await client.run("run").wait()


async def late_publisher(client: Client, actor: Any) -> None:
    """Comes too late: the run has ended, between two looks."""
    with contextlib.suppress(loom.LoomError):
        async with client.publisher("run", lease=6.0):
            pass
    with contextlib.suppress(loom.LoomError):
        meta = (await client.run("run").status()).meta
        pub = client.publisher("run", lease=6.0)
        pub._hold = lambda store: store.queue.force_claim(meta, "late", lease=6.0)  # type: ignore[method-assign]
        async with pub:
            pass


# --- a play ----------------------------------------------------------------------------------------------------------

CONSUMER = ("consumer", "block", "loom-own", "loom-feed", "loom-reader", "loom-leave")
WORKER = ("worker first", "loom-claimed", "loom-run", "loom-claim first", "loom-sweep", "loom-renew")
WITHIN = ("loom-writer", "loom-inbox", "loom-deadline", "loom-idle")
FEW = ("consumer", "block", "loom-claimed", "loom-run", "loom-take")
ALL = CONSUMER + WORKER + WITHIN

PUBLISHER = ("consumer", "block", "loom-renew", "loom-inbox", "loom-trim", "loom-abandon", "loom-watchman", "reader")

Faults = Callable[[FaultStore], None]


@dataclass(frozen=True)
class Play:
    """What is given: somebody's part, the run's actor, and who is cancelled."""

    part: Part
    actor: Any
    who: tuple[str, ...] = ALL
    ends: frozenset[str] = frozenset({"completed", "cancelled"})
    more: int = 0
    """At how many places where it waits next it is cancelled once more."""
    pace: int = 1
    """How many turns of the loop the store takes. With 0 it is a memory store as it is, which takes an append at once.
    """
    virtual: bool = True
    drain: float | None = None
    """The first worker leaves when the run has begun, with so many seconds."""
    theirs: Faults | None = None
    """What befalls the worker's store."""
    mine: Faults | None = None
    """What befalls the client's store."""
    concurrency: int = 1
    knows: bool = True
    """Whether the client knows the producers."""


def shaky(store: FaultStore) -> None:
    """Whatever waits for the store to come back does so now and then."""
    for call in (
        "append",
        "read",
        "renew",
        "claim",
        "sweep",
        "fence",
        "heartbeat",
        "positions",
        "commit_position",
        "ack",
    ):
        store.refuse(call, times=2)
        store.refuse(call, skip=3, times=1)
    store.lose_reply("append", skip=1)
    store.refuse("get", skip=2, times=2)


def shaky_to_read(store: FaultStore) -> None:
    for call in ("read", "heartbeat", "commit_position"):
        store.refuse(call, times=2)
    store.refuse("get", skip=2, times=1)


def never_renewed(store: FaultStore) -> None:
    store.refuse("renew", times=1000)


def taken_over(store: FaultStore) -> None:
    store.refuse("renew", Fenced("by the test"))


def full(store: FaultStore) -> None:
    store.refuse("create", StoreFull("by the test"))


def slow_to_create(store: FaultStore) -> None:
    store.refuse("create", times=2)


def shaky_to_watch(store: FaultStore) -> None:
    for call in ("create", "fence", "append", "ack", "claim"):
        store.refuse(call, times=2)


def shaky_to_publish(store: FaultStore) -> None:
    store.refuse("append", skip=1, times=2)
    store.refuse("renew", skip=1, times=2)
    store.refuse("ack", times=2)
    store.refuse("trim", Unauthorized("by the test"))
    store.refuse("trim", skip=1, times=2)
    store.refuse("read", skip=2, times=2)


def contended(store: FaultStore) -> None:
    store.refuse("renew", Fenced("another opened it at once"), times=2)


ANY = frozenset({"completed", "cancelled", "failed", "lost"})

PLAYS = {
    "owner": Play(owner, chat),
    "owner, cancelled again": Play(owner, chat, more=1),
    "owner of a store that takes it at once": Play(owner, chat, pace=0),
    "leaver": Play(leaver, chat, CONSUMER),
    "leaver, cancelled again": Play(leaver, chat, ("consumer",), more=1),
    "repeater": Play(repeater, chat, ("consumer",)),
    "late owner": Play(late_owner, slow),
    "late owner, cancelled again": Play(late_owner, slow, CONSUMER + FEW, more=1),
    "late owner, shaky store": Play(late_owner, slow, theirs=shaky, mine=shaky_to_read),
    "starter": Play(starter, chat, FEW),
    "dawdler": Play(dawdler, chat, FEW),
    "starter, shaky store": Play(starter, chat, FEW, theirs=shaky, mine=shaky_to_read),
    "starter of a flood": Play(starter, flood, ("loom-claimed", "loom-run", "loom-writer")),
    "starter of a report": Play(starter, report, FEW),
    "caller": Play(caller, chat, FEW),
    "canceller": Play(canceller, chat, (*FEW, "loom-inbox")),
    "canceller of what fails": Play(late_canceller, fails, FEW),
    "visitor": Play(visitor, chat, CONSUMER),
    "streamer": Play(streamer, chat, CONSUMER),
    "valuer": Play(valuer, chat, CONSUMER),
    "low caller": Play(low_caller, chat, FEW),
    "delayer": Play(delayer, chat, ("consumer",)),
    "keeper": Play(keeper, chat, ("consumer", "worker first", "loom-tell", "loom-drain", "asked")),
    "crowd": Play(crowd, one_at_a_time, (*FEW, "loom-claim first", "loom-claim-but", "loom-room"), concurrency=2),
    "parents": Play(
        parents,
        parent,
        (
            *FEW,
            "worker first",
            "listening",
            "loom-slot",
            "loom-claim first",
            "loom-claim-but",
            "loom-room",
            "loom-feed",
        ),
        ANY,
    ),
    "parent whose worker drains": Play(parents, parent, ("worker first", "loom-claimed", "loom-run"), ANY, drain=0.0),
    "latecomer": Play(latecomer, chat, FEW),
    "half a starter": Play(half_a_starter, chat, (*FEW, "loom-inbox"), theirs=slow_to_create),
    "lost once": Play(lost_once, frail, FEW, frozenset({"dead", "cancelled", "completed"})),
    "stranger": Play(stranger, "nobody", ("loom-claimed", "worker first", "loom-writer"), ANY, knows=False),
    "refused": Play(refused, chat, ("consumer", "block"), mine=full),
    "breaks": Play(starter, breaks, WORKER, ANY),
    "nonsense": Play(starter, nonsense, WORKER, ANY),
    "returns nonsense": Play(starter, returns_nonsense, WORKER, ANY),
    "stops itself": Play(starter, stops_itself, WORKER, ANY),
    "drain hands over": Play(starter, chat, WORKER, drain=1.0),
    "drain releases": Play(starter, speech, WORKER, drain=0.0),
    "drain hands over at once": Play(starter, hasty, ("loom-claimed",), pace=4, drain=1.0),
    "drain releases at once": Play(starter, hasty_speech, ("loom-claimed",), pace=4, drain=0.0),
    "drain loses": Play(starter, talk, WORKER, ANY, drain=2.0),
    "drain loses, cancelled again": Play(starter, talk, WORKER, ANY, drain=2.0, more=3),
    "drain loses while a lease is being renewed": Play(
        starter, talk, ("worker first",), ANY, drain=5.0, theirs=never_renewed
    ),
    "taken over": Play(starter, talk, ("loom-claimed", "loom-run"), ANY, theirs=taken_over),
    "leaves early": Play(glancer, chat, ("consumer",)),
    "asks who serves": Play(late_owner, slow, ("loom-unserved",)),
    "asks who serves, and closes": Play(asker, slow, ("consumer", "block")),
    "closes early": Play(closer, chat, ("consumer", "loom-feed-close")),
    "publisher": Play(publisher, None, PUBLISHER, ANY),
    "publisher, cancelled again": Play(publisher, None, ("consumer",), ANY, more=1),
    "publisher, shaky store": Play(publisher, None, PUBLISHER, ANY, theirs=shaky_to_watch, mine=shaky_to_publish),
    "publisher of a store that takes it at once": Play(publisher, None, PUBLISHER, ANY, pace=0),
    "publisher that fails": Play(failing_publisher, None, PUBLISHER, ANY),
    "publisher that leaves": Play(leaving_publisher, None, PUBLISHER, ANY),
    "publisher that is not alone": Play(leaving_publisher, None, PUBLISHER, ANY, mine=contended),
    "publisher without words": Play(speechless_publisher, None, PUBLISHER, ANY),
    "publisher that does not hear": Play(
        deaf_publisher, None, ("consumer", "block", "loom-renew", "loom-abandon"), ANY
    ),
    "publisher that dies": Play(dead_publisher, None, PUBLISHER, ANY),
    "publisher that dies, shaky store": Play(dead_publisher, None, PUBLISHER, ANY, theirs=shaky_to_watch),
    "publisher that is late": Play(late_publisher, None, PUBLISHER, ANY),
    "in a thread": Play(owner, chat_in_a_thread, ("consumer", "loom-claimed", "loom-run", "Task-"), virtual=False),
    "in a thread, cancelled again": Play(owner, chat_in_a_thread, ("loom-run",), virtual=False, more=1),
}


class Scene:
    """One time that a play is given."""

    def __init__(self, play: Play, truth: Store, queued: Callable[[str], bool]) -> None:
        self.play = play
        self.truth = truth
        self.queued = queued
        self.theirs = self._store(play.theirs)
        self.mine = self._store(play.mine)
        self.lease = 10.0 if play.virtual else 0.2
        self.over = asyncio.Event()
        self.begun = asyncio.Event()
        self.inside_at_end: list[int] = []
        truth.logs.watch("run", self._look)

    def _store(self, faults: Faults | None) -> Store:
        if not self.play.pace:
            return self.truth
        store = FaultStore(self.truth)
        store.pace = self.play.pace
        if faults is not None:
            faults(store)
        return store

    def _look(self, notice: Notice) -> None:
        if notice.batch is not None:
            self.begun.set()
        if notice.ended:
            self.inside_at_end = list(inside)

    async def give(self, moment: Moment) -> None:
        with moment.watched():
            worker = spawn(self._work("first"), "worker first")
            block = spawn(self._client_block(), "block")
            hit = spawn(moment.hit.wait(), "hit")
            until = {block, hit} if self.play.drain is None else {block, hit, worker}
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
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
        leaves = name == "first" and self.play.drain is not None
        drain = self.play.drain if leaves and self.play.drain else 0.0
        resources = Resources()
        resources.clients = RunClients
        options: dict[str, Any] = {
            "lease": self.lease,
            "drain": drain,
            "concurrency": self.play.concurrency,
            "resources": resources,
        }
        async with Worker(self.theirs, app.registry, name=name, **options) as worker, TaskSet() as tasks:
            told = tasks.spawn((self.begun if leaves else self.over).wait(), "told")
            await asyncio.wait({told, tasks.spawn(worker.wait_asked(), "asked")}, return_when=asyncio.FIRST_COMPLETED)

    async def _client_block(self) -> None:
        registry: Registry | None = app.registry if self.play.knows else None
        async with Client(StoreTransport(self.mine, registry)) as client:
            consumer = spawn(self.play.part(client, self.play.actor), "consumer")
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
            heads = await self.truth.runs.list_runs()
            if all(head.ended for head in heads) and not self.queued("run"):
                break
            for head in heads:
                if not head.ended:  # whoever was to tell or to cancel it may have been cancelled before
                    await self._rescue(head.meta.run, cancel=self.play.actor is fails)
            await asyncio.sleep(worker_module.CLAIM_WAIT / 5)
        for head in heads:
            assert head.first > 1 or grammatical(await chunks_in(self.truth, head.meta.run)) is State.ENDED
            assert head.state in self.play.ends
        assert self.inside_at_end == [], "the end was said before the producer was gone"

    async def _rescue(self, run: str, *, cancel: bool) -> None:
        transport = StoreTransport(self.truth)
        try:
            if cancel:
                await transport.cancel(run)
            else:
                await transport.send(run, Message("word", "x", "rescue", "word"))
        except loom.LogEnded:
            return
        finally:
            await transport.aclose()


Open = Callable[[], tuple[Store, Callable[[str], bool]]]
"""A new store, and whether its queue holds a run."""


def in_memory(clock: Clock) -> Open:
    def make() -> tuple[Store, Callable[[str], bool]]:
        store = MemoryStore(clock=clock)
        return store, store.queue.__contains__

    return make


def in_files(folder: Path) -> Open:
    """A new one each time."""

    def make() -> tuple[Store, Callable[[str], bool]]:
        path = folder / f"{uuid.uuid4().hex}.db"

        def queued(run: str) -> bool:
            with contextlib.closing(apsw.Connection(str(path))) as connection:
                return bool(connection.execute("SELECT 1 FROM queue WHERE run = ?", (run,)).fetchall())

        return SqliteStore(path, durability="process"), queued

    return make


def given(clock: Clock, open: Open, play: Play, moment: tuple[str, int]) -> tuple[bool, set[Place]]:
    """Give the play; whether that moment ever came, and where that was. Checks that nothing is left."""
    complaints: list[dict[str, Any]] = []

    async def give() -> tuple[bool, set[Place]]:
        before = asyncio.all_tasks()
        store, queued = open()
        with open_generators() as unclosed:
            async with store:
                watched = Moment(*moment, more=play.more)
                await Scene(play, store, queued).give(watched)
            await until(lambda: asyncio.all_tasks() == before)
        assert unclosed == []
        return watched.hit.is_set(), watched.places

    clock.forget()
    with asyncio.Runner(loop_factory=VirtualLoop if play.virtual else None) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        found = runner.run(give())
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("loom-")]:
        thread.join(THREAD_EXIT)  # it has told all, and may still be at its last step
        assert not thread.is_alive()
    assert complaints == [], "asyncio complains of what nobody looked after"
    return found


def given_at_each_await(clock: Clock, open: Open, play: Play) -> set[Place]:
    """Where somebody was cancelled."""
    places: set[Place] = set()
    for name in play.who:
        for number in count(1):
            try:
                hit, there = given(clock, open, play, (name, number))
            except BaseException as error:
                error.add_note(f"{name} cancelled at wait {number}")
                raise
            places |= there
            if not hit:
                break
    return places


NEVER_WAITS = (
    "async with asyncio.timeout",  # it only counts
    "await client.aclose()",  # an attempt's waits only for a look at who serves a queue, which no play has then
    "await self._client.aclose()",  # likewise
    "await self._dropped.wait_out()",  # of threads that have dropped an iterator; see tests/clients/test_children
    "await late.pause()",  # after a refusal, in which no play lets a trimmer be for long enough
    "async with aclosing(self._chunks(head.earliest))",  # left only when its generator has ended
    "async with aclosing(self._transport.follow(self.id, after))",  # likewise
    "async with aclosing(run.chunks(after, raise_errors=raise_errors))",  # of a run without `ahead`
    "return await self._transport.actors()",  # known without asking
    "async with slot:",  # waits for the threads of other runs, which no play has; see test_worker
    "await self._threads.acquire()",  # likewise
    "await self.thread.take()",  # likewise
    "if not page.batches:\nawait self.aclose()",  # at the log's end no reader is attached
)


@pytest.fixture(scope="module")
def cancelled_at() -> dict[str, set[Place]]:
    """By play: where somebody was cancelled."""
    return {}


@pytest.fixture(autouse=True)
def nothing_unseen() -> Iterator[None]:
    """A task whose failure nobody saw complains when it is collected: that fails the test it belongs to."""
    yield
    gc.collect()


ON_FILES = [
    Play(owner, quick, ("consumer", "block"), pace=0, virtual=False),
    Play(starter, quick, ("worker first", "loom-claimed", "loom-run", "loom-writer"), pace=0, virtual=False),
    Play(canceller, quick, ("consumer", "loom-claimed"), pace=0, virtual=False, drain=0.0),
]


@pytest.mark.parametrize("name", PLAYS)
def test_cancelled_at_each_await(
    virtual_time: Clock, monkeypatch: pytest.MonkeyPatch, cancelled_at: dict[str, set[Place]], name: str
) -> None:
    cancelled_at[name] = _all_of(virtual_time, monkeypatch, PLAYS[name])
    assert cancelled_at[name]


@pytest.mark.parametrize("play", ON_FILES, ids=lambda play: play.part.__name__ + " " + play.actor.name)
def test_cancelled_at_each_await_on_sqlite(
    virtual_time: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, play: Play
) -> None:
    """In real time: whether a cancelled call was carried out is up to the store's thread."""
    monkeypatch.setattr("loom.engine.run.worker.CLAIM_WAIT", 0.02)
    assert given_at_each_await(virtual_time, in_files(tmp_path), play)


def _all_of(clock: Clock, monkeypatch: pytest.MonkeyPatch, play: Play) -> set[Place]:
    with monkeypatch.context() as patch:
        patch.setattr("loom.engine.run.worker.RENEWED_AT_ONCE", 1)
        if not play.virtual:
            patch.setattr("loom.engine.run.worker.CLAIM_WAIT", 0.02)
        return given_at_each_await(clock, in_memory(clock), play)


def test_no_await_of_the_engine_is_left_out(
    virtual_time: Clock, monkeypatch: pytest.MonkeyPatch, cancelled_at: dict[str, set[Place]]
) -> None:
    for name in PLAYS.keys() - cancelled_at.keys():
        cancelled_at[name] = _all_of(virtual_time, monkeypatch, PLAYS[name])
    stood = set().union(*cancelled_at.values())
    left = [
        f"{Path(file).name}:{lines.start}: {_text(file, lines.start)}"
        for file, lines in places_in(Path(loom.engine.__file__).parent)
        if not any((file, line) in stood for line in lines) and not _never_waits(file, lines.start)
    ]
    assert not left, "\n".join(left)


def _text(file: str, number: int) -> str:
    """The line and the one before it."""
    return "\n".join(linecache.getline(file, n).strip() for n in (number - 1, number))


def _never_waits(file: str, number: int) -> bool:
    return any(known in _text(file, number) for known in NEVER_WAITS)
