"""Runs that start runs and wait for them, under faults: workers are killed, paused and cut off meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import loom
from loom.testing.simulation import Faults, simulate

AGAIN = loom.Retry(attempts=50, mode="continue", backoff=(0.5, 2.0))

app = loom.App()


@app.actor(retry=AGAIN, max_crashes=50)
async def child(n: int, ctx: loom.Context) -> AsyncIterator[int]:
    for value in range(sum(chunk.type == "data" for chunk in ctx.previous), n):
        yield value
        await asyncio.sleep(0.5)


@app.actor(retry=AGAIN, max_crashes=50)
async def parent(n: int, ctx: loom.Context) -> int:
    total = 0
    for number in range(n):
        run = await ctx.client.start(child, 3, id=f"{ctx.run_id}.{number}")
        total += sum([value async for value in run.values()])
        await ctx.sleep(1.0)
    return total


@pytest.mark.parametrize("seed", range(8))
def test_every_parent_ends_whatever_befalls_its_workers(seed: int) -> None:
    report = simulate(app, [("parent", {"n": 3})] * 6, seed=seed, faults=Faults(kill=2))
    assert report.ok, report
