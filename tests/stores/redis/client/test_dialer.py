"""Getting in: passwords, users with few rights, TLS, Sentinels; and servers that are none, or not the right ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loom.model.errors import LoomError, Unauthorized, Unavailable, UsageError
from loom.model.run import Meta
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.client.address import Address
from loom.stores.redis.client.dialer import Dialer
from loom.tasks import TaskSet
from loom.testing.author import Author, read_all
from tests.servers.sentinel import Sentinels
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio


RIGHTS = ">hush ~shop:* ~{shop}:* &shop:* &{shop}:* +@read +@write +@pubsub +@connection +@scripting +time"
"""As docs/redis.md gives them."""


async def works(url: str) -> bool:
    async with RedisStore(parse_url(url)) as store:
        author = await Author.start(store)
        await author.say("complete")
        await store.put(Meta(run="run", actor="actor"))
        claim = await store.claim(["default"], "worker", lease=10.0, wait=1.0)
        assert claim is not None
        await store.ack(claim)
        return len(await read_all(store, "run")) == 2


async def refused(url: str) -> LoomError:
    with pytest.raises(LoomError) as caught:
        async with RedisStore(parse_url(url)):
            pass
    return caught.value


async def test_a_password(servers: Servers) -> None:
    """A wrong one, and none, are told apart, and never shown."""
    with servers.server("valkey", password="hush") as server:
        assert await works(server.url())
        wrong = await refused(server.url(password="hash"))
        assert isinstance(wrong, Unauthorized)
        assert "password is wrong" in str(wrong)
        assert "hash" not in str(wrong)
        none = await refused(f"redis://127.0.0.1:{server.port}")
        assert isinstance(none, Unauthorized)
        assert "wants a user and password" in str(none)


async def test_a_user_of_one_prefix(servers: Servers) -> None:
    """These rights are enough; what it may not do is told."""
    with servers.server("valkey", users={"alice": RIGHTS}) as server:
        assert await works(server.url(user="alice", password="hush", prefix="shop"))
        async with RedisStore(parse_url(server.url(user="alice", password="hush", prefix="other"))) as store:
            with pytest.raises(Unauthorized) as caught:
                await store.create(Meta(run="run", actor="actor"))
        assert "hush" not in str(caught.value)


async def test_a_user_of_one_prefix_in_a_cluster(servers: Servers) -> None:
    """It has to be told which node has what, besides; and may be told what is durable."""
    with servers.cluster() as cluster:
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", "alice", "on", *RIGHTS.split(), "+cluster|slots", "+config|get")
        url = cluster.url(prefix="shop").replace("://", "://alice:hush@", 1)
        assert await works(url)
        async with RedisStore(parse_url(url)) as store:
            assert store.durability == "memory"
            assert "does not tell" not in str((await store.survey()).cautions)


async def test_tls(servers: Servers) -> None:
    """With a certificate that we were told to trust; not with another's, nor without TLS."""
    certificates = servers.certificates()
    with servers.server("redis7", tls=certificates) as server:
        assert await works(server.url())
        assert isinstance(await refused(f"rediss://127.0.0.1:{server.port}"), Unavailable)
        assert isinstance(await refused(f"redis://127.0.0.1:{server.port}"), Unavailable)


async def test_a_number_of_a_database(valkey: Server) -> None:
    """Keys of one are not seen from another; one that there is not is told."""
    async with RedisStore(parse_url(f"{valkey.url()}/1?prefix=numbered")) as one:
        await one.create(Meta(run="run", actor="actor"))
        async with RedisStore(parse_url(f"{valkey.url()}/2?prefix=numbered")) as two:
            assert await two.heads() == []
        await one.drop("run")
    assert "SELECT" in str(await refused(f"{valkey.url()}/999")) or "index" in str(await refused(f"{valkey.url()}/999"))


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """A server that says `answer` to whatever it is told first."""
    async with TaskSet() as tasks:

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read(1000)
                writer.write(answer)
                await reader.read(1000)
            finally:
                writer.close()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.spawn(accept(reader, writer), "accept")

        async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


OLD = b"%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n6.2.7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
OLD += b"$4\r\nrole\r\n$6\r\nmaster\r\n"


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (OLD, UsageError, "is Redis 6.2.7: Redis 7.0 or newer, or Valkey 8, is needed"),
        (b"-ERR unknown command 'HELLO'\r\n", UsageError, "Redis 7.0 or newer, or Valkey 8, is needed"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Unavailable, "cannot now"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Unavailable, "lost"),
        (b"+OK\r\n", UsageError, "no Redis that we know"),
        (OLD.replace(b"6.2.7", b"7.2.7").replace(b"$6\r\nmaster", b"$7\r\nreplica"), Unavailable, "is a replica"),
    ],
)
async def test_a_server_that_will_not_do_is_told_in_a_line(answer: bytes, kind: type[LoomError], says: str) -> None:
    async with saying(answer) as url:
        error = await refused(url)
    assert isinstance(error, kind)
    assert says in str(error)
    assert "\n" not in str(error)


async def test_a_user_without_channels_is_told_and_reconnects_slowly(servers: Servers) -> None:
    """What publishes says so. What listens tries again after pauses that grow."""
    with servers.server("valkey", users={"alice": ">secret ~* +@all resetchannels"}) as server:
        async with RedisStore(parse_url(server.url(user="alice", password="secret"))) as store:
            with pytest.raises(Unauthorized, match="channel"):
                await store.create(Meta(run="run", actor="actor"))
            unwatch = store.watch("run", lambda notice: None)
            with server.client(user="alice", password="secret") as client:
                before = client.info("stats")["total_connections_received"]
                await asyncio.sleep(0.5)  # what must not happen takes time
                assert client.info("stats")["total_connections_received"] - before < 10
            unwatch()


# --- which server ----------------------------------------------------------------------------------------------------


async def test_sentinels_are_asked_in_turn_for_the_primary(sentinel: Sentinels) -> None:
    """The first may be gone."""
    url = sentinel.url().replace("://", "://127.0.0.1:1,")
    wire = await Dialer(parse_url(url)).dial(None)
    try:
        assert (await wire.ask("ROLE"))[0] == b"master"
    finally:
        wire.close()


async def test_a_service_that_no_sentinel_knows(sentinel: Sentinels) -> None:
    with pytest.raises(Unavailable, match="knows no 'moon'"):
        await Dialer(parse_url(sentinel.url().replace("/loom", "/moon"))).dial(None)


async def test_a_replica_is_named_and_not_taken(sentinel: Sentinels) -> None:
    replica = next(server for server in sentinel.servers if server is not sentinel.primary)
    with pytest.raises(Unavailable, match=f"{replica.port} is a replica"):
        await Dialer(Address(hosts=(("127.0.0.1", replica.port),))).dial(None)


async def test_a_wire_gives_what_the_server_sends_of_its_own_accord(valkey: Server) -> None:
    heard: asyncio.Queue[list[object]] = asyncio.Queue()
    wire = await Dialer(parse_url(valkey.url())).dial(("127.0.0.1", valkey.port), heard.put_nowait)
    try:
        wire.tell("SSUBSCRIBE", "dialer")
        assert await heard.get() == [b"ssubscribe", b"dialer", 1]
    finally:
        wire.close()
