"""`loom.testing.client`: the whole thing in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import loom
import loom.testing

pytestmark = pytest.mark.anyio

app = loom.App()


@app.actor
async def count(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@app.actor
async def endless(ctx: loom.Context) -> AsyncIterator[str]:
    yield "here"
    await asyncio.Event().wait()


async def test_runs_start_stream_and_end_for_real() -> None:
    async with loom.testing.client(app) as client:
        async with client.stream(count, 3) as run:
            assert [value async for value in run.values()] == [0, 1, 2]
        assert (await client.run(run.id).status()).state == "completed"


async def test_two_of_them_know_nothing_of_each_other() -> None:
    async with loom.testing.client(app) as one, loom.testing.client(app) as other:
        run = await one.start(count, 1)
        await run.wait(timeout=20)
        assert await other.runs() == []


async def test_input_is_checked_before_anything_is_sent() -> None:
    async with loom.testing.client(app) as client:
        with pytest.raises(loom.InvalidInput):
            await client.start("count", n="x")
        assert await client.runs() == []


async def test_a_queue_that_nobody_could_ever_serve_is_refused() -> None:
    async with loom.testing.client(app) as client:
        with pytest.raises(loom.InvalidInput, match=r"no worker serves 'other', .*its worker serves default") as told:
            await client.start("count", 1, queue="other")
        assert told.value.details == {"field": "queue"}
        with pytest.raises(loom.InvalidInput, match="no worker serves 'other'"):
            await client.start(count.using(queue="other"), 1)
        assert (await client.runs(), await client.entries()) == ([], [])
        assert await client.execute(count, 1) == [0]
    async with loom.connect("memory://", app=app, worker=True, queues=["other"], drain=0) as client:
        assert await client.execute("count", 1, queue="other") == [0]
        with pytest.raises(loom.InvalidInput, match="no worker serves 'default'"):
            await client.start(count, 1)


async def test_leaving_ends_what_still_runs() -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(20), loom.testing.client(app) as client:
        run = await client.start(endless)
        async with contextlib.aclosing(run.values()) as values:
            assert await anext(values) == "here"
    assert asyncio.all_tasks() == before
