"""The SQLite store: the shipped suites, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loom.model.chunk import Chunk
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.testing.clock import ManualClock, StoreFactory
from loom.testing.conformance import SharedStoreConformance
from loom.testing.machine import log_machine, queue_machine, run_machine, worker_machine

pytestmark = pytest.mark.anyio


@contextmanager
def place() -> Iterator[StoreFactory]:
    with TemporaryDirectory() as folder:
        yield lambda clock: SqliteStore(Path(folder) / "runs.db", durability="process", clock=clock)


class TestConformance(SharedStoreConformance):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> StoreFactory:
        return lambda clock: SqliteStore(tmp_path / "runs.db", clock=clock)


SHRINKS = pytest.mark.timeout(600)
"""A failure is told when its shortest form was found: for a slow machine that takes minutes."""

TestLogMachine = SHRINKS(log_machine(place, reopens=True))
TestRunMachine = SHRINKS(run_machine(place, reopens=True))
TestQueueMachine = SHRINKS(queue_machine(place, reopens=True))
TestWorkerMachine = SHRINKS(worker_machine(place, reopens=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def test_closing_does_what_was_submitted(path: Path) -> None:
    """Its callers have their outcomes; all of it is there afterwards."""
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        calls = [spawn(store.runs.create(Meta(run=f"run-{number}", actor="actor")), "create") for number in range(20)]
        calls.append(spawn(store.runs.get("run"), "head"))
        appending = spawn(author.say("data"), "append")
        await asyncio.sleep(0)
    assert len(await asyncio.gather(*calls)) == 21
    async with SqliteStore(path) as store:
        assert len(await store.runs.list_runs()) == 21
        assert (await read_all(store.logs, "run"))[-1][0] == await appending


async def test_who_waits_is_told_when_the_store_closes(path: Path) -> None:
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        reading = spawn(store.logs.read("run", Cursor(author.epoch, 1), wait=60.0), "read")
        for _ in range(2):
            await store.runs.get("run")
    with pytest.raises(HandleClosed):
        await reading
    for call in (
        store.runs.get("run"),
        author.say("data"),
        store.sweep(),
        store.queue.claim(["q"], "w", lease=1.0, wait=0.0),
    ):
        with pytest.raises(HandleClosed):
            await call
    store.logs.watch("run", lambda notice: None)()


async def test_the_loop_is_not_held_up(path: Path) -> None:
    """While a large batch is committed and read, and while the file is opened and closed, the loop turns."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = spawn(turn(), "turn")
    counts = []
    async with SqliteStore(path) as store:
        counts.append(turns)
        author = await Author.start(store)
        large = author.batch(*[Chunk("data", "x" * 1000)] * 1000)
        before = turns
        await author.send(large)
        counts.append(turns - before)
        before = turns
        assert len(await store.logs.read("run", Cursor(author.epoch, 1))) > 100
        counts.append(turns - before)
        before = turns
    counts.append(turns - before)
    await cancel_and_wait(turning)
    assert all(count > 1 for count in counts), counts


async def test_pages_come_whole_from_many_small_batches(path: Path) -> None:
    """A page is not a batch's size: a reader far behind needs few of them, up to an epoch's end."""
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        for _ in range(99):
            await author.say("data")
        heir = await Author.take(store.logs, "run", "token-2")
        await heir.say("start", "complete")
        first = await store.logs.read("run")
        assert [len(batch) for batch in first.batches] == [100]
        second = await store.logs.read("run", first.cursor)
        assert [(batch.epoch, len(batch)) for batch in second.batches] == [(heir.epoch, 2)]
        assert (first.caught_up, second.caught_up, second.ended) == (False, True, True)


async def test_times_are_of_the_wall(path: Path) -> None:
    """And jumps of it move nothing but what is told and how long runs are kept."""
    wall = ManualClock(1.7e9)
    async with SqliteStore(path, wall=wall) as store:
        author = await Author.start(store)
        await store.queue.put(Meta(run="run", actor="actor"))
        claim = await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0)
        assert claim is not None
        wall.advance(-3600)
        assert await store.queue.claim(["default"], "w2", lease=10.0, wait=0.0) is None
        wall.advance(7200)
        assert await store.queue.claim(["default"], "w2", lease=10.0, wait=0.0) is None
        await store.queue.renew(claim)
        await author.say("complete")
        head = await store.runs.get("run")
        assert (head.started, head.ended_at) == (1.7e9, 1.7e9 + 3600)
