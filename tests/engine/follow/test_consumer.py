"""The consumer: reads a run by its id, and waits for one that is still to come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import loom
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.model.errors import InvalidInput, LogNotFound, RunFailed
from loom.stores.memory import MemoryStore
from loom.tasks import spawn
from tests.engine.kit import types_in
from tests.virtual import VirtualLoop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time")]


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def client() -> Client:
    return Client(StoreTransport(MemoryStore()))


async def read(client: Client, *arguments: Any, **options: Any) -> list[loom.Chunk[Any]]:
    return [chunk async for chunk in client.consumer.read("job", *arguments, **options)]


async def test_it_reads_what_is_published(client: Client) -> None:
    async with client, client.publisher("job") as pub:
        reading = spawn(read(client), "read")
        await pub.publish("one")
        await pub.complete()
        chunks = await reading
        assert types_in(chunks) == ["start", "data", "complete"]
        assert await read(client, chunks[0].cursor) == await read(client, str(chunks[0].cursor)) == chunks[1:]


async def test_it_waits_for_a_run_that_is_still_to_come(client: Client) -> None:
    async with client:
        reading = spawn(read(client, wait=60.0), "read")
        await asyncio.sleep(30.0)
        async with client.publisher("job") as pub:
            await pub.publish("one")
        assert types_in(await reading) == ["start", "data", "complete"]


async def test_not_for_ever(client: Client) -> None:
    async with client:
        with pytest.raises(LogNotFound, match=r"no run 'job'$"):
            await read(client)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(LogNotFound, match="not after 5"):
            await read(client, wait=5.0)
        assert 5.0 <= loop.time() - began < 7.0


async def test_it_raises_as_a_run_does(client: Client) -> None:
    async with client:
        async with client.publisher("job") as pub:
            await pub.fail("because")
        with pytest.raises(RunFailed):
            await read(client)
        assert types_in(await read(client, raise_errors=False)) == ["start", "error"]
        with pytest.raises(InvalidInput):
            _ = [chunk async for chunk in client.consumer.read("no id")]
