"""A ctx without a run behaves as a run's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

import loom
import loom.testing
from loom.testing import FakeAI, context

pytestmark = pytest.mark.anyio


async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
    for chunk in ctx.previous:
        yield f"({chunk.data})"
    async for token in ctx.ai.stream_completion(prompt):
        yield token
    answer = await ctx.receive("approve")
    await ctx.emit(loom.Progress(1, 2))
    yield str(answer.data)


async def test_a_producer_is_called_plainly() -> None:
    ctx = context(ai=FakeAI(["a", "b"]), previous=["x"], messages=[loom.Message("approve", True)])
    assert [token async for token in chat("hi", ctx)] == ["(x)", "a", "b", "True"]
    assert ctx.emitted == [loom.Chunk("progress", progress=loom.Progress(1, 2))]
    assert ctx.attempt == 2


async def test_what_is_not_scripted_fails_at_once() -> None:
    ctx = context()
    with pytest.raises(TimeoutError, match="approve"):
        await ctx.receive("approve")
    with pytest.raises(loom.UsageError, match="FakeAI"):
        _ = ctx.ai
    with pytest.raises(loom.LocalProtocolError):
        await ctx.emit(loom.Chunk("complete"))


def test_outside_a_loop_for_sync_producers() -> None:
    ctx = context(messages=[loom.Message("go", 1), loom.Message("stop", 2)])
    ctx.emit_sync({"a": (1, 2)})
    assert ctx.emitted[0].data == {"a": [1, 2]}
    assert ctx.receive_sync("stop").data == 2
    assert ctx.receive_sync().data == 1
    assert not ctx.cancelled
    ctx.cancel()
    assert ctx.cancelled


async def test_the_whole_thing_in_memory() -> None:
    app = loom.App(ai=FakeAI(["Hello", " there"]))

    @app.actor("say")
    async def say(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
        async for token in ctx.ai.stream_completion(prompt):
            yield token

    async with loom.testing.client(app) as client:
        assert await client.execute(say, "hi") == "Hello there"
        assert await (await client.start(say, "hi")) == "Hello there"


async def test_a_client_is_lent_to_a_plain_call() -> None:
    app = loom.App()

    @app.actor
    async def child(n: int) -> int:
        return n + 1

    async def parent(n: int, ctx: loom.Context) -> int:
        await ctx.sleep(3600)
        return await ctx.client.execute(child, n)

    async with loom.testing.client(app) as client:
        ctx = loom.testing.context(client=client)
        assert await parent(1, ctx) == 2
        assert ctx.slept == [3600]
        with pytest.raises(loom.UsageError, match="SyncClient"):
            _ = ctx.client_sync


def test_a_blocking_client_is_lent_to_a_plain_call() -> None:
    app = loom.App()

    @app.actor
    async def child(n: int) -> int:
        return n + 1

    def parent(n: int, ctx: loom.Context) -> int:
        ctx.sleep_sync(timedelta(hours=1))
        return ctx.client_sync.execute(child, n)

    with loom.connect_sync("memory://", app=app, worker=True, drain=0) as client:
        ctx = loom.testing.context(client=client)
        assert parent(1, ctx) == 2
        assert ctx.slept == [3600]
        with pytest.raises(loom.UsageError, match=r"ctx\.client"):
            _ = ctx.client


def test_without_a_client_it_says_how_to_give_one() -> None:
    with pytest.raises(loom.UsageError, match=r"testing\.context\(client="):
        _ = loom.testing.context().client
