"""The proxy's faults, between a Redis client and a server: each does what it says, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost

from tests.servers.fixtures import own
from tests.servers.server import Server

from .proxy import Proxy, proxy_before

pytestmark = pytest.mark.anyio


@pytest.fixture
def key() -> str:
    return own("redis://h").rpartition("=")[2]


@asynccontextmanager
async def before(server: Server) -> AsyncIterator[Proxy]:
    async with proxy_before(server.url()) as proxy:
        yield proxy


@asynccontextmanager
async def behind(proxy: Proxy) -> AsyncIterator[Redis]:
    """A client of one connection that repeats nothing."""
    client = Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), single_connection_client=True, socket_timeout=20)
    async with client:
        yield client


async def test_a_lost_reply_is_to_a_request_that_was_done(valkey: Server, key: str) -> None:
    async with before(valkey) as proxy, behind(proxy) as client:
        assert await client.rpush(key, "1") == 1
        proxy.lose_reply_to(b"RPUSH")
        with pytest.raises(Lost):
            await client.rpush(key, "2")
        assert proxy.hits == 1
        assert await client.lrange(key, 0, -1) == [b"1", b"2"]


async def test_a_request_cut_in_the_middle_is_not_done(valkey: Server, key: str) -> None:
    async with before(valkey) as proxy:
        async with behind(proxy) as client:
            await client.ping()
        left = [3000]
        proxy.cut_up_after = lambda: left.pop() if left else None
        async with behind(proxy) as client:
            with pytest.raises(Lost):
                await client.rpush(key, "x" * 5000)
            assert proxy.hits == 1
            assert await client.lrange(key, 0, -1) == []


async def test_characters_in_pieces(valkey: Server, key: str) -> None:
    async with before(valkey) as proxy:
        proxy.piece = proxy.piece_up = 1
        async with behind(proxy) as client:
            await client.set(key, "é 漢字 🙂")
            assert await client.get(key) == "é 漢字 🙂".encode()


async def test_what_is_stalled_is_late_but_not_lost(valkey: Server, key: str) -> None:
    async with before(valkey) as proxy, behind(proxy) as client:
        await client.ping()
        proxy.stall()
        asked = asyncio.ensure_future(client.rpush(key, "1"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.05)
        proxy.go_on()
        assert await asked == 1


async def test_only_one_side_is_parted(valkey: Server, key: str) -> None:
    async with before(valkey) as proxy, behind(proxy) as client:
        proxy.stall("127.0.0.2")
        assert await client.rpush(key, "1") == 1
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, local_addr=("127.0.0.2", 0))
        writer.write(f"RPUSH {key} 2\r\n".encode())
        await writer.drain()
        assert await client.rpush(key, "3") == 2
        proxy.go_on()
        assert await reader.readline() == b":3\r\n"
        writer.close()


async def test_connections_are_refused_and_cut(valkey: Server) -> None:
    async with before(valkey) as proxy, behind(proxy) as client:
        await client.ping()
        proxy.refuse = True
        proxy.cut()
        with pytest.raises(Lost):
            await client.ping()
        with pytest.raises(Lost):
            await client.ping()
        assert proxy.hits == 2
        proxy.refuse = False
        assert await client.ping()
