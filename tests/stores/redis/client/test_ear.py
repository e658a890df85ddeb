"""One subscription by itself: it tells what it hears, comes again when it is lost, and knows when it hears nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from loom.model import limits
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.client.ear import Ear
from loom.stores.redis.client.servers import Servers
from loom.tasks import TaskSet
from loom.testing.author import Author, read_all
from loom.testing.conformance.kit import Told
from tests.faults.proxy import proxy_before
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


def name() -> str:
    return f"ear:{uuid.uuid4().hex}"


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    def subscribed(self, channel: str) -> None:
        self.events.put_nowait(("subscribed", channel))

    def published(self, channel: str, text: bytes) -> None:
        self.events.put_nowait(("published", channel, text.decode()))

    async def sort_anew(self) -> None:
        self.events.put_nowait(("sort anew",))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def ear(valkey: Server, heard: Heard) -> AsyncIterator[Ear]:
    servers = Servers(parse_url(valkey.url()))
    await servers.open()
    ear = Ear(servers, None, heard, "spare")
    async with TaskSet() as tasks:
        tasks.spawn(ear.listen(), "ear")
        yield ear
    ear.close()
    await servers.aclose()


async def test_it_tells_what_is_said_once_it_is_subscribed(ear: Ear, heard: Heard, valkey: Server) -> None:
    channel = name()
    assert ear.hears, "there is nothing to hear"
    ear.add(channel)
    ear.add(channel)
    assert not ear.hears
    assert await heard.events.get() == ("subscribed", channel)
    assert ear.hears
    valkey.ask("SPUBLISH", channel, "hello")
    assert await heard.events.get() == ("published", channel, "hello")


async def test_who_comes_back_at_once_misses_nothing(ear: Ear, heard: Heard, valkey: Server) -> None:
    """Its leaving and its coming are confirmed in turn: the first is not taken for a slot that has moved."""
    channel = name()
    ear.add(channel)
    await heard.events.get()
    ear.remove(channel)
    ear.add(channel)
    assert await heard.events.get() == ("subscribed", channel)
    valkey.ask("SPUBLISH", channel, "hello")
    assert await heard.events.get() == ("published", channel, "hello")


async def test_others_instead_are_subscribed_to(ear: Ear, heard: Heard, valkey: Server) -> None:
    one, two, three = name(), name(), name()
    ear.change({one, two})
    assert {await heard.events.get(), await heard.events.get()} == {("subscribed", one), ("subscribed", two)}
    ear.change({two, three})
    assert await heard.events.get() == ("subscribed", three)
    valkey.ask("SPUBLISH", one, "not heard")
    valkey.ask("SPUBLISH", two, "heard")
    assert await heard.events.get() == ("published", two, "heard")


async def test_a_lost_connection_is_made_anew_after_its_hearer_was_asked(ear: Ear, heard: Heard) -> None:
    channel = name()
    ear.add(channel)
    await heard.events.get()
    ear.close()
    assert not ear.hears
    assert await heard.events.get() == ("sort anew",)
    assert await heard.events.get() == ("subscribed", channel)
    assert ear.hears


async def test_what_it_calls_out_it_hears_and_does_not_tell(ear: Ear, heard: Heard, valkey: Server) -> None:
    channel = name()
    ear.add(channel)
    await heard.events.get()
    for _ in range(3):
        await ear.call_out()
        valkey.ask("SPUBLISH", channel, "after it")
        assert await heard.events.get() == ("published", channel, "after it")
        assert ear.hears


async def test_a_connection_that_hears_nothing_is_given_up(
    url: str, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its echo, however many logs it is for; everybody is told to look then."""
    monkeypatch.setattr(limits, "REDIS_ECHO", 0.02)
    async with proxy_before(url) as proxy, RedisStore(parse_url(proxy.url)) as watching:
        author = await Author.start(store)
        told = Told(watching.logs, "run")
        await told.next()
        await watching.runs.get("run")
        made = proxy.made
        proxy.swallow()  # the connection for commands as well: that one is given up for its silence
        await author.say("data")
        monkeypatch.setattr(limits, "REDIS_SILENCE", 0.1)
        await proxy.until_made(made + 1)
        while len(await read_all(store.logs, "run")) == 1:
            await told.next()
        told.unwatch()
        assert proxy.hits > 0
