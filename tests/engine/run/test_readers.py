"""`ahead`: a run waits for its slowest attached reader, and for no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from loom.engine.run.readers import Readers
from loom.model import limits
from loom.model.errors import LimitExceeded
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from tests.engine.kit import open_log, turns
from tests.faults.store import FaultStore
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio

AHEAD = 10


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
async def store() -> FaultStore:
    store = FaultStore(MemoryStore())
    await open_log(store)
    return store


@pytest.fixture
async def readers(store: FaultStore, virtual_time: Callable[[], float]) -> AsyncIterator[Readers]:
    readers = Readers(store.logs, "run", AHEAD)
    yield readers
    readers.close()
    assert store.watched == set()


async def test_without_readers_there_is_always_room(readers: Readers, virtual_time: Callable[[], float]) -> None:
    before = virtual_time()
    await readers.room(1_000_000)
    assert virtual_time() == before


async def test_the_marks_are_asked_for_only_when_they_changed(store: FaultStore, readers: Readers) -> None:
    for seq in range(100):
        await readers.room(seq)
    assert store.calls["positions"] == 1


@pytest.mark.parametrize(("read", "seq", "room"), [(0, 9, True), (0, 10, False), (5, 14, True), (5, 15, False)])
async def test_it_is_at_most_so_far_ahead(store: FaultStore, readers: Readers, read: int, seq: int, room: bool) -> None:
    await store.logs.commit_position("run", "r", read)
    waiting = spawn(readers.room(seq), "room")
    await turns()
    assert waiting.done() is room
    await cancel_and_wait(waiting)


async def test_the_slowest_reader_counts(store: FaultStore, readers: Readers) -> None:
    await store.logs.commit_position("run", "fast", 100)
    await store.logs.commit_position("run", "slow", 1)
    waiting = spawn(readers.room(50), "room")
    await turns()
    assert not waiting.done()
    await store.logs.commit_position("run", "slow", 45)
    await waiting


async def test_a_reader_that_leaves_no_longer_counts(store: FaultStore, readers: Readers) -> None:
    await store.logs.commit_position("run", "slow", 0)
    waiting = spawn(readers.room(50), "room")
    await turns()
    await store.logs.commit_position("run", "slow", None)
    await waiting


async def test_a_reader_that_comes_later_is_waited_for(store: FaultStore, readers: Readers) -> None:
    await readers.room(50)
    await store.logs.commit_position("run", "late", 0)
    waiting = spawn(readers.room(51), "room")
    await turns()
    assert not waiting.done()
    await cancel_and_wait(waiting)


async def test_a_reader_that_is_not_heard_of_lapses(
    store: FaultStore, readers: Readers, virtual_time: Callable[[], float]
) -> None:
    await store.logs.commit_position("run", "gone", 0)
    before = virtual_time()
    await readers.room(50)
    waited = virtual_time() - before
    assert limits.READER_LEASE <= waited <= limits.READER_LEASE * (1 + 1 / limits.RENEW_FRACTION)


@pytest.mark.parametrize("silent", [0.0, 2 * limits.READER_LEASE])
async def test_a_reader_that_died_is_waited_for_once_by_all_attempts(
    virtual_time: Callable[[], float], silent: float
) -> None:
    """And by none, if it died long before the first."""
    store = MemoryStore(clock=virtual_time)
    await open_log(store)
    await store.logs.commit_position("run", "gone", 0)
    await asyncio.sleep(silent)
    before = virtual_time()
    for _ in range(3):
        attempt = Readers(store.logs, "run", AHEAD)
        await attempt.room(50)
        attempt.close()
    waited = virtual_time() - before
    assert waited < 0.1 if silent else waited < 1.5 * limits.READER_LEASE


async def test_a_thousand_readers_that_died_shut_out_nobody(virtual_time: Callable[[], float]) -> None:
    store = MemoryStore(clock=virtual_time)
    await open_log(store)
    for number in range(limits.READERS):
        await store.logs.commit_position("run", f"gone-{number}", 0)
    with pytest.raises(LimitExceeded):
        await store.logs.commit_position("run", "new", 0)
    await asyncio.sleep(limits.READER_LEASE + 1)
    await store.logs.commit_position("run", "new", 0)
    assert [mark.reader for mark in await store.logs.positions("run")] == ["new"]


async def test_a_reader_that_is_slow_but_alive_is_waited_for(
    store: FaultStore, readers: Readers, virtual_time: Callable[[], float]
) -> None:
    waiting = spawn(readers.room(50), "room")
    await store.logs.commit_position("run", "alive", 0)
    end = virtual_time() + 5 * limits.READER_LEASE
    while virtual_time() < end:
        await asyncio.sleep(limits.READER_LEASE / 2)
        await store.logs.commit_position("run", "alive", 0)
    assert not waiting.done()
    await store.logs.commit_position("run", "alive", 41)
    await waiting


async def test_an_outage_is_waited_out(store: FaultStore, readers: Readers) -> None:
    store.refuse("positions", times=5)
    await readers.room(0)
    assert store.calls["positions"] == 6


async def test_a_mark_that_comes_during_the_look_is_not_missed(store: FaultStore, readers: Readers) -> None:
    await store.logs.commit_position("run", "r", 0)
    held = store.hold("positions")
    waiting = spawn(readers.room(10), "room")
    await held.arrived.wait()
    await store.logs.commit_position("run", "r", 0)
    held.let_go()
    await turns()
    assert not waiting.done()
    await store.logs.commit_position("run", "r", 1)
    await waiting
