"""The producers of the tests of what happens when; workers in processes of their own drive them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import loom

app = loom.App()


@app.actor
async def silent(ctx: loom.Context) -> str:
    """Says nothing until it is told to go."""
    await ctx.receive("go")
    return f"attempt {ctx.attempt}"


async def speak(ctx: loom.Context) -> AsyncIterator[str]:
    """Says which attempt it is, and one thing more when it is told to go."""
    yield f"attempt {ctx.attempt}"
    await ctx.receive("go")
    yield f"attempt {ctx.attempt} goes on"


app.actor("speak")(speak)
app.actor("restart", retry=loom.Retry(mode="restart"))(speak)
app.actor("continue", retry=loom.Retry(mode="continue"))(speak)


@app.actor
async def count(n: int, ctx: loom.Context) -> AsyncIterator[int]:
    """Counts as it is told to."""
    for number in range(n):
        await ctx.receive("go")
        yield number
