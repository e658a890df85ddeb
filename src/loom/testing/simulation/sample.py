"""The workload of the soak: producers of each kind that an engine treats differently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from loom.app import App
from loom.engine.declare.context import Context
from loom.engine.declare.options import Retry
from loom.model.chunk import Progress

from .simulate import Runs

__all__ = ["RUNS", "sample"]

RUNS: Runs = [
    ("tokens", {"count": 40, "pause": 0.5}),
    ("restarts", {"count": 20, "pause": 1.0}, {"ahead": 5}),
    ("restarts", {"count": 5, "pause": 0.1}, {"key": "one"}),
    ("continues", {"count": 60, "pause": 0.3}),
    ("continues", {"count": 10, "pause": 0.1}, {"key": "one"}),
    ("continues", {"count": 300, "pause": 0.0}, {"key": "one"}),
    ("fails", {"before": 3}),
    ("recovers", {"before": 2}),
    ("silent", {"seconds": 25.0}),
    ("tokens", {"count": 1000, "pause": 1.0}, {"timeout": 40.0}),
]
"""Runs of it, in all about 450 chunks."""


def sample() -> App:
    """An app of such producers."""
    app = App()

    @app.actor
    async def tokens(count: int, pause: float) -> AsyncIterator[str]:
        """Is lost with its worker, once it has spoken."""
        for number in range(count):
            yield f"token {number} "
            await asyncio.sleep(pause)

    @app.actor(retry=Retry(attempts=5, backoff=(0.1, 1.0)))
    async def restarts(count: int, pause: float) -> AsyncIterator[int]:
        """Begins anew."""
        for number in range(count):
            yield number
            await asyncio.sleep(pause)

    @app.actor(retry=Retry(attempts=5, mode="continue"), max_crashes=50)
    async def continues(count: int, pause: float, ctx: Context) -> AsyncIterator[int]:
        """Goes on behind what stands: each number comes once, whatever happens."""
        said = [chunk.data for chunk in ctx.previous if chunk.type == "data"]
        for number in range(len(said), count):
            yield number
            if pause:
                await asyncio.sleep(pause)

    @app.actor
    async def fails(before: int) -> AsyncIterator[int]:
        for number in range(before):
            yield number
            await asyncio.sleep(0.2)
        raise ValueError("as it always does")

    @app.actor(retry=Retry(attempts=4, backoff=(0.1, 1.0)))
    async def recovers(before: int, ctx: Context) -> int:
        """Fails at first."""
        await ctx.emit(Progress(ctx.attempt, before))
        if ctx.attempt <= before:
            raise OSError("not yet")
        return ctx.attempt

    @app.actor
    async def silent(seconds: float) -> str:
        """Says nothing before its end: tried again, however often."""
        await asyncio.sleep(seconds)
        return "done"

    return app
