"""Claiming from a file: what one store object has seen, and what becomes of a claim that nobody was told of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loom.model.errors import HandleClosed
from loom.model.run import Claim, Meta
from loom.stores.sqlite import SqliteStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.clock import ManualClock
from loom.testing.conformance.kit import stand_still

pytestmark = pytest.mark.anyio

LEASE = 10.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runs.db", clock=clock) as store:
        yield store


async def put(store: SqliteStore, *runs: str) -> None:
    for run in runs:
        await store.queue.put(Meta(run=run, actor="actor"))


async def claim(store: SqliteStore, worker: str, wait: float = 0.0) -> Claim | None:
    return await store.queue.claim(["default"], worker, lease=LEASE, wait=wait)


async def lose(store: SqliteStore, worker: str) -> None:
    """Claim, and be cancelled when the claim is on its way."""
    claiming = spawn(claim(store, worker), "claim")
    await asyncio.sleep(0)
    await cancel_and_wait(claiming)


async def test_a_claim_that_nobody_was_told_of_is_the_same_workers(store: SqliteStore) -> None:
    """Each of several, once."""
    await put(store, "run-1", "run-2", "run-3")
    await lose(store, "w1")
    await lose(store, "w1")
    claims = [await claim(store, worker) for worker in ("w2", "w1", "w1", "w1")]
    assert [each and (each.run, each.worker) for each in claims] == [
        ("run-3", "w2"),
        ("run-1", "w1"),
        ("run-2", "w1"),
        None,
    ]


async def test_a_claim_that_nobody_was_told_of_is_the_same_workers_whatever_it_leaves_out(store: SqliteStore) -> None:
    """A worker breaks a claim off when an actor has become full. It hands the run over at once; else that would stand
    still for a lease, and count as a crash."""
    await put(store, "run")
    await lose(store, "w1")
    again = await store.queue.claim(["default"], "w1", lease=LEASE, wait=0.0, exclude=["actor"])
    assert again is not None
    await store.queue.release(again)
    other = await claim(store, "w2")
    assert other is not None
    assert other.crashes == 0


async def test_a_claim_that_nobody_was_told_of_lapses(store: SqliteStore, clock: ManualClock) -> None:
    """If its worker does not ask again: then the store does not insist on it either."""
    await put(store, "run")
    await lose(store, "w1")
    assert await claim(store, "w2") is None
    await stand_still(store.queue, clock, LEASE * 1.1)
    heir = await claim(store, "w2")
    assert heir is not None
    assert heir.crashes == 1
    assert await claim(store, "w1") is None
    await store.queue.renew(heir)


async def test_a_worker_without_room_knows_who_lapsed_when_it_has_some(store: SqliteStore, clock: ManualClock) -> None:
    """It claims nothing meanwhile, but it renews."""
    await put(store, "run-1", "run-2")
    lost, kept = await claim(store, "w1"), await claim(store, "w2")
    assert lost is not None
    assert kept is not None
    for _ in range(5):
        await store.queue.renew(kept)
        clock.advance(LEASE / 3)
    heir = await claim(store, "w2")
    assert heir is not None
    assert heir.run == lost.run
    await store.queue.renew(kept)


async def test_a_claim_that_nobody_was_told_of_is_given_back_when_the_store_closes(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "runs.db") as store:
        await put(store, "run")
        await lose(store, "w1")
        assert await claim(store, "w2") is None
    async with SqliteStore(tmp_path / "runs.db") as store:
        given = await claim(store, "w2")
        assert given is not None
        assert given.crashes == 0


async def test_a_waiting_claim_is_told_when_the_store_closes(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "runs.db") as store:
        waiting = spawn(claim(store, "w1", wait=60.0), "claim")
        await claim(store, "w2")
    with pytest.raises(HandleClosed):
        await waiting


async def test_a_lapsed_claim_on_another_queue_does_not_keep_a_waiting_one_awake(
    store: SqliteStore, clock: ManualClock
) -> None:
    """It may not have it, so that looking again at once would be for ever."""
    await put(store, "run")
    assert await claim(store, "w1") is not None
    assert await claim(store, "w2") is None
    await stand_still(store.queue, clock, LEASE * 2)
    began = time.thread_time()
    assert await store.queue.claim(["another"], "w2", lease=LEASE, wait=0.3) is None
    assert time.thread_time() - began < 0.1


async def test_a_delay_ends_when_it_is_over(tmp_path: Path) -> None:
    """In real time, while somebody waits."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        await put(store, "run")
        held = await claim(store, "w1")
        assert held is not None
        await store.queue.release(held, delay=0.1)
        began = time.monotonic()
        taken = await claim(store, "w2", wait=10.0)
        assert taken is not None
        assert 0.05 < time.monotonic() - began < 5.0
        assert (taken.crashes, taken.worker) == (0, "w2")
