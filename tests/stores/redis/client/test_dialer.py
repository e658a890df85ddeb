"""Getting in: passwords, users with few rights, TLS, Sentinels; and servers that are none, or not the right ones."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from msgspec.structs import replace

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
        await store.queue.put(Meta(run="run", actor="actor"))
        claim = await store.queue.claim(["default"], "worker", lease=10.0, wait=1.0)
        assert claim is not None
        await store.queue.ack(claim)
        return len(await read_all(store.logs, "run")) == 2


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


async def test_credentials_are_asked_for_at_each_connection(servers: Servers) -> None:
    """A password that is rotated while the store is open is found again after the connections were lost."""
    password, asked = "first", 0

    async def credentials() -> tuple[str, str]:
        nonlocal asked
        asked += 1
        return "alice", password

    with servers.server("valkey", users={"alice": ">first ~* &* +@all", "root": ">root ~* &* +@all"}) as server:
        address = replace(parse_url(f"redis://127.0.0.1:{server.port}"), credentials=credentials)
        async with RedisStore(address) as store:
            assert asked == 1
            await store.runs.create(Meta(run="run", actor="actor"))
            with server.client(user="root", password="root") as client:
                client.acl_setuser("alice", enabled=True, reset_passwords=True, passwords=["+second"])
                client.client_kill_filter(user="alice", skipme=True)
            with pytest.raises(LoomError):
                await store.runs.get("run")
            with pytest.raises(Unauthorized) as caught:
                await store.runs.get("run")
            assert "first" not in str(caught.value)
            password = "second"
            assert (await store.runs.get("run")).meta.actor == "actor"


class Vault(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (Vault("the token is hush"), Unavailable),
        (Unauthorized("the role is gone"), Unauthorized),
        (Unavailable("the vault sleeps"), Unavailable),
    ],
)
async def test_credentials_that_cannot_be_had(valkey: Server, raised: Exception, kind: type[LoomError]) -> None:
    """No secret is shown, neither by the message nor by a chained exception."""

    def credentials() -> tuple[str, str]:
        raise raised

    with pytest.raises(kind) as caught:
        await Dialer(replace(parse_url(valkey.url()), credentials=credentials)).dial(None)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("returned", ["hush", ("hush",), ("alice", b"hush"), None])
async def test_credentials_that_are_none(valkey: Server, returned: Any) -> None:
    with pytest.raises(UsageError, match="two strings") as caught:
        await Dialer(replace(parse_url(valkey.url()), credentials=lambda: returned)).dial(None)
    assert "hush" not in str(caught.value)


async def test_a_unix_socket(servers: Servers) -> None:
    with TemporaryDirectory(prefix="loom") as folder:  # such a path has at most 107 bytes
        path = f"{folder}/redis.sock"
        with servers.server("valkey", config={"unixsocket": path}, password="hush"):
            assert await works(f"unix://:hush@{path}?db=1")
            assert isinstance(await refused(f"unix://{path}"), Unauthorized)
        gone = await refused(f"unix://{path}")
    assert isinstance(gone, Unavailable)
    assert f"Redis at {path} does not answer" in str(gone)


async def test_a_user_of_one_prefix(servers: Servers) -> None:
    """These rights are enough; what it may not do is told."""
    with servers.server("valkey", users={"alice": RIGHTS}) as server:
        assert await works(server.url(user="alice", password="hush", prefix="shop"))
        with pytest.raises(Unauthorized) as caught:
            async with RedisStore(parse_url(server.url(user="alice", password="hush", prefix="other"))):
                pass
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
        await one.runs.create(Meta(run="run", actor="actor"))
        async with RedisStore(parse_url(f"{valkey.url()}/2?prefix=numbered")) as two:
            assert await two.runs.list_runs() == []
        await one.runs.drop("run")
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
                await store.runs.create(Meta(run="run", actor="actor"))
            unwatch = store.logs.watch("run", lambda notice: None)
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


async def test_sentinels_have_users_of_their_own(sentinel: Sentinels) -> None:
    """Apart from those of the servers; the second one may not ask."""
    url = sentinel.url(sentinel_user="watcher", sentinel_password="hush")
    for one in sentinel.sentinels:
        one.ask("ACL", "SETUSER", "watcher", "on", ">hush", "+auth", "+sentinel|get-master-addr-by-name")
        one.ask("ACL", "SETUSER", "stranger", "on", ">hush", "+auth")
    try:
        (await Dialer(parse_url(url)).dial(None)).close()
        for wrong in (url.replace("hush", "hash"), url.replace("watcher", "stranger")):
            with pytest.raises(Unauthorized) as caught:
                await Dialer(parse_url(wrong)).dial(None)
            assert "hush" not in str(caught.value)
    finally:
        for one in sentinel.sentinels:
            one.ask("ACL", "DELUSER", "watcher", "stranger")


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
