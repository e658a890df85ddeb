"""The HTTP client behind a network with faults: what it gives equals the log, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest

import loom
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.chunk import Chunk
from loom.remote.http import CALL_ATTEMPTS, HttpTransport, Patience
from loom.server.app import create_app
from loom.server.serve import serving
from loom.stores.memory import MemoryStore
from loom.wire.json import decode_batch

from .proxy import Proxy, proxy_before

pytestmark = pytest.mark.anyio

QUICK = Patience(reconnect=(0.001, 0.01))


class World:
    """A server, a client in its process, and one behind a proxy with faults."""

    def __init__(self, store: MemoryStore, near: Client, far: Client, proxy: Proxy) -> None:
        self.store = store
        self.near = near
        self.far = far
        self.proxy = proxy

    async def log(self, run: str) -> list[Chunk[Any]]:
        """What really stands in the run's log."""
        page = await self.store.logs.read(run, None, limit=limits.READ_LIMIT)
        assert page.caught_up
        return [chunk for batch in page.batches for chunk in decode_batch(batch)]


def counting() -> loom.App:
    app = loom.App()

    @app.actor
    async def count(n: int, ctx: loom.Context, paced: bool = False) -> AsyncIterator[str]:
        for i in range(n):
            if paced:
                await ctx.receive("next", timeout=60)
            yield f"{i} é"

    return app


@asynccontextmanager
async def world(app: loom.App | None = None, patience: Patience = QUICK) -> AsyncIterator[World]:
    app = app or counting()
    async with MemoryStore() as store, Worker(store, app.registry, drain=0):
        transport = StoreTransport(store, app.registry)
        async with (
            Client(transport) as near,
            serving(create_app(transport), port=0) as address,
            proxy_before(address.url) as proxy,
            Client(HttpTransport(proxy.url, patience=patience)) as far,
        ):
            yield World(store, near, far, proxy)


async def seen_by(client: Client, run: str, after: loom.Cursor | None = None) -> list[Chunk[Any]]:
    async with asyncio.timeout(60):
        return [chunk async for chunk in client.run(run).chunks(after, raise_errors=False)]


# --- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "step"), [(False, 1), (True, 5)], ids=["closed", "reset"])
async def test_cut_at_every_byte(reset: bool, step: int) -> None:
    """The first connection is cut after k bytes, for every k up to the whole answer; the next one is not."""
    async with world() as w:
        run = await w.near.start("count", n=1)
        await run.wait()
        log = await w.log(run.id)
        w.proxy.reset = reset
        for k in range(0, 10_000, step):
            cuts: list[int | None] = [k]
            w.proxy.cut_after = lambda cuts=cuts: cuts.pop() if cuts else None  # type: ignore[misc]
            hits = w.proxy.hits
            far = HttpTransport(w.proxy.url, patience=QUICK)
            async with Client(far) as client:
                assert await seen_by(client, run.id) == log
            if w.proxy.hits == hits:
                break
        assert k > 400  # the answer's head and three events


@pytest.mark.parametrize("size", [400, 555, 1024, 3000])
async def test_cut_every_so_many_bytes(size: int) -> None:
    """A proxy that lets no connection pass more: each brings it a little further."""
    async with world() as w:
        run = await w.near.start("count", n=60)
        await run.wait()
        w.proxy.cut_after = lambda: size
        assert await seen_by(w.far, run.id) == await w.log(run.id)
        assert w.proxy.hits > 1


@pytest.mark.parametrize("seed", range(5))
async def test_cut_anywhere_while_it_runs(seed: int) -> None:
    """The run says its next chunk when a viewer asks for it through the same bad network."""
    rng = random.Random(seed)
    async with world() as w:
        w.proxy.cut_after = lambda: rng.randrange(300, 1500)
        run = await w.far.start("count", n=40, paced=True)
        values = []
        await run.send("next", id="0")
        async with asyncio.timeout(60):
            async for value in run.values():
                values.append(value)
                if len(values) < 40:
                    await run.send("next", id=str(len(values)))
        assert values == [f"{i} é" for i in range(40)], f"seed {seed}"
        assert w.proxy.hits > 0


async def test_resuming_with_another_client_behind_cuts() -> None:
    rng = random.Random(7)
    async with world() as w:
        run = await w.near.start("count", n=30)
        await run.wait()
        log = await w.log(run.id)
        w.proxy.cut_after = lambda: rng.randrange(300, 900)
        for place, chunk in enumerate(log, 1):
            assert await seen_by(w.far, run.id, chunk.cursor) == log[place:]
        assert w.proxy.hits > 0


# --- slow and small --------------------------------------------------------------------------------------------------


async def test_single_bytes() -> None:
    async with world() as w:
        run = await w.near.start("count", n=20)
        await run.wait()
        w.proxy.piece = 1
        assert await seen_by(w.far, run.id) == await w.log(run.id)


