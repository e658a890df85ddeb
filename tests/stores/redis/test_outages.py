"""What is lost between here and the server: replies, connections, the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loom.engine.follow.hub import Hub
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import LoomError, StoreFull, Unavailable
from loom.model.ports import message_producer
from loom.model.run import Claim, Meta, inbox_of
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.client.functions import NAME
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.testing.conformance.kit import ENDED
from tests.faults.proxy import Proxy, proxy_before
from tests.servers.fixtures import own
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio

META = Meta(run="run", actor="actor")


@pytest.fixture
async def proxy(valkey: Server) -> AsyncIterator[Proxy]:
    async with proxy_before(own(valkey.url())) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[RedisStore]:
    async with RedisStore(parse_url(proxy.url)) as store:
        yield store


async def lost(proxy: Proxy, words: bytes, call: object) -> None:
    """The call reaches the server, its reply does not come back."""
    hits = proxy.hits
    proxy.lose_reply_to(words)
    with pytest.raises(Unavailable):
        await call  # type: ignore[misc]
    assert proxy.hits == hits + 1


async def test_an_append_whose_reply_was_lost_is_one_record(proxy: Proxy, store: RedisStore) -> None:
    """Also the last one, which ends the log; and what was sent a third time."""
    author = await Author.start(store)
    for end, chunk in ((False, Chunk("data", 1)), (True, Chunk("complete", 2))):
        batch = author.batch(chunk)
        await lost(proxy, b"_finish" if end else b"_append", store.logs.append("run", batch, ENDED if end else None))
        for _ in range(2):
            assert await store.logs.append("run", batch, ENDED if end else None) == batch.cursor
        author.tail = batch.last
    assert len(await read_all(store.logs, "run")) == 3
    assert (await store.runs.get("run")).state == "completed"


async def test_calls_whose_reply_was_lost_have_happened_once(proxy: Proxy, store: RedisStore) -> None:
    await lost(proxy, b"_create", store.runs.create(META))
    assert (await store.runs.create(META)).state == "queued"
    await lost(proxy, b"_put", store.queue.put(META))
    await store.queue.put(META)
    assert len(await store.queue.list_entries()) == 1
    await lost(proxy, b"_fence", store.logs.fence("run", "token"))
    fence = await store.logs.fence("run", "token")
    assert (await store.runs.get("run")).epochs == ((fence.epoch, 1),)
    await lost(proxy, b"_send", store.logs.send(inbox_of("run"), b"1", message_producer("s", "1")))
    assert (await store.logs.send(inbox_of("run"), b"1", message_producer("s", "1"))).seq == 1


async def test_a_claim_whose_reply_was_lost_is_given_again(proxy: Proxy, store: RedisStore) -> None:
    """To the same worker, the same claim: no lease has to pass, no crash is counted."""
    await store.queue.put(META)
    await lost(proxy, b"_claim", store.queue.claim(["default"], "w1", lease=10.0, wait=0.0))
    assert await store.queue.claim(["default"], "w2", lease=10.0, wait=0.0) is None
    claim = await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0)
    assert claim is not None
    assert (claim.run, claim.crashes) == ("run", 0)
    await store.queue.renew(claim)
    assert await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0) is None


async def test_claims_at_once_of_one_name_are_different(store: RedisStore) -> None:
    for number in range(20):
        await store.queue.put(Meta(run=f"run-{number}", actor="actor"))
    found = await asyncio.gather(*(store.queue.claim(["default"], "w1", lease=10.0, wait=0.0) for _ in range(20)))
    claims = [claim for claim in found if isinstance(claim, Claim)]
    assert len({claim.run for claim in claims}) == 20


@pytest.mark.parametrize("count", [0, 1, 10, 100, 200])
async def test_a_connection_cut_while_it_begins_is_told(proxy: Proxy, count: int) -> None:
    """Nothing of it stays behind: the next attempt is as the first."""
    proxy.cut_after = lambda: count
    with pytest.raises(Unavailable):
        async with RedisStore(parse_url(proxy.url)):
            pass
    proxy.cut_after = lambda: None
    async with RedisStore(parse_url(proxy.url)) as store:
        assert (await store.runs.create(META)).tail == 0


async def test_a_half_open_connection_is_given_up(
    proxy: Proxy, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that owes a reply and says nothing is not waited for."""
    monkeypatch.setattr(limits, "REDIS_SILENCE", 0.2)
    async with RedisStore(parse_url(proxy.url)) as hasty:
        await hasty.runs.create(META)
        proxy.swallow()
        with pytest.raises(Unavailable):
            await hasty.runs.get("run")
        assert (await hasty.runs.get("run")).state == "queued"


