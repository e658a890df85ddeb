"""Reads that wait: answered when there is something to tell, dropped with their client, ended with the server."""

from __future__ import annotations

import asyncio

import pytest

from loom.model.chunk import Chunk
from loom.server.app import Times
from tests.server.harness import PATIENCE, Rig, connection, rig
from tests.waits import until

pytestmark = pytest.mark.anyio


async def test_a_long_poll_waits_for_the_next_chunk() -> None:
    async with rig() as r:
        cursor = await r.begin()
        polled = asyncio.ensure_future(r.ask("GET", f"/runs/r/chunks?after={cursor}&wait=30s"))
        await viewers(r, 1)
        await r.say("r", Chunk("data", "news"))
        (item,) = (await polled).json["chunks"]
        assert item["chunk"]["data"] == "news"


async def viewers(r: Rig, count: int) -> None:
    await until(lambda: r.app.viewers == count, seconds=PATIENCE)


@pytest.mark.parametrize("wait", ["50ms", "0.05", "1h"])
async def test_a_long_poll_ends_empty(wait: str) -> None:
    async with rig(times=Times(long_poll=0.05)) as r:
        cursor = await r.begin()
        page = (await r.ask("GET", f"/runs/r/chunks?after={cursor}&wait={wait}")).json
        assert page == {"chunks": [], "cursor": str(cursor), "caught_up": True, "ended": False}


async def test_a_long_poll_is_dropped_with_its_client() -> None:
    async with rig() as r:
        cursor = await r.begin()
        async with connection(r.address) as (reader, writer):
            path = f"/runs/r/chunks?after={cursor}&wait=30s"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await viewers(r, 1)
            writer.close()
            await viewers(r, 0)
            assert await reader.read() == b""


async def test_a_stopping_server_answers_long_polls() -> None:
    async with rig() as r:
        cursor = await r.begin()
        polled = asyncio.ensure_future(r.ask("GET", f"/runs/r/chunks?after={cursor}&wait=30s"))
        await viewers(r, 1)
        r.app.end_streams()
        assert ((await polled).status, (await polled).error["retryable"]) == (503, True)
