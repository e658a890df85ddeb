"""How watchers hear of changes: by notices, by reading what a notice leaves out, and by looking when none came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loom.engine.follow.hub import Hub
from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.ports import Notice
from loom.model.run import inbox_of
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from loom.testing.author import Author, read_all
from loom.testing.conformance.kit import Told
from tests.servers.server import Server
from tests.waits import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(url: str) -> AsyncIterator[RedisStore]:
    """In another process, as far as the server knows."""
    async with RedisStore(parse_url(url)) as other:
        yield other


def batches(notices: list[Notice]) -> list[Batch]:
    return [notice.batch for notice in notices if notice.batch is not None]


async def test_a_notice_carries_the_batch(store: RedisStore, other: RedisStore) -> None:
    author = await Author.start(store)
    told = Told(other.logs, "run")
    await told.next()  # that it is watched from now on
    batch = author.batch("data", "data")
    await author.send(batch)
    assert batches(await told.next()) == [batch]
    await author.say("complete")
    assert (await told.next())[-1].ended
    told.unwatch()


async def test_a_long_batch_is_read(store: RedisStore, other: RedisStore) -> None:
    """Above 8 kB a notice names it only: Valkey's bound on what waits for a subscriber does not see longer ones."""
    author = await Author.start(store)
    told = Told(other.logs, "run")
    await told.next()
    hub = Hub(other)
    viewer = hub.follow("run")
    assert (await anext(viewer)).cursor is not None
    large = author.batch(Chunk("data", "x" * 8192))
    await author.send(large)
    assert batches(await told.next()) == []
    assert (await anext(viewer)).batches == (large,)
    small = author.batch("data")
    await author.send(small)
    assert (await anext(viewer)).batches == (small,)
    told.unwatch()
    await viewer.aclose()
    await hub.aclose()


async def test_what_no_notice_told_of_is_found(
    url: str, store: RedisStore, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow look covers silence: of outboxes, inboxes, marks, ends and drops."""
    monkeypatch.setattr(limits, "REDIS_LOOK", 0.1)
    keys = Keys(parse_url(url).prefix)
    head, out = keys.of_log("run")[:2]
    inbox_head, inbox = keys.of_log("run/in")[:2]
    author = await Author.start(store)
    raw = valkey.client(decode_responses=False)
    async with RedisStore(parse_url(url)) as watching:
        told, heard = Told(watching.logs, "run"), Told(watching.logs, inbox_of("run"))
        await told.next()
        await heard.next()
        before = await read_all(watching.logs, "run")
        # What `append` does, but for the notice.
        raw.xadd(out, {"f": "2", "b": "0", "p": b'{"type":"data"}\n'}, id=f"{author.epoch}-2")
        raw.hset(head, "tail", 2)
        while len(await read_all(watching.logs, "run")) == len(before):
            await told.next()
        raw.xadd(inbox, {"f": "1", "b": "0", "p": b'{"type":"x"}\n'}, id=f"{raw.hget(inbox_head, 'epoch').decode()}-1")  # type: ignore[union-attr]
        raw.hset(inbox_head, "tail", 1)
        while not (await watching.logs.read(inbox_of("run"))).batches:
            await heard.next()
        raw.hincrby(head, "marked", 1)
        await told.next(marks=True)
        raw.delete(*keys.of_run("run"))
        await told.next()
        told.unwatch()
        heard.unwatch()


async def test_a_subscription_that_was_lost_is_made_anew(store: RedisStore, other: RedisStore, valkey: Server) -> None:
    """And everybody is told to look, for nobody knows what was said meanwhile; then notices carry batches again."""
    author = await Author.start(store)
    told = Told(other.logs, "run")
    await told.next()
    for _ in range(3):
        valkey.ask("CLIENT", "KILL", "TYPE", "PUBSUB")
        assert Notice() in await told.next()
        batch = author.batch("data")
        await author.send(batch)
        while batch not in batches(await told.next()):
            pass
    told.unwatch()


async def test_one_connection_for_any_number_of_logs(store: RedisStore, valkey: Server) -> None:
    """And one for commands: the number does not grow with viewers or runs."""
    hub = Hub(store)
    viewers = []
    for number in range(200):
        await (await Author.start(store, f"run-{number}")).say("data")
        for _ in range(3):
            viewers.append(hub.follow(f"run-{number}"))
    await asyncio.gather(*(anext(viewer) for viewer in viewers))
    raw = valkey.client()

    def listening() -> list[int]:
        """The connections that are subscribed to much, by how many channels."""
        ours = (int(line["ssub"]) for line in raw.client_list() if line["name"] == "loom")
        return [channels for channels in ours if channels > 10]

    await until(lambda: sum(listening()) >= 200)  # the server is asked behind the viewers' first pages
    assert len(listening()) == 1
    for viewer in viewers:
        await viewer.aclose()
    await hub.aclose()


async def test_who_leaves_is_not_told_any_more(store: RedisStore, other: RedisStore, valkey: Server) -> None:
    """Nor does the server send it; who comes back at once misses nothing."""
    author = await Author.start(store)
    for _ in range(5):
        told = Told(other.logs, "run")
        await told.next()
        told.unwatch()
        again = Told(other.logs, "run")
        await again.next()
        batch = author.batch("data")
        await author.send(batch)
        assert batches(await again.next()) == [batch]
        again.unwatch()
        again.unwatch()
    assert told.notices == []
