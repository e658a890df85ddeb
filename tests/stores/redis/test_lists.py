"""Lists of runs, where they and the runs that they name come apart."""

from __future__ import annotations

import pytest

from loom.model.chunk import Chunk
from loom.model.errors import LimitExceeded, Unavailable, UsageError
from loom.model.ports import LogSpec, ProducerSeq
from loom.model.run import Head, Meta, RunFilter, RunState
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from loom.testing.author import Author
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


async def names(store: RedisStore, *, state: RunState | None = None, label: str | None = None) -> list[str]:
    filter = RunFilter(state=state, labels={} if label is None else {"user": label})
    return [head.meta.run for head in await store.runs.list_runs(filter)]


async def expire(store: RedisStore, valkey: Server, url: str, run: str) -> None:
    """What the server does when a run's time is over; the lists learn of it by a sweep."""
    with valkey.client() as client:
        client.delete(*Keys(parse_url(url).prefix).of_run(run))


async def test_a_run_under_the_id_of_one_that_has_expired_is_listed_as_itself(
    store: RedisStore, valkey: Server, url: str
) -> None:
    old, new = (Meta(run="run", actor="actor", labels={"user": user}) for user in ("old", "new"))
    await store.runs.create(old)
    author = await Author.take(store.logs, "run")
    await author.send(author.batch(Chunk("complete")), end=True)
    await store.queue.put(old)
    claim = await store.queue.claim(["default"], "worker", lease=10.0, wait=0.0)
    assert claim is not None
    await store.queue.ack(claim)
    assert await names(store, state="completed", label="old") == ["run"]
    await expire(store, valkey, url, "run")
    await store.runs.create(new)
    assert await names(store, label="new") == ["run"]
    assert await names(store, label="old") == []
    assert await names(store, state="queued") == ["run"]
    assert await names(store, state="completed") == []
    assert (await store.sweep()).requeued == 1, "it is open, and no queue holds it"


async def test_a_run_is_in_no_list_of_one_that_had_its_id(
    store: RedisStore, valkey: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its creator has died before it listed the run again: then lists lack it, but none shows it in another's place."""

    async def die(head: Head) -> None: ...

    monkeypatch.setattr(store.runs._lists, "add_again", die)
    await store.runs.create(Meta(run="run", actor="actor", labels={"user": "old"}, parent="parent"))
    await expire(store, valkey, url, "run")
    await store.runs.create(Meta(run="run", actor="another", labels={"user": "new"}))
    for filter in (RunFilter(labels={"user": "old"}), RunFilter(actor="actor"), RunFilter(parent="parent")):
        assert await store.runs.list_runs(filter) == []
    assert await names(store) == ["run"]


async def test_a_start_that_is_refused_changes_no_list(store: RedisStore) -> None:
    """The id is taken: its caller compares the head with what it asked for."""
    await store.runs.create(Meta(run="run", actor="actor", labels={"user": "mine"}))
    head = await store.runs.create(Meta(run="run", actor="other", labels={"user": "theirs"}))
    assert head.meta.actor == "actor"
    assert await names(store, label="mine") == ["run"]
    assert await names(store, label="theirs") == []


async def test_a_state_that_could_not_be_listed_is_listed_by_the_next_sweep(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = Meta(run="run", actor="actor")
    await store.queue.put(meta)
    await store.runs.create(meta)
    servers = store._servers
    call = servers.call

    async def failing(function: str, *args: object) -> object:
        if function == "list_state":
            raise Unavailable("by test")
        return await call(function, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(servers, "call", failing)
        await store.logs.fence("run", "token")
    assert await names(store, state="running") == []
    await store.sweep()
    assert await names(store, state="running") == ["run"]


async def test_a_full_log_of_opaque_records_says_how_full_it_is(store: RedisStore) -> None:
    spec = LogSpec(policy="many", content_type="application/octet-stream", max_bytes=5)
    await store.logs.create("log", spec)
    await store.logs.send("log", b"12345", ProducerSeq("p"))
    with pytest.raises(LimitExceeded, match="no room for 1 bytes: it holds 5 of 5"):
        await store.logs.send("log", b"6", ProducerSeq("q"))


@pytest.mark.parametrize("found", [1, 3])
async def test_keys_of_another_format_are_refused(valkey: Server, url: str, found: int) -> None:
    keys = Keys(parse_url(url).prefix)
    with valkey.client() as client:
        client.zadd(keys.runs, {"run": 1})
        if found > 1:  # before there were numbers, none was written
            client.set(keys.lists[4], found)
    with pytest.raises(
        UsageError, match=rf"have format {found}, .* reads format 2: use another prefix \(\?prefix=NAME\)"
    ):
        await RedisStore(parse_url(url)).__aenter__()
