"""How long ended runs are kept, and what lists know of those that are gone."""

from __future__ import annotations

import pytest

from loom.model.errors import LogNotFound
from loom.model.run import Meta
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from loom.testing.author import Author
from tests.servers.fixtures import own
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


async def ended(store: RedisStore, run: str = "run") -> None:
    """As a worker ends one: claimed, ended, acknowledged."""
    await store.put(Meta(run=run, actor="actor"))
    claim = await store.claim(["default"], "w1", lease=10.0, wait=0.0)
    assert claim is not None
    await (await Author.start(store, run)).say("data", "complete")
    await store.ack(claim)


async def test_an_ended_run_expires_when_it_was_acknowledged(valkey: Server) -> None:
    """All of its keys; one that is open, or that its worker has not acknowledged, does not."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url), retention=100.0) as store:
        await store.create(Meta(run="open", actor="actor"))
        await (await Author.start(store, "unsettled")).say("complete")
        await ended(store)
        assert raw.ttl(keys.of("open")[0]) == -1
        assert raw.ttl(keys.of("unsettled")[0]) > 86400
        left = [raw.ttl(key) for key in keys.of("run") if raw.exists(key)]
        assert len(left) >= 3
        assert all(90 <= each <= 100 for each in left)


async def test_a_run_that_has_expired_is_not_found_nor_listed(valkey: Server) -> None:
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url)) as store:
        await ended(store)
        await store.create(Meta(run="other", actor="actor"))
        for key in keys.of("run"):
            raw.delete(key)  # as its time does it
        with pytest.raises(LogNotFound):
            await store.head("run")
        with pytest.raises(LogNotFound):
            await store.heads(before="run")
        assert [head.meta.run for head in await store.heads()] == ["other"]
        assert sum([(await store.sweep()).dropped for _ in range(2)]) == 1
        assert raw.zrange(keys.runs, 0, -1) == ["other"]


async def test_a_run_may_be_kept_for_ever(valkey: Server) -> None:
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url), retention=None) as store:
        await ended(store)
        assert all(raw.ttl(key) == -1 for key in keys.of("run") if raw.exists(key))
        await store.drop("run")


async def test_one_process_sweeps_for_all(valkey: Server) -> None:
    """Until it is gone."""
    url = own(valkey.url())
    async with RedisStore(parse_url(url)) as store, RedisStore(parse_url(url)) as other:
        await store.sweep()
        await store.create(Meta(run="run", actor="actor"))
        assert (await other.sweep()).requeued == 0
        assert (await store.sweep()).requeued == 1
        valkey.client().delete(Keys(parse_url(url).prefix).sweeper)
        await store.create(Meta(run="another", actor="actor"))
        assert (await other.sweep()).requeued == 1
