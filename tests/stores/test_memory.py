"""The memory store: the shipped suites, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import LogNotFound, StoreFull
from loom.model.ports import Commit, Notice, message_producer
from loom.model.run import Meta, inbox_of
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.testing.clock import Clock, ManualClock, StoreFactory
from loom.testing.conformance import StoreConformance
from loom.testing.machine import log_machine, queue_machine, run_machine, worker_machine

pytestmark = pytest.mark.anyio


def make(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@contextmanager
def place() -> Iterator[StoreFactory]:
    yield make


class TestConformance(StoreConformance):
    @pytest.fixture
    def make_store(self) -> StoreFactory:
        return make


ENDED = Commit(state="completed")

SHRINKS = pytest.mark.timeout(600)
"""A failure is told when its shortest form was found: for a slow machine that takes minutes."""

TestLogMachine = SHRINKS(log_machine(place))
TestRunMachine = SHRINKS(run_machine(place))
TestQueueMachine = SHRINKS(queue_machine(place))
TestWorkerMachine = SHRINKS(worker_machine(place))


async def ended(store: MemoryStore, run: str, *said: str | Chunk[Any]) -> None:
    """A run that has ended."""
    await (await Author.start(store, run)).say(*said, "complete")


async def put_and_acknowledged(store: MemoryStore, run: str) -> None:
    """As by a start that is repeated, and the worker that finds the run ended."""
    await store.queue.put(Meta(run=run, actor="actor"))
    claim = await store.queue.claim(["default"], "w", lease=10.0, wait=0.0)
    assert claim is not None
    await store.queue.ack(claim)


# --- no call suspends ------------------------------------------------------------------------------------------------


def finish(call: Any) -> Any:
    """What a coroutine gives that must not suspend."""
    with pytest.raises(StopIteration) as caught:
        call.send(None)
    return caught.value.value


def test_no_call_suspends_but_to_wait() -> None:
    """There is not even a loop here."""
    store = MemoryStore()
    meta = Meta(run="run", actor="actor", key="k")
    finish(store.queue.put(meta))
    claim = finish(store.queue.claim(["default"], "w", lease=1.0, wait=0.0))
    finish(store.runs.create(meta))
    author = Author(store.logs, "run", finish(store.logs.fence("run", "token")))
    finish(author.say("start", "data"))
    finish(store.logs.send(inbox_of("run"), b"{}", message_producer("s", "1")))
    assert len(finish(store.logs.read("run", wait=5.0))) == 2
    finish(store.logs.commit_position("run", "reader", 1))
    finish(store.runs.heartbeat("run"))
    finish(store.queue.renew(claim))
    finish(author.say("complete"))
    finish(store.queue.ack(claim))
    finish(store.sweep())
    finish(store.runs.drop("run"))


async def test_append_has_told_every_watcher_when_it_returns() -> None:
    store = MemoryStore()
    author = await Author.start(store)
    told: list[Notice] = []
    for _ in range(2):
        store.logs.watch("run", told.append)
    batch = author.batch("data")
    finish(store.logs.append("run", batch))
    assert told == [Notice(batch)] * 2
    assert told[0].batch is batch
    author.tail = batch.last
    last = author.batch("data", "complete")
    finish(store.logs.append("run", last, ENDED))
    assert told[2:] == [Notice(last, ended=True)] * 2


async def test_what_was_refused_or_repeated_is_not_told() -> None:
    store = MemoryStore()
    author = await Author.start(store)
    batch = author.batch("data")
    await author.send(batch)
    told: list[Notice] = []
    store.logs.watch("run", told.append)
    await store.logs.append("run", batch)
    assert told == []


async def test_whoever_is_told_may_watch_and_unwatch() -> None:
    store = MemoryStore()
    author = await Author.start(store)
    told: list[str] = []

    def once(notice: Notice) -> None:
        told.append("once")
        unwatch()
        store.logs.watch("run", lambda notice: told.append("later"))

    unwatch = store.logs.watch("run", once)
    store.logs.watch("run", lambda notice: told.append("always"))
    await author.say("data")
    assert told == ["once", "always"]
    await author.say("data")
    assert told == ["once", "always", "always", "later"]


async def test_nothing_is_kept_of_watches_that_are_over() -> None:
    store = MemoryStore()
    await Author.start(store)
    reading = [spawn(store.logs.read(log, wait=60.0), log) for log in (inbox_of("run"), inbox_of("run"))]
    await asyncio.sleep(0)
    assert store.logs.watchers
    await cancel_and_wait(*reading)
    assert not store.logs.watchers


# --- the queue -------------------------------------------------------------------------------------------------------


async def test_a_worker_that_is_cancelled_as_it_wakes_leaves_the_run_to_another() -> None:
    store = MemoryStore()
    for number in range(10):
        waiting = [
            spawn(store.queue.claim(["default"], f"w{each}", lease=10.0, wait=60.0), "claim") for each in range(3)
        ]
        await asyncio.sleep(0)
        await store.queue.put(Meta(run=f"run-{number}", actor="actor"))
        first, others = waiting[number % 3], waiting[: number % 3] + waiting[number % 3 + 1 :]
        await cancel_and_wait(first)
        await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(*others)
        claims = [task.result() for task in others if not task.cancelled()]
        assert [claim and claim.run for claim in claims] == [f"run-{number}"]
    assert not store.queue._waiting


async def test_a_waiting_worker_takes_what_was_delayed_when_it_is_due() -> None:
    store = MemoryStore()
    await store.queue.put(Meta(run="run", actor="actor"))
    claim = await store.queue.claim(["default"], "w", lease=10.0, wait=0.0)
    assert claim is not None
    await store.queue.release(claim, delay=0.05)
    assert await store.queue.claim(["default"], "w", lease=10.0, wait=0.01) is None
    again = await store.queue.claim(["default"], "w", lease=10.0, wait=60.0)
    assert again is not None
    assert again.crashes == 0


async def test_acknowledging_an_open_run_leaves_it_to_the_sweep() -> None:
    store = MemoryStore()
    await store.queue.put(Meta(run="run", actor="actor"))
    claim = await store.queue.claim(["default"], "w", lease=10.0, wait=0.0)
    assert claim is not None
    await store.runs.create(claim.meta)
    await store.queue.ack(claim)
    assert (await store.sweep()).requeued == 1
    assert await store.queue.claim(["default"], "w", lease=10.0, wait=0.0) is not None


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_ended_runs_are_kept_for_the_retention() -> None:
    clock = ManualClock()
    store = MemoryStore(retention=100.0, clock=clock)
    await Author.start(store, "open")
    for run in ("a", "b"):
        await ended(store, run)
        clock.advance(49.0)
    assert (await store.sweep()).dropped == 0
    clock.advance(2.0)
    assert (await store.sweep()).dropped == 1
    with pytest.raises(LogNotFound):
        await store.runs.get("a")
    clock.advance(10**9)
    assert (await store.sweep()).dropped == 1
    assert [head.meta.run for head in await store.runs.list_runs()] == ["open"]


async def test_a_retention_of_nothing_is_as_long_as_its_readers_need() -> None:
    for default, own in ((0.0, None), (None, 0.0), (100.0, 1.0)):
        clock = ManualClock()
        store = MemoryStore(retention=default, clock=clock)
        await (await Author.start(store, "run", retention=own)).say("complete")
        clock.advance(limits.LEAST_RETENTION - 1)
        assert (await store.sweep()).dropped == 0
        clock.advance(2.0)
        assert (await store.sweep()).dropped == 1


async def test_without_retention_runs_are_kept() -> None:
    clock = ManualClock()
    store = MemoryStore(retention=None, clock=clock)
    await ended(store, "run")
    clock.advance(10**12)
    assert (await store.sweep()).dropped == 0


async def test_a_runs_own_retention_comes_first() -> None:
    """Shorter or longer, also where the store drops nothing by itself."""
    for default in (1000.0, None):
        clock = ManualClock()
        store = MemoryStore(retention=default, clock=clock)
        for run, retention in (("long", 10000.0), ("plain", None), ("brief", 100.0)):
            await (await Author.start(store, run, retention=retention)).say("complete")
        kept = []
        for _ in range(4):
            await store.sweep()
            kept.append([head.meta.run for head in await store.runs.list_runs()])
            clock.advance(50.0 * 10 ** len(kept))
        plain = ["plain"] * (default is None)
        assert kept == [["brief", "plain", "long"], ["plain", "long"], [*plain, "long"], plain]


async def test_what_was_dropped_before_its_time_is_forgotten() -> None:
    """A store that is full for years keeps no list of all that it ever held."""
    store = MemoryStore(max_bytes=50_000)
    for number in range(3 * limits.SWEEP_RUNS):
        await ended(store, f"run-{number}", LARGE)
    for _ in range(3 * limits.SWEEP_RUNS):
        await put_and_acknowledged(store, f"run-{3 * limits.SWEEP_RUNS - 1}")
    assert store.runs._due == list(store.runs._spent.values())
    assert sum(map(len, store.runs._index.values())) == 3 * len(store.runs._runs)  # of all, its actor, its state


async def test_a_run_whose_claim_is_not_acknowledged_is_kept() -> None:
    clock = ManualClock()
    store = MemoryStore(retention=100.0, clock=clock)
    await store.queue.put(Meta(run="held", actor="actor"))
    claim = await store.queue.claim(["default"], "w", lease=1000.0, wait=0.0)
    assert claim is not None
    await ended(store, "held")
    await ended(store, "done")
    clock.advance(101.0)
    assert (await store.sweep()).dropped == 1
    await store.queue.ack(claim)
    assert (await store.sweep()).dropped == 1


async def test_an_ended_run_that_is_put_again_is_kept_until_it_is_acknowledged() -> None:
    """Its worker would find none, and begin it anew."""
    clock = ManualClock()
    store = MemoryStore(retention=100.0, max_bytes=50_000, clock=clock)
    await ended(store, "again")
    await store.queue.put(Meta(run="again", actor="actor"))
    for number in range(20):
        await ended(store, f"run-{number}", LARGE)
    clock.advance(101.0)
    await store.sweep()
    assert [head.meta.run for head in await store.runs.list_runs()] == ["again"]
    await put_and_acknowledged(store, "again")
    assert (await store.sweep()).dropped == 1


async def test_at_its_bound_an_append_looks_at_the_oldest_ended_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at all that have ended, nor at those that are still queued."""
    store = MemoryStore(max_bytes=1_000_000)
    for number in range(200):
        await store.queue.put(Meta(run=f"queued-{number}", actor="actor"))
        await ended(store, f"queued-{number}")
    for number in range(200):
        await ended(store, f"run-{number}")
    author = await Author.start(store, "open")
    looked = Looked(store.runs._spent)
    monkeypatch.setattr(store.runs, "_spent", looked)
    while not looked.count:
        await author.say(LARGE)
    before = looked.count
    for _ in range(20):
        await author.say(LARGE)
    dropped = 400 + 1 - len(await store.runs.list_runs(limit=1000))
    assert dropped > 20
    assert looked.count - before <= dropped