async def test_each_chunk_in_time_over_a_slow_network() -> None:
    async with world() as w:
        w.proxy.latency = 0.005
        w.proxy.piece = 50
        run = await w.far.start("count", n=5, paced=True)
        async with aclosing(run.values()) as values:
            for i in range(5):
                await run.send("next")
                assert await anext(values) == f"{i} é"


async def test_a_reader_that_is_cut_keeps_its_one_mark() -> None:
    """A run with `ahead` waits for the same reader on, whatever connections it comes over."""
    app = loom.App()

    @app.actor(ahead=3)
    async def eager(n: int, ctx: loom.Context) -> AsyncIterator[int]:
        await ctx.receive("go")
        for i in range(n):
            yield i

    async with world(app) as w:
        w.proxy.cut_after = lambda: 700
        run = await w.near.start("eager", n=20)
        readers: set[str] = set()
        async for chunk in w.far.run(run.id).chunks():
            if chunk.type == "start":
                await run.send("go")
            marks = await w.store.logs.positions(run.id)
            readers.update(mark.reader for mark in marks)
            assert all(mark.seq < chunk.seq for mark in marks)
        assert len(readers) == 1
        assert w.proxy.hits > 0


# --- silence ---------------------------------------------------------------------------------------------------------


async def test_a_black_hole_is_noticed_by_its_silence() -> None:
    """The connection stands, but nothing passes: not even heartbeats. Another is made."""
    async with world(patience=Patience(reconnect=(0.001, 0.01), silence=0.2, answer=0.2)) as w:
        run = await w.near.start("count", n=4, paced=True)
        async with aclosing(w.far.run(run.id).values()) as values:
            for i in range(4):
                await run.send("next")
                assert await anext(values) == f"{i} é"
                w.proxy.swallow()
        assert w.proxy.hits > 0


async def test_an_owner_outlives_a_black_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has died unseen costs the owner a beat, not the run."""
    monkeypatch.setattr(limits, "OWNER_LEASE", 3.0)
    async with world() as w:
        async with w.far.stream("count", n=1, paced=True) as run:
            w.proxy.swallow()
            await _until_beat(w, run.id, 3)
            await run.send("next")
            assert await run.text() == "0 é"
        assert w.proxy.hits > 0


async def _until_beat(w: World, run: str, beat: int) -> None:
    async with asyncio.timeout(30):
        while True:
            if (await w.store.runs.get(run)).beat >= beat:
                return
            await asyncio.sleep(0.02)  # nothing tells of a heartbeat


# --- lost replies ----------------------------------------------------------------------------------------------------


async def test_a_start_whose_reply_was_lost_is_one_run() -> None:
    async with world() as w:
        w.proxy.lose_replies = 2
        run = await w.far.start("count", n=3)
        assert await run.text() == "0 é1 é2 é"
        assert w.proxy.hits == 2
        assert [head.meta.run for head in await w.near.runs()] == [run.id]


async def test_a_message_whose_reply_was_lost_arrives_once() -> None:
    async with world() as w:
        run = await w.near.start("count", n=2, paced=True)
        w.proxy.lose_replies = 2
        await w.far.run(run.id).send("next")
        assert w.proxy.hits == 2
        values = run.values()
        assert await anext(values) == "0 é"
        inbox = await w.store.logs.read(f"{run.id}/in", None)
        assert len(inbox) == 1


async def test_a_cancel_whose_reply_was_lost() -> None:
    async with world() as w:
        run = await w.near.start("count", n=2, paced=True)
        w.proxy.lose_replies = 1
        await w.far.run(run.id).cancel(wait=True)
        assert w.proxy.hits == 1
        assert (await run.status()).state == "cancelled"


async def test_calls_give_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.remote.http.CALL_BACKOFF", (0.001, 0.002))
    async with world() as w:
        w.proxy.refuse = True
        for call in (lambda: w.far.start("count", n=1), w.far.runs, w.far.run("r").cancel, w.far.run("r").status):
            made = w.proxy.made
            with pytest.raises(loom.Unavailable):
                await cast("Callable[[], Any]", call)()
            assert w.proxy.made - made == CALL_ATTEMPTS
        w.proxy.refuse = False
        assert await w.far.runs() == []


# --- the server ------------------------------------------------------------------------------------------------------


async def test_the_server_restarts_in_mid_stream() -> None:
    """Runs and their workers live on in the store; viewers come back by themselves, whenever they were cut."""
    app = counting()
    async with MemoryStore() as store, Worker(store, app.registry, drain=0):
        transport = StoreTransport(store, app.registry)
        near = Client(transport)
        async with serving(create_app(transport), port=0) as address:
            port = address.port
        far = Client(HttpTransport(address.url, patience=QUICK))
        run = await near.start("count", n=12, paced=True)
        values = far.run(run.id).values()
        seen = []
        for _ in range(4):
            async with serving(create_app(transport), port=port):
                for _ in range(3):
                    await run.send("next")
                    seen.append(await anext(values))
        assert seen == [f"{i} é" for i in range(12)]
        async with serving(create_app(transport), port=port):
            assert [value async for value in values] == []
        await far.aclose()
        await near.aclose()
