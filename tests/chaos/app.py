"""The producers that the chaos tests kill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import loom

app = loom.App()


@app.actor("count", retry=loom.Retry(attempts=50, mode="continue"), max_crashes=50)
async def count(n: int, ctx: loom.Context, pace: float = 0.01) -> AsyncIterator[dict[str, int]]:
    for i in range(len([c for c in ctx.previous if c.type == "data"]), n):
        await asyncio.sleep(pace)
        yield {"i": i}


@app.actor("once")
async def once(n: int, pace: float = 0.01) -> AsyncIterator[dict[str, int]]:
    """As `count`, but it cannot go on elsewhere."""
    for i in range(n):
        await asyncio.sleep(pace)
        yield {"i": i}