async def test_calls_of_one_turn_fail_together_and_go_on_together(proxy: Proxy, store: RedisStore) -> None:
    """Who asks while there is no connection shares the one attempt."""
    await store.runs.create(META)
    proxy.refuse = True
    proxy.cut()
    outcomes = await asyncio.gather(*(store.runs.get("run") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    made = proxy.made
    outcomes = await asyncio.gather(*(store.runs.get("run") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert proxy.made - made <= 3  # the calls' one, and perhaps the notices'
    proxy.refuse = False
    assert len(await asyncio.gather(*(store.runs.get("run") for _ in range(50)))) == 50


async def test_a_viewer_goes_on_over_cuts(proxy: Proxy, store: RedisStore) -> None:
    """Whichever connections are cut: nothing twice, nothing left out."""
    author = await Author.start(store)
    hub = Hub(store)
    seen: list[int] = []

    async def follow() -> None:
        async for page in hub.follow("run"):
            seen.extend(cursor.seq for cursor, _ in page.lines())

    following = spawn(follow(), "follow")
    for number in range(30):
        batch = author.batch(Chunk("complete") if number == 29 else Chunk("data", number))
        while True:
            try:
                await store.logs.append("run", batch, ENDED if number == 29 else None)
            except Unavailable:
                continue
            break
        author.tail = batch.last
        if number % 5 == 2:
            proxy.cut()
        await asyncio.sleep(0)
    await asyncio.wait_for(following, 20)
    await hub.aclose()
    assert seen == list(range(1, 32))
    assert proxy.hits > 0


async def test_a_server_that_restarts_has_everything(servers: Servers) -> None:
    """With appendonly and appendfsync always: killed in the midst of writing. The store says that it gives `disk`."""
    with servers.durable() as server:
        async with RedisStore(parse_url(own(server.url()))) as store:
            assert store.durability == "disk"
            author = await Author.start(store)
            for number in range(50):
                await author.say(Chunk("data", number))
                if number % 20 == 10:
                    server.restart(kill=True)
                    await until_back(store)
            assert len(await read_all(store.logs, "run")) == 51


async def until_back(store: RedisStore) -> None:
    while True:
        try:
            await store.runs.list_runs()
        except Unavailable:
            await asyncio.sleep(0)
        else:
            return


async def test_a_full_server_says_so_and_goes_on(servers: Servers) -> None:
    """With maxmemory and noeviction: what is refused has not happened, what is there stays whole, and room is made."""
    with servers.small(memory="4mb") as server:
        async with RedisStore(parse_url(own(server.url()))) as store:
            await store.runs.create(Meta(run="other", actor="actor"))
            author = await Author.start(store)
            large = Chunk("data", "x" * 100_000)

            async def fill() -> None:
                while True:
                    await author.say(large)

            with pytest.raises(StoreFull):
                await fill()
            before = await read_all(store.logs, "run")

            async def pester() -> None:
                for number in range(10_000):
                    await store.logs.send(
                        inbox_of("other"), b'"%b"' % (b"x" * 1000), message_producer("s", str(number))
                    )

            with pytest.raises(StoreFull):
                await pester()
            assert await read_all(store.logs, "run") == before
            await store.runs.heartbeat("run")
            await store.logs.trim("run", author.tail - 3)
            await author.say("data", "complete")
            assert (await store.runs.get("run")).state == "completed"
            await store.runs.drop("run")
            assert (await store.runs.get("other")).state == "queued"


async def test_functions_that_are_missing_are_brought_once(servers: Servers) -> None:
    """By the first of several processes as it opens, and for all calls that miss them, as often as they are flushed."""
    with servers.server("redis7") as server:
        url = own(server.url())
        async with RedisStore(parse_url(url)) as store, RedisStore(parse_url(url)) as other:
            for loads in (1, 2):
                server.ask("FUNCTION", "FLUSH")
                await asyncio.gather(
                    *(
                        each.runs.create(Meta(run=f"run-{n}", actor="actor"))
                        for n in range(50)
                        for each in (store, other)
                    )
                )
                stats = server.client().info("commandstats")["cmdstat_function|load"]
                assert stats["calls"] - stats["failed_calls"] == 1 + loads
                assert stats["calls"] <= 2 * (1 + loads)


async def test_a_library_of_others_in_our_place_is_told(servers: Servers) -> None:
    """Nobody asks for ever."""
    with servers.server("valkey") as server:
        foreign = f"#!lua name={NAME}\nredis.register_function('{NAME}_other', function() return 1 end)"
        server.ask("FUNCTION", "LOAD", foreign)
        with pytest.raises(LoomError):
            async with RedisStore(parse_url(own(server.url()))):
                pass


async def test_errors_name_the_server(servers: Servers) -> None:
    server = servers.server("valkey")
    with pytest.raises(Unavailable, match=rf"Redis at 127\.0\.0\.1:{server.port} does not answer"):
        async with RedisStore(parse_url(server.url())):
            pass


async def test_nothing_is_left_of_a_store_that_could_not_open(proxy: Proxy) -> None:
    """Neither tasks nor connections; the object is used up."""
    proxy.refuse = True
    store = RedisStore(parse_url(proxy.url))
    tasks = asyncio.all_tasks()
    with pytest.raises(Unavailable):
        await store.__aenter__()
    assert asyncio.all_tasks() <= tasks
    with pytest.raises(LoomError):
        await store.runs.get("run")


async def test_a_server_with_too_many_clients_cannot_now(servers: Servers) -> None:
    """It is not told as anything worse: the same may be asked again."""
    with servers.server("valkey", config={"maxclients": 1}) as server:
        with server.client() as client:
            client.ping()
            with pytest.raises(Unavailable, match="max number of clients"):
                async with RedisStore(parse_url(server.url())):
                    pass
        async with RedisStore(parse_url(server.url())) as store:
            assert await store.runs.list_runs() == []