class Looked(dict[str, Any]):
    """Counts the values that are looked at."""

    count = 0

    def values(self) -> Any:
        for value in super().values():
            self.count += 1
            yield value


async def test_a_run_that_came_again_is_kept_from_its_own_end() -> None:
    clock = ManualClock()
    store = MemoryStore(retention=100.0, clock=clock)
    await ended(store, "run")
    clock.advance(60.0)
    await store.runs.drop("run")
    await ended(store, "run")
    clock.advance(60.0)
    assert (await store.sweep()).dropped == 0


async def test_a_sweep_does_a_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SWEEP_RUNS", 2)
    clock = ManualClock()
    store = MemoryStore(retention=100.0, clock=clock)
    for number in range(3):
        await ended(store, f"ended-{number}")
        await store.runs.create(Meta(run=f"open-{number}", actor="actor"))
    clock.advance(101.0)
    sweeps = [await store.sweep() for _ in range(3)]
    assert [(swept.requeued, swept.dropped) for swept in sweeps] == [(2, 2), (1, 1), (0, 0)]


LARGE = Chunk("data", "x" * 10_000)


async def test_beyond_its_bytes_the_oldest_ended_runs_go() -> None:
    store = MemoryStore(max_bytes=50_000)
    for number in range(10):
        await ended(store, f"run-{number}", LARGE)
    kept = [head.meta.run for head in await store.runs.list_runs()]
    assert kept == [f"run-{number}" for number in range(9, 9 - len(kept), -1)]
    assert 3 <= len(kept) <= 4
    author = await Author.start(store, "open")
    for _ in range(3):
        await author.say(LARGE)
    assert len(await read_all(store.logs, "open")) == 4


