"""What others have written, cut or evicted in the server: told by the run that it belongs to, it stops no other."""

from __future__ import annotations

import pytest

import loom
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.errors import Damaged, LogNotFound
from loom.model.ports import Notice, message_producer
from loom.model.run import Claim, Meta, WorkerInfo, inbox_of
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from loom.testing.author import Author, read_all
from loom.testing.conformance.kit import Told
from tests.servers.fixtures import own
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio

ENTRIES, METAS, TOLD = 1, 2, 11
"""Of the queue's keys, by their places."""


@pytest.fixture
def keys(url: str) -> Keys:
    return Keys(parse_url(url).prefix)


async def start(store: RedisStore, *runs: str, key: str | None = None) -> None:
    for run in runs:
        await store.queue.put(Meta(run=run, actor="actor", key=key))
        await store.runs.create(Meta(run=run, actor="actor", key=key))


async def claim(store: RedisStore, *, without: tuple[str, ...] = ()) -> Claim | None:
    return await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0, exclude=without)


async def claimed(store: RedisStore) -> list[str]:
    """All that there is to claim, each ended and acknowledged before the next."""
    runs = []
    while (found := await claim(store)) is not None:
        runs.append(found.run)
        await end(store, found)
    return runs


async def end(store: RedisStore, claim: Claim) -> None:
    await (await Author.take(store.logs, claim.run)).say("start", "complete")
    await store.queue.ack(claim)


@pytest.mark.parametrize("what", ["missing", b"\xc1 no msgpack", b"\x01", b"\x80"])
@pytest.mark.parametrize("without", [(), ("other",)])
async def test_an_entry_that_cannot_be_read_stops_no_claim(
    store: RedisStore, keys: Keys, valkey: Server, what: str | bytes, without: tuple[str, ...]
) -> None:
    """It is let go, and a sweep puts its run back, for the log is the truth."""
    await start(store, "run-1", "run-2")
    if isinstance(what, bytes):
        valkey.client().hset(keys.queues[ENTRIES], "run-1", what)
    else:
        valkey.client().hdel(keys.queues[ENTRIES], "run-1")
    found = await claim(store, without=without)
    assert found is not None
    assert found.run == "run-2"
    await end(store, found)
    assert await store.queue.list_entries() == []
    assert (await store.sweep()).requeued == 1
    assert await claimed(store) == ["run-1"]


async def test_an_entry_that_cannot_be_read_holds_up_no_line(store: RedisStore, keys: Keys, valkey: Server) -> None:
    """Neither while it waits nor while it is held: the others of its key go on, one at a time."""
    await start(store, "run-1", "run-2", "run-3", key="key")
    valkey.client().hdel(keys.queues[ENTRIES], "run-1")
    assert await claimed(store) == ["run-2", "run-3"]
    await store.sweep()
    assert await claimed(store) == ["run-1"]
    assert valkey.client().zcard(keys.queues[6]) == 0


async def test_a_line_goes_on_behind_one_that_is_held_and_cannot_be_read(
    url: str, store: RedisStore, keys: Keys, valkey: Server
) -> None:
    now = 0.0
    async with RedisStore(parse_url(url), clock=lambda: now) as other:
        await start(store, "run-1", "run-2", key="key")
        assert await other.queue.claim(["default"], "w1", lease=1.0, wait=0.0) is not None
        valkey.client().hset(keys.queues[ENTRIES], "run-1", "junk")
        runs = []
        for _ in range(10):
            now += 0.4
            found = await other.queue.claim(["default"], "w2", lease=1.0, wait=0.0)
            if found is not None:
                runs.append(found.run)
                await other.queue.ack(found)
        assert runs == ["run-2"]


