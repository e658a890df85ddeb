"""An owner that left while its run was queued, on every store and over HTTP: the run is cancelled, and never begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import loom
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model.ports import Store
from loom.model.run import Meta
from loom.server.app import Times
from loom.stores.memory import MemoryStore
from loom.stores.redis import RedisStore, parse_url
from loom.stores.sqlite import SqliteStore
from tests.server.harness import rig
from tests.servers.fixtures import own
from tests.servers.server import Server

pytestmark = pytest.mark.anyio

LEASE = 2.0
AWAY = 0.5
"""How long the viewer of a server may be away."""

LONG_AGO = 60.0


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Store]:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "runs.db", durability="process")
    server: Server = request.getfixturevalue("valkey")
    return RedisStore(parse_url(own(server.url())))


def noting(begun: list[str]) -> loom.App:
    app = loom.App()

    @app.actor
    async def work(ctx: loom.Context) -> AsyncIterator[int]:
        begun.append(ctx.run_id)
        yield 1

    return app


async def test_only_a_run_whose_owner_is_there_is_begun(store: AbstractAsyncContextManager[Store]) -> None:
    """One owner has left long ago; the other, which seems to have, is heard of when the worker comes."""
    begun: list[str] = []
    app = noting(begun)
    async with store as opened, Client(StoreTransport(opened)) as client:
        for run in ("left", "there"):
            meta = Meta(run=run, actor="work", created=time.time() - LONG_AGO, owner_lease=LEASE)
            await opened.queue.put(meta)
            await opened.runs.create(meta)
        async with Worker(opened, app.registry, drain=0):
            while (await client.run("there").status()).state == "queued":
                await opened.runs.heartbeat("there")
                await asyncio.sleep(LEASE / 10)
            there, left = await client.run("there").wait(timeout=10), await client.run("left").wait(timeout=10)
        assert begun == ["there"]
        assert (there.state, left.state, left.tail) == ("completed", "cancelled", 1)
        assert left.error is not None
        assert "its owner left" in left.error.message


async def test_a_viewer_that_left_while_its_run_was_queued_gets_nothing_begun() -> None:
    begun: list[str] = []
    app = noting(begun)
    async with rig(registry=app.registry, times=Times(leave_grace=AWAY)) as r:
        async with r.viewer("/actors/work/stream"):
            async with asyncio.timeout(10):
                while not (heads := await r.store.runs.list_runs()) or heads[0].heard is None:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(AWAY / 10)
        run = heads[0].meta.run
        async with asyncio.timeout(10):  # the viewer is gone for longer than it may be away
            while time.time() - ((await r.store.runs.get(run)).heard or 0) <= AWAY:  # noqa: ASYNC110 - the same
                await asyncio.sleep(AWAY / 10)
        async with Worker(r.store, app.registry, drain=0), Client(r.transport) as client:
            head = await client.run(run).wait(timeout=10)
        assert (head.state, head.tail, begun) == ("cancelled", 1, [])
