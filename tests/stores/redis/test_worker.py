"""A worker that is cut off from its store: it stops at the end of its lease and writes nothing after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import loom
from loom.engine.run.worker import Worker
from loom.stores.redis import RedisStore, parse_url
from loom.testing.author import read_all
from loom.wire.json import decode_chunk
from tests.faults.proxy import proxy_before
from tests.servers.fixtures import own
from tests.servers.server import Server

pytestmark = pytest.mark.anyio

LEASE = 1.0


class Saying:
    """An actor that says its name until it is stopped; who drives it, and who has stopped."""

    def __init__(self, name: str) -> None:
        self.app = loom.App()
        self.begun, self.stopped = asyncio.Event(), asyncio.Event()

        @self.app.actor("say", retry=loom.Retry(mode="continue"))
        async def say(ctx: loom.Context) -> AsyncIterator[str]:
            self.begun.set()
            try:
                while True:
                    yield name
                    await asyncio.sleep(0.01)
            finally:
                self.stopped.set()


async def test_it_stops_and_another_goes_on(valkey: Server) -> None:
    url = own(valkey.url())
    lost, heir = Saying("lost"), Saying("heir")
    async with (
        proxy_before(url) as proxy,
        RedisStore(parse_url(proxy.url)) as cut_off,
        loom.connect(url) as client,
        Worker(cut_off, lost.app.registry, lease=LEASE, drain=0),
    ):
        run = await client.start("say")
        async for chunk in run.chunks():
            if chunk.seq == 5:
                break
        proxy.refuse = True
        proxy.swallow()
        cut = asyncio.get_running_loop().time()
        await asyncio.wait_for(lost.stopped.wait(), LEASE + 5)
        assert asyncio.get_running_loop().time() - cut <= LEASE + 1
        async with RedisStore(parse_url(url)) as store:
            before = await read_all(store.logs, run.id)
            async with Worker(store, heir.app.registry, lease=LEASE, drain=0):
                await asyncio.wait_for(heir.begun.wait(), LEASE + 5)
                proxy.refuse = False  # it is back, and finds that its run is another's
                async for chunk in run.chunks(after=before[-1][0], raise_errors=False):
                    if chunk.data == "heir" and chunk.seq > before[-1][0].seq + 20:
                        break
                await run.cancel()
                await run.wait(10)
            said = [decode_chunk(line) for _, line in await read_all(store.logs, run.id)]
    first_of_heir = next(place for place, chunk in enumerate(said) if chunk.data == "heir")
    assert "lost" not in [chunk.data for chunk in said[first_of_heir:]]
    assert [chunk.type for chunk in said].count("start") == 2
    assert said[-1].type == "error"
    assert proxy.hits > 0