@pytest.mark.parametrize("what", ["missing", b'{"ru'])
async def test_a_start_that_cannot_be_read_stops_no_claim(
    store: RedisStore, keys: Keys, valkey: Server, caplog: pytest.LogCaptureFixture, what: str | bytes
) -> None:
    """Told in the log; a sweep puts the run back from its own keys. The list of the queue shows it all the same."""
    await start(store, "run-1", "run-2")
    if isinstance(what, bytes):
        valkey.client().hset(keys.queues[METAS], "run-1", what)
    else:
        valkey.client().hdel(keys.queues[METAS], "run-1")
    assert [(entry.run, entry.actor) for entry in await store.queue.list_entries()] == [
        ("run-1", "actor"),
        ("run-2", "actor"),
    ]
    assert await claimed(store) == ["run-2"]
    assert "'run-1': what is stored of its start is damaged" in caplog.text
    assert (await store.sweep()).requeued == 1
    assert await claimed(store) == ["run-1"]


async def test_what_a_worker_was_told_and_said_last_may_be_damaged(
    store: RedisStore, keys: Keys, valkey: Server
) -> None:
    await start(store, "run-1")
    valkey.client().hset(keys.queues[TOLD], "w1", "junk")
    for name in ("w1", "w2"):
        await store.workers.register(WorkerInfo(name=name, started=1.0))
    valkey.client().hset(keys.register[0], "w1", "junk")
    assert [info.name for info in await store.workers.list_workers()] == ["w2"]
    await store.workers.register(WorkerInfo(name="w1", started=1.0))
    assert [info.name for info in await store.workers.list_workers()] == ["w1", "w2"]
    assert await claimed(store) == ["run-1"]


