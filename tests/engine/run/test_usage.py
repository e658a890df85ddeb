"""What a run's models use, in the chunk that ends it: summed, over rounds, tasks and attempts, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import loom
from loom.engine.run.usage import Meter, current_meter, metered
from loom.model.chunk import Chunk
from loom.model.parts import FinishReasonPart, Usage, UsagePart
from loom.testing import FakeAI, client

pytestmark = pytest.mark.anyio

SAID: list[Any] = ["Hel", "lo", FinishReasonPart("stop"), UsagePart(10, 2)]


async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
    async for token in ctx.ai.stream_completion(prompt, continue_from=ctx.said()):
        yield token


async def ended(app: loom.App, **input: Any) -> tuple[Chunk[Any], Usage | None]:
    async with client(app) as runs:
        run = await runs.start("actor", input)
        chunks = [chunk async for chunk in run.chunks(raise_errors=False)]
        return chunks[-1], await run.usage()


def app_of(target: Any, ai: Any, **options: Any) -> loom.App:
    app = loom.App(ai=ai)
    app.actor("actor", **options)(target)
    return app


async def test_the_last_chunk_says_what_was_used() -> None:
    last, usage = await ended(app_of(chat, FakeAI(SAID)), prompt="hi")
    assert last.type == "complete"
    assert last.usage == usage == Usage(10, 2, calls=1)


async def test_a_run_that_asked_no_model_says_nothing() -> None:
    async def plain() -> int:
        return 1

    last, usage = await ended(app_of(plain, FakeAI([])))
    assert (last.usage, usage) == (None, None)


async def test_calls_of_any_model_in_any_task_are_summed() -> None:
    other = FakeAI(SAID)

    async def team(ctx: loom.Context) -> int:
        await asyncio.gather(ctx.ai.complete("a"), ctx.ai.complete("b"), other.complete("c"))
        return 1

    assert (await ended(app_of(team, FakeAI(SAID))))[1] == Usage(30, 6, calls=3)


async def test_a_failed_run_keeps_it_and_what_was_cut_is_uncounted() -> None:
    early = [UsagePart(10, 1), "Hel", loom.Unavailable("gone")]
    for script, usage in (
        (early, Usage(10, 1, calls=1, uncounted=1)),
        (["Hel", loom.Unavailable("gone")], Usage(0, 0, calls=1, uncounted=1)),
        (["Hello"], Usage(0, 0, calls=1, uncounted=1)),
    ):
        last, used = await ended(app_of(chat, FakeAI(script)), prompt="hi")
        assert last.type == ("complete" if script == ["Hello"] else "error")
        assert used == last.usage == usage


async def test_a_cancelled_run_keeps_it() -> None:
    app = app_of(chat, FakeAI([[UsagePart(10, 1), "Hel", asyncio.Event()]]))
    async with client(app) as runs:
        run = await runs.start("actor", {"prompt": "hi"})
        async with aclosing(run.values()) as values:
            assert await anext(values) == "Hel"
        await run.cancel(wait=True, timeout=10)
        assert await run.usage() == Usage(10, 1, calls=1, uncounted=1)
        assert (await run.status()).state == "cancelled"


async def test_meters_are_told_apart() -> None:
    one, two = Meter(), Meter()
    assert current_meter() is None
    with metered(one):
        with metered(two):
            assert current_meter() is two
        assert current_meter() is one
    assert current_meter() is None