async def test_when_only_open_runs_are_left_it_is_full_and_goes_on_when_there_is_room() -> None:
    store = MemoryStore(max_bytes=30_000)
    author = await Author.start(store, "open")
    other = await Author.start(store, "other")
    await author.say(LARGE)
    await other.say(LARGE)
    lines = await read_all(store.logs, "open")
    batch = author.batch(LARGE)
    for _ in range(2):
        with pytest.raises(StoreFull):
            await store.logs.append("open", batch)
        with pytest.raises(StoreFull):
            await store.logs.append("open", author.batch(LARGE, "complete"), ENDED)
        with pytest.raises(StoreFull):
            await store.logs.send(inbox_of("open"), b'"%b"' % (b"x" * 10_000), message_producer("s", "1"))
        with pytest.raises(StoreFull):
            await store.runs.create(Meta(run="new", actor="actor", input=msgspec.Raw(b"1" * 10_000)))
    assert await read_all(store.logs, "open") == lines
    assert await read_all(store.logs, inbox_of("open")) == []
    assert len(await store.runs.list_runs()) == 2
    await store.runs.drop("other")
    await author.send(batch)
    assert len(await read_all(store.logs, "open")) == 3


async def test_a_full_store_still_ends_no_run_by_halves() -> None:
    store = MemoryStore(max_bytes=10_000)
    author = await Author.start(store, "other")
    await store.runs.create(Meta(run="run", actor="actor"))
    await author.say(Chunk("data", "x" * (10_000 - store.logs._bytes - 250)))
    line = b'{"type":"error","error":{"code":"cancelled","message":"%b"}}' % (b"x" * 200)
    with pytest.raises(StoreFull):
        await store.runs.cancel_unstarted("run", line)
    assert (await store.runs.get("run")).state == "queued"
    await store.runs.drop("other")
    assert await store.runs.cancel_unstarted("run", line)
    assert await store.runs.cancel_unstarted("run", line)


async def test_what_was_dropped_or_trimmed_makes_room() -> None:
    store = MemoryStore()
    empty = store.logs._bytes
    author = await Author.start(store)
    begun = store.logs._bytes
    for _ in range(3):
        await author.say(LARGE)
    full = store.logs._bytes
    assert full > begun + 30_000
    await store.logs.trim("run", 4)
    assert store.logs._bytes < full - 20_000
    await store.logs.send(inbox_of("run"), b"{}", message_producer("s", "1"))
    await store.runs.drop("run")
    assert store.logs._bytes == empty == 0
