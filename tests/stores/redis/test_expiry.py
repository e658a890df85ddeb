"""How long ended runs are kept, and what lists know of those that are gone."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model import limits
from loom.model.errors import LogNotFound
from loom.model.names import PUBLISHED
from loom.model.run import Meta
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from loom.testing.author import Author
from tests.servers.fixtures import own
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


async def ended(store: RedisStore, run: str = "run", retention: float | None = None) -> None:
    """As a worker ends one: claimed, ended, acknowledged."""
    await store.queue.put(Meta(run=run, actor="actor", retention=retention))
    claim = await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0)
    assert claim is not None
    await (await Author.start(store, run, retention=retention)).say("data", "complete")
    await store.queue.ack(claim)


async def test_an_ended_run_expires_when_it_was_acknowledged(valkey: Server) -> None:
    """All of its keys; one that is open, or that its worker has not acknowledged, does not."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url), retention=100.0) as store:
        await store.runs.create(Meta(run="open", actor="actor"))
        await (await Author.start(store, "unsettled")).say("complete")
        await ended(store)
        assert raw.ttl(keys.of_log("open")[0]) == -1
        assert raw.ttl(keys.of_log("unsettled")[0]) > 86400
        left = [raw.ttl(key) for key in keys.of_run("run") if raw.exists(key)]
        assert len(left) >= 3
        assert all(90 <= each <= 100 for each in left)


async def test_a_run_that_has_expired_is_not_found_nor_listed(valkey: Server) -> None:
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url)) as store:
        await ended(store)
        await store.runs.create(Meta(run="other", actor="actor"))
        for key in keys.of_run("run"):
            raw.delete(key)  # as its time does it
        with pytest.raises(LogNotFound):
            await store.runs.get("run")
        with pytest.raises(LogNotFound):
            await store.runs.list_runs(before="run")
        assert [head.meta.run for head in await store.runs.list_runs()] == ["other"]
        assert sum([(await store.sweep()).dropped for _ in range(2)]) == 1
        assert raw.zrange(keys.runs, 0, -1) == ["other"]


async def test_a_run_may_be_kept_for_ever(valkey: Server) -> None:
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url), retention=None) as store:
        await ended(store)
        assert all(raw.ttl(key) == -1 for key in keys.of_run("run") if raw.exists(key))
        await store.runs.drop("run")


@pytest.mark.parametrize("default", [None, 100.0])
async def test_a_runs_own_retention_comes_first(valkey: Server, default: float | None) -> None:
    """Also before a store's that keeps all; 0 is as long as readers need, and what is absurdly long is kept long."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url), retention=default) as store:
        for run, retention in (("day", 86400.0), ("never", 1e300), ("none", 0.0)):
            await ended(store, run, retention)
        assert 86390 <= raw.ttl(keys.of_log("day")[0]) <= 86400
        assert raw.ttl(keys.of_log("never")[0]) > 1e12
        left = [raw.ttl(key) for key in keys.of_run("none") if raw.exists(key)]
        assert len(left) >= 3
        assert all(limits.LEAST_RETENTION - 10 <= each <= limits.LEAST_RETENTION for each in left)


async def test_the_size_of_a_log_that_is_trimmed_by_many_batches(valkey: Server) -> None:
    """It stays what the kept batches hold, whatever of the others is still to be cleared away."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url)) as store:
        author = await Author.start(store)
        for _ in range(99):
            await author.say("data")
        for before in (2, 18, 50, 50, 1000):
            await store.logs.trim("run", before)
            first = raw.hget(keys.of_log("run")[0], "first")
            there: list[Any] = raw.xrange(keys.of_log("run")[1]) or []
            kept = [entry for entry in there if int(entry[1]["f"]) >= int(first or 0)]
            assert len(kept) == max(101 - before, 1)
            assert (await store.logs.fence("run", "token")).size == sum(len(fields["p"]) for _, fields in kept)


async def test_nothing_stays_of_who_claimed_once(valkey: Server) -> None:
    """Neither of a worker that acknowledged, nor of a publisher: processes come and go."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url)) as store:
        await ended(store)
        await store.queue.ack(
            await store.queue.force_claim(Meta(run="job", actor="actor", queue=PUBLISHED), "p1", lease=10.0)
        )
        counters, *rest = keys.queues
        assert raw.exists(counters) == 1
        assert [key for key in rest if raw.exists(key)] == []


async def test_one_process_sweeps_for_all(valkey: Server) -> None:
    """Until it is gone."""
    url = own(valkey.url())
    async with RedisStore(parse_url(url)) as store, RedisStore(parse_url(url)) as other:
        await store.sweep()
        await store.runs.create(Meta(run="run", actor="actor"))
        assert (await other.sweep()).requeued == 0
        assert (await store.sweep()).requeued == 1
        valkey.client().delete(Keys(parse_url(url).prefix).sweeper)
        await store.runs.create(Meta(run="another", actor="actor"))
        assert (await other.sweep()).requeued == 1


async def test_any_number_of_expired_runs_leaves_the_lists(valkey: Server) -> None:
    """Thousands of the oldest in one sweep, some of the others: each is looked for in two sweeps."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url)) as store:
        for run in ("first", "last"):
            await store.runs.create(Meta(run=run, actor="actor"))
        raw.zadd(keys.runs, {"first": 2.0, "last": 9000.0, **{f"gone-{number}": number for number in range(3, 2600)}})
        assert (await store.sweep()).dropped == 0
        assert (await store.sweep()).dropped == 2597
        assert raw.zrange(keys.runs, 0, -1) == ["first", "last"]
