"""The same streams as Loom runs: each chunk is encoded, stored, fanned out, resumable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from sources import beats, moments, tokens

import loom

app = loom.App()


@app.actor
async def ready(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"


@app.actor
async def turns(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"token {i}"
        await asyncio.sleep(0)


@app.actor
async def ticks(every: float) -> AsyncIterator[dict[str, float]]:
    yield {"t": time.time()}
    async for _ in beats(every):
        yield {"t": time.time()}


@app.actor
async def bursts(every: float) -> AsyncIterator[dict[str, float]]:
    async for moment in moments.every(every):
        yield {"t": moment}


@app.actor
async def paced(n: int) -> AsyncIterator[dict[str, float]]:
    for _ in range(n):
        yield {"t": time.time()}
        await asyncio.sleep(0.005)


@app.actor
async def chat(prompt: str) -> AsyncIterator[str]:
    async with aclosing(tokens(prompt)) as said:
        async for token in said:
            yield token
