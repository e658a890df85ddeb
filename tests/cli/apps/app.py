"""What the command line's tests run. Nothing here sleeps to be slow: producers wait to be told to go on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import loom

app = loom.App()


@app.actor("count", retry=loom.Retry(attempts=50, mode="continue"), max_crashes=50)
async def count(n: int, ctx: loom.Context) -> AsyncIterator[dict[str, int]]:
    for i in range(len([chunk for chunk in ctx.previous if chunk.type == "data"]), n):
        await asyncio.sleep(0.001)
        yield {"i": i}


@app.actor
async def echo(text: str) -> AsyncIterator[str]:
    """Says a text, a word at a time."""
    for word in text.split(" "):
        yield word + " "


@app.actor
async def pieces(parts: list[str], ctx: loom.Context) -> AsyncIterator[str]:
    """Says each part when it is told `go`."""
    for part in parts:
        yield part
        await ctx.receive("go")


@app.actor
async def steps(total: int, ctx: loom.Context) -> AsyncIterator[str | loom.Progress | loom.Chunk[str]]:
    """Reports progress, each time it is told `go`."""
    for step in range(total):
        yield loom.Progress(step, total, f"step {step}")
        await ctx.receive("go")
        yield f"did {step}\n"
    yield loom.Chunk("stage", "tidying up")


@app.actor
async def add(a: int, b: int = 1) -> int:
    return a + b


@app.actor
async def nothing() -> None:
    pass


@app.actor
async def fails() -> AsyncIterator[str]:
    yield "so far so good"
    raise ValueError("the producer\nbroke")


@app.actor(retry=loom.Retry(mode="restart", backoff=(0.001, 0.002)))
async def flaky(ctx: loom.Context) -> AsyncIterator[str]:
    """Takes back what it said, once."""
    yield f"attempt {ctx.attempt} "
    if ctx.attempt == 1:
        raise OSError("try again")
    yield "stands"


@app.actor(retry=loom.Retry(attempts=2, backoff=(0.001, 0.002)))
async def hopeless() -> None:
    raise OSError("again and again")


@app.actor
async def stubborn(ctx: loom.Context) -> AsyncIterator[str]:
    """Does not stop when it is cancelled, but when it is told `go`."""
    yield "here"
    while True:
        try:
            await ctx.receive("go")
            return
        except asyncio.CancelledError:
            continue


@app.actor
async def forever(ctx: loom.Context) -> AsyncIterator[str]:
    """Says one thing, then waits until it is cancelled."""
    yield "said "
    await ctx.receive("never")


@app.actor
async def flood() -> AsyncIterator[str]:
    """Never ends."""
    while True:
        yield "x" * 1000 + "\n"
        await asyncio.sleep(0.001)


@app.actor
def prints() -> Iterator[str]:
    """Prints besides what it says."""
    yield "said\n"
    print("printed to stdout")
    print("printed to stderr", file=sys.stderr)
    yield "said again\n"


@app.actor
async def dies() -> AsyncIterator[str]:
    """Takes its whole process along."""
    yield "last words"
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGKILL)
