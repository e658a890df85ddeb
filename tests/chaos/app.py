"""The producers that the chaos tests kill."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import loom

GATED = 10
"""Chunks that a run says before it waits for its gate."""

app = loom.App()


@app.actor("count", retry=loom.Retry(attempts=50, mode="continue"), max_crashes=50)
async def count(n: int, ctx: loom.Context, pace: float = 0.01, gate: str = "") -> AsyncIterator[dict[str, int]]:
    for i in range(len([c for c in ctx.previous if c.type == "data"]), n):
        await asyncio.sleep(pace)
        await opened(gate, i)
        yield {"i": i}


@app.actor("once")
async def once(n: int, pace: float = 0.01, gate: str = "") -> AsyncIterator[dict[str, int]]:
    """As `count`, but it cannot go on elsewhere."""
    for i in range(n):
        await asyncio.sleep(pace)
        await opened(gate, i)
        yield {"i": i}


async def opened(gate: str, i: int) -> None:
    """Until the file `gate` is there; a run without a gate, or one that has hardly begun, goes on at once."""
    while gate and i >= GATED and not os.path.exists(gate):  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
