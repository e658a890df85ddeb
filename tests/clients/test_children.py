"""A run starts runs, and gives its slot back while it waits for them; the same at every place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

import loom

from .places import Connected

pytestmark = pytest.mark.anyio

LONG = 60.0
"""Seconds after which something hangs, on a busy machine."""


def family() -> loom.App:
    app = loom.App()

    @app.actor
    async def child(n: int) -> int:
        return n * n

    @app.actor
    async def teller(n: int) -> AsyncIterator[int]:
        for value in range(n):
            yield value

    @app.actor
    async def parent(n: int, ctx: loom.Context) -> int:
        return await ctx.client.execute(child, n)

    @app.actor
    async def reader(n: int, ctx: loom.Context) -> int:
        run = await ctx.client.start(teller, n)
        return sum([value async for value in run.values()])

    @app.actor
    async def gatherer(n: int, ctx: loom.Context) -> int:
        return sum(await asyncio.gather(*(ctx.client.execute(child, m) for m in range(n))))

    @app.actor
    def parent_in_a_thread(n: int, ctx: loom.Context) -> int:
        return ctx.client_sync.execute(child, n)

    @app.actor
    def reader_in_a_thread(n: int, ctx: loom.Context) -> Iterator[int]:
        client = ctx.client_sync
        with client.stream(teller, n) as run:
            yield from run.values()
        for value in client.stream(teller, n).values():
            yield value
            break  # and cancels it

    @app.actor(concurrency=1)
    async def nested(depth: int, ctx: loom.Context) -> int:
        return 1 + (await ctx.client.execute("nested", depth - 1) if depth > 1 else 0)

    return app


async def results(client: loom.Client, actor: str, inputs: list[int]) -> list[object]:
    async with asyncio.timeout(LONG):
        runs = [await client.start(actor, n) for n in inputs]
        return [await run.result() for run in runs]


async def test_a_hundred_parents_wait_for_a_hundred_children_on_ten_slots(connected: Connected) -> None:
    async with connected(family(), concurrency=10) as client:
        assert await results(client, "parent", list(range(100))) == [n * n for n in range(100)]
        heads = await client.runs(limit=1000, actor="child")
        assert len({head.meta.parent for head in heads}) == 100


async def test_parents_that_read_and_parents_that_wait_for_several_at_once(connected: Connected) -> None:
    async with connected(family(), concurrency=2) as client:
        assert await results(client, "reader", [5] * 10) == [10] * 10
        assert await results(client, "gatherer", [5] * 10) == [30] * 10


async def test_parents_in_threads(connected: Connected) -> None:
    async with connected(family(), concurrency=2) as client:
        assert await results(client, "parent_in_a_thread", list(range(20))) == [n * n for n in range(20)]
        assert await results(client, "reader_in_a_thread", [3] * 5) == [[0, 1, 2, 0]] * 5
        heads = await client.runs(actor="teller")
        assert len(heads) == 10
        for head in heads:
            assert head.meta.parent is not None
            await client.run(head.meta.run).wait(LONG)


async def test_an_actor_of_one_slot_that_starts_itself(connected: Connected) -> None:
    async with connected(family(), concurrency=1) as client:
        assert await results(client, "nested", [4, 4]) == [4, 4]


async def test_a_child_has_its_parent_and_its_root(connected: Connected) -> None:
    async with connected(family()) as client:
        run = await client.start("nested", 3, id="top")
        assert await run.result() == 3
        (middle,) = await client.runs(parent="top")
        (last,) = await client.runs(parent=middle.meta.run)
        assert [(head.meta.parent, head.meta.root) for head in (middle, last)] == [
            ("top", "top"),
            (middle.meta.run, "top"),
        ]
        below = [head.meta.run for head in await client.runs(root="top")]
        assert below == [last.meta.run, middle.meta.run]
        again = await client.retry(last.meta.run)
        meta = (await again.wait()).meta
        assert (meta.parent, meta.root, meta.retry_of) == (middle.meta.run, "top", last.meta.run)
        assert (await run.status()).meta.parent is None