@pytest.mark.parametrize("damage", ["meta", "type"])
async def test_a_damaged_head_stops_neither_sweeps_nor_lists(
    store: RedisStore, keys: Keys, valkey: Server, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    for run in ("run-1", "run-2", "run-3"):
        await store.runs.create(Meta(run=run, actor="actor"))
    head, raw = keys.record("run-2"), valkey.client()
    if damage == "meta":
        raw.hset(head, "meta", '{"ru')
    else:
        raw.delete(head)
        raw.set(head, "text")
    assert (await store.sweep()).requeued == 2
    assert "not put back: run run-2" in caplog.text
    assert [one.meta.run for one in await store.runs.list_runs()] == ["run-3", "run-1"]
    assert "left out of a list: run run-2" in caplog.text
    with pytest.raises(Damaged):
        await store.runs.get("run-2")


async def test_a_log_of_another_kind_is_damage(store: RedisStore, keys: Keys, valkey: Server) -> None:
    """Not an error after which the same is asked again, for ever."""
    author = await Author.start(store)
    head, out, *_ = keys.of_log("run")
    raw = valkey.client()
    raw.hset(head, "tail", "many")
    for call in (store.logs.read("run"), store.logs.fence("run", "other"), author.say("data")):
        with pytest.raises(Damaged):
            await call
    raw.hset(head, "tail", "1")
    raw.delete(out)
    raw.set(out, "text")
    for again in (store.logs.read("run"), store.logs.trim("run", 2), author.say("data")):
        with pytest.raises(Damaged):
            await again


async def test_what_a_server_has_evicted_of_a_log_is_told(store: RedisStore, keys: Keys, valkey: Server) -> None:
    """A server that is set to evict may take a log and leave its head: no gap is passed over, nobody reads in vain."""
    author = await Author.start(store)
    first = (await read_all(store.logs, "run"))[0][0]
    await author.say("data")
    await store.logs.send(inbox_of("run"), b"1", message_producer("s", "1"))
    valkey.client().delete(keys.of_log("run")[1], keys.of_log("run/in")[1])
    for after in (None, first):
        with pytest.raises(Damaged, match=f"chunk {1 if after is None else 2} is missing"):
            await store.logs.read("run", after)
    with pytest.raises(Damaged, match="chunk 1 is missing"):
        await store.logs.read(inbox_of("run"))
    cursor = await author.say("data")
    with pytest.raises(Damaged, match="chunk 2 is missing"):
        await store.logs.read("run", first)
    assert (await store.logs.read("run", cursor)).caught_up
    await author.say("complete")
    assert [line for _, line in await read_all(store.logs, "run", cursor)] != []


@pytest.mark.parametrize("payload", ["", '{"type":"data"}', '{"type":"data"}\n', '{"type":"data"}\n' * 3])
async def test_a_batch_of_more_or_fewer_lines_than_chunks_is_told(
    store: RedisStore, keys: Keys, valkey: Server, payload: str
) -> None:
    """Those behind it would be read under other numbers. As a notice it makes watchers look."""
    author = await Author.start(store)
    told = Told(store.logs, "run")
    await told.next()
    out, inbox = keys.of_log("run")[1], keys.of_log("run/in")[1]
    raw = valkey.client()
    raw.hset(keys.of_log("run")[0], "tail", "3")
    raw.xadd(out, {"f": "2", "b": "0", "p": payload}, id=f"{author.epoch}-3")
    with pytest.raises(Damaged):
        await read_all(store.logs, "run")
    valkey.ask("SPUBLISH", keys.channel("run"), f"{author.epoch} 2 3 0\n{payload}")
    assert {notice.batch for notice in await told.next()} == {None}
    inbox_head = keys.of_log("run/in")[0]
    raw.hset(inbox_head, "tail", "1")
    raw.xadd(inbox, {"f": "1", "b": "0", "p": payload * 2}, id=f"{raw.hget(inbox_head, 'epoch')!s}-1")
    with pytest.raises(Damaged):
        await store.logs.read(inbox_of("run"))
    told.unwatch()


async def test_strange_words_on_a_channel_make_watchers_look(store: RedisStore, keys: Keys, valkey: Server) -> None:
    """The connection stays."""
    author = await Author.start(store)
    told = Told(store.logs, "run")
    await told.next()
    for words in ("hello", "1 2 3 4 5", "a b c d\nline"):
        valkey.ask("SPUBLISH", keys.channel("run"), words)
        assert await told.next() == [Notice()]
    await author.say("data")
    assert [notice.batch is not None for notice in await told.next()] == [True]
    told.unwatch()


async def test_all_is_flushed_under_runs_and_workers(servers: Servers) -> None:
    """Told at once by whoever asks; with new runs it goes on, also when the functions are gone."""
    with servers.server("valkey") as server:
        async with RedisStore(parse_url(own(server.url()))) as store:
            author = await Author.start(store)
            for number in range(5):
                await store.queue.put(Meta(run=f"run-{number}", actor="actor"))
            assert await claim(store) is not None
            before = await read_all(store.logs, "run")
            told = Told(store.logs, "run")
            await told.next()
            server.ask("FLUSHALL")
            server.ask("FUNCTION", "FLUSH")
            for call in (author.say("data"), store.logs.read("run", before[-1][0]), store.runs.get("run")):
                with pytest.raises(LogNotFound):
                    await call
            assert Notice() in await told.next()  # by the writer that went on
            told.unwatch()
            await start(store, "new")
            found = await claim(store)
            assert found is not None
            assert found.run == "new"
            for _ in range(5):
                assert await claim(store) is None, "what is claimed anew has not lapsed"
            await store.queue.renew(found)


async def test_a_run_whose_log_or_inbox_is_damaged_is_ended(store: RedisStore, url: str, valkey: Server) -> None:
    app = loom.App()

    @app.actor
    async def work() -> None: ...

    keys = Keys(parse_url(url).prefix)
    for run in ("log", "inbox"):
        await store.queue.put(Meta(run=run, actor="work"))
        await store.runs.create(Meta(run=run, actor="work"))
        await store.logs.send(inbox_of(run), b'{"type":"word"}', message_producer("x", "1"))
        await (await Author.take(store.logs, run)).say("start")
    valkey.client().delete(keys.of_log("log")[1], keys.of_log("inbox/in")[1])
    async with Worker(store, app.registry, lease=limits.LEAST_LEASE, drain=0), loom.connect(url) as client:
        for run in ("log", "inbox"):
            head = await client.run(run).wait(timeout=10)
            assert head.error is not None
            assert (head.state, head.error.code) == ("failed", "damaged")
