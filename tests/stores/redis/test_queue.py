"""The queue when there is much of everything: what a call costs the server does not grow with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loom.model import limits
from loom.model.run import Claim, Meta, WorkerInfo
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(url: str, clock: Clock) -> AsyncIterator[RedisStore]:
    async with RedisStore(parse_url(url), clock=clock) as store:
        yield store


async def hold(store: RedisStore, count: int, worker: str, *, lease: float, queue: str = "default") -> None:
    metas = [Meta(run=f"{worker}-{number}", actor="actor", queue=queue) for number in range(count)]
    await asyncio.gather(*(store.queue.put(meta) for meta in metas))
    await asyncio.gather(*(store.queue.claim([queue], worker, lease=lease, wait=0.0) for _ in metas))


async def test_many_runs_of_a_dead_worker_are_each_taken_over_once(store: RedisStore, clock: Clock, url: str) -> None:
    """By several observers, as fast as they claim; those of other queues are none of theirs."""
    await hold(store, 200, "dead", lease=3.0)
    await hold(store, 100, "other", lease=3.0, queue="other")
    async with RedisStore(parse_url(url), clock=clock) as second:
        observers = [(store, "w1"), (second, "w2")] * 10
        taken: list[str] = []
        while clock.now < 4.0:
            while claims := [claim for claim in await _claims(observers) if claim is not None]:
                assert clock.now >= 3.0
                assert {claim.crashes for claim in claims} == {1}
                taken += [claim.run for claim in claims]
            clock.now += 0.25
        assert len(taken) == len(set(taken)) == 200
        others = await store.queue.list_entries(queue="other", limit=1000)
        assert [entry.worker for entry in others] == ["other"] * 100


async def _claims(observers: list[tuple[RedisStore, str]]) -> list[Claim | None]:
    return await asyncio.gather(
        *(observer.queue.claim(["default"], worker, lease=100.0, wait=0.0) for observer, worker in observers)
    )


async def test_an_observer_that_is_new_is_not_told_of_all_that_is_held(
    store: RedisStore, clock: Clock, url: str, valkey: Server
) -> None:
    """Nothing can have lapsed while it watched for less than a lease."""
    await hold(store, 300, "w1", lease=10.0)
    sent = _sent(valkey)
    for _ in range(10):
        assert await store.queue.claim(["default"], "w2", lease=10.0, wait=0.0) is None
        clock.now += 0.5
    assert _sent(valkey) - sent < 10_000


def _sent(server: Server) -> int:
    return int(server.client().info("stats")["total_net_output_bytes"])


async def test_a_list_asks_for_no_more_than_it_shows(store: RedisStore, valkey: Server) -> None:
    await asyncio.gather(*(store.queue.put(Meta(run=f"run-{number}", actor="actor")) for number in range(1200)))
    sent = _sent(valkey)
    assert len(await store.queue.list_entries(limit=3)) == 3
    assert _sent(valkey) - sent < 8000
    assert len(await store.queue.list_entries(limit=700)) == 700
    assert len({entry.run for entry in await store.queue.list_entries(limit=limits.LIST_LIMIT)}) == limits.LIST_LIMIT


async def test_a_worker_that_fell_silent_leaves_nothing(
    store: RedisStore, url: str, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what it was told last either: names are made anew with each process."""
    keys = Keys(parse_url(url).prefix)
    await hold(store, 1, "gone", lease=3.0)
    await store.workers.register(_info("gone"))
    assert valkey.client().hkeys(keys.queues[11]) == ["gone"]
    monkeypatch.setattr(limits, "WORKER_SEEN", 0.0)
    while valkey.client().zscore(keys.workers, "gone"):
        await store.workers.register(_info("w1"))
    assert valkey.client().hkeys(keys.queues[11]) == []


def _info(name: str) -> WorkerInfo:
    return WorkerInfo(name=name, host="host", pid=1, queues=("default",), concurrency=1, running=0, started=1.0)
