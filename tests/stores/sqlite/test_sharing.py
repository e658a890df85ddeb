"""Processes on one file: followed from another, killed in the middle, locked out."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loom.model.errors import Unavailable
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.wire.json import decode_chunk

from .processes import Appender, Locker, Pacer, check_log, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, busy=0.2) as store:
        yield store


async def test_what_another_process_appends_is_followed_within_milliseconds(store: SqliteStore, path: Path) -> None:
    """A hundred chunks, each as it comes: about 3 ms on a quiet machine. The bound is for a busy one."""
    with running(Pacer, path) as pacer:
        assert await asyncio.to_thread(next, pacer.lines()) == "ready"
        cursor, delays = None, []
        for _ in range(100):
            pacer.append()
            page = await store.logs.read("run", cursor, wait=10.0)
            ((cursor, line),) = page.lines()
            delays.append(time.time() - decode_chunk(line).time)
    assert statistics.median(delays) < 0.1


@pytest.mark.parametrize("seed", range(6))
async def test_kill_9_of_a_writing_process_loses_nothing_acknowledged(path: Path, seed: int) -> None:
    """At a random moment of a process that writes eight runs at once; then another writer goes on."""
    moment = random.Random(seed).randrange(20, 600)
    with running(Appender, path, "process" if seed % 2 else "disk", "8") as appender:
        await asyncio.to_thread(appender.read, moment)
        os.kill(appender.process.pid, signal.SIGKILL)
        await asyncio.to_thread(appender.read)
        assert appender.process.wait() == -signal.SIGKILL, "it ended before it was killed: this proved nothing"
    async with SqliteStore(path) as store:
        assert appender.acked
        for run, acked in appender.acked.items():
            tail = await check_log(store, run, acked)
            heir = await Author.take(store.logs, run, "another")
            assert heir.tail == tail
            await heir.say("start", "complete")
            assert (await store.runs.get(run)).ended


async def test_another_process_that_holds_the_lock_makes_writing_unavailable(store: SqliteStore, path: Path) -> None:
    """After `busy` seconds, and not for longer than it is held. Reading goes on, and so does the loop."""
    author = await Author.start(store)
    with running(Locker, path) as locker:
        assert await asyncio.to_thread(next, locker.lines()) == "locked"
        batch = author.batch("data")
        appending = spawn(author.send(batch), "append")
        assert len(await read_all(store.logs, "run")) == 1
        assert not appending.done()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="write lock"):
            await appending
        assert time.monotonic() - began < 5.0
        waiting = spawn(store.runs.create(Meta(run="another", actor="actor")), "create")
        await asyncio.sleep(0)
        locker.unlock()
        assert (await waiting).meta.run == "another"
    assert await author.send(batch) == batch.cursor
    assert len(await read_all(store.logs, "run")) == 2
