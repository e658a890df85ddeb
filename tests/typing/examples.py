"""What the documentation shows, completed and put into functions. Both type checkers read it; each `assert_type` says
what a user's editor shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

import flask
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

import loom
from loom.blocking import SyncRun

app = loom.App()


class Approval(msgspec.Struct):
    granted: bool


@dataclass
class Answer:
    text: str


@app.actor("chat-agent")
async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
    async for token in ctx.ai.stream_completion(prompt):
        yield token


@app.actor
async def context_first(ctx: loom.Context, a: int, *, b: str = "") -> AsyncIterator[int]:
    yield a + len(b)


@app.actor
async def context_last(a: int, b: str, c: float, d: bytes, e: bool, ctx: loom.Context) -> AsyncIterator[Answer]:
    yield Answer(b)


@app.actor
async def context_within(n: int, ctx: loom.Context, word: str = "x", *, loud: bool = False) -> AsyncIterator[str]:
    yield word * n


@app.actor("behind-ctx")
async def needed_behind_context(a: int, ctx: loom.Context, *, b: str) -> str:
    return b * a


@app.actor
async def context_after_many(a: int, b: int, c: int, d: int, e: int, f: int, g: int, ctx: loom.Context) -> int:
    return a


@app.actor(timeout=60, priority="low", labels={"team": "a"})
async def context_by_name(a: int, *, b: int = 3, ctx: loom.Context) -> int:
    return a * b


@app.actor
async def context_or_none(a: int, b: str = "", ctx: loom.Context | None = None) -> int:
    return a + len(b)


@app.actor
async def context_alone(ctx: loom.Context) -> int:
    return ctx.attempt


@app.actor
def takes_anything(value: object, ctx: loom.Context) -> str:
    return repr(value)


@app.actor
async def without_context(a: int, b: str = "") -> AsyncIterator[bytes]:
    yield b.encode() * a


@app.actor
async def kinds(ctx: loom.Context) -> AsyncIterator[str | loom.Progress]:
    yield loom.Progress(3, 10, "drafting")
    await ctx.emit(loom.Chunk("stdout", "a line"))
    yield "text"


@app.actor(retry=loom.Retry(attempts=5, on=(IOError,), mode="continue"), max_crashes=50, timeout=60, requires=["db"])
async def double(n: int) -> int:
    return 2 * n


@app.actor
def words(text: str) -> Iterator[str]:
    yield from text.split()


@app.actor
def square(n: int) -> int:
    return n * n


@app.actor
class Shouter:
    async def stream(self, text: str) -> AsyncIterator[str]:
        yield text.upper()


async def owned(url: str) -> None:
    async with (
        loom.connect(url, app=app, worker=True) as client,
        client.stream(chat, "Write a story") as run,
    ):
        assert_type(client, loom.Client)
        assert_type(run, loom.Run[str, Any])
        async for token in run.values():
            print(assert_type(token, str), end="")
        async for chunk in run:
            assert_type(chunk, loom.Chunk[str])


async def short_form(client: loom.Client) -> None:
    async for chunk in client.stream(chat, "hi"):
        assert_type(chunk.data, str)
    async for token in client.stream(chat, "hi").values():
        assert_type(token, str)


async def detached(client: loom.Client) -> None:
    run = await client.start(chat, "Write a story")
    assert_type(run, loom.Run[str, Any])
    named = await client.start("chat-agent", "Write a story", key="u1", timeout=30)
    assert_type(named, loom.Run[Any, Any])


async def resumed(client: loom.Client, run_id: str, cursor: loom.Cursor | None) -> None:
    run = client.run(run_id)
    async for chunk in run.chunks(after=cursor):
        cursor = chunk.cursor
    await run.send("approve", Approval(True))
    await run.cancel()
    await run.result(timeout=30)


async def executed(client: loom.Client) -> None:
    assert_type(await client.execute(chat, "Write a story"), str)
    assert_type(await client.execute(double, 3), int)
    assert_type(await client.execute(square, 3), int)


async def every_kind(client: loom.Client) -> None:
    assert_type(await client.start(context_first, 1, b="x"), loom.Run[int, Any])
    assert_type(await client.start(context_last, 1, "b", 2.0, b"", True), loom.Run[Answer, Any])
    assert_type(await client.start(without_context, 1, b="x"), loom.Run[bytes, Any])
    assert_type(await client.start(double, 3), loom.Run[Any, int])
    assert_type(await client.start(words, "a b"), loom.Run[str, Any])
    assert_type(await client.start(square, 3), loom.Run[Any, int])
    await client.start(kinds)
    await client.start(Shouter, "hey")


async def by_keyword(client: loom.Client) -> None:
    """All that runs is accepted, wherever the Context is."""
    assert_type(await client.start(chat, prompt="hi"), loom.Run[str, Any])
    assert_type(await client.start(chat, "hi", id="once", key="u1"), loom.Run[str, Any])
    assert_type(await client.start(context_first, a=1, b="x"), loom.Run[int, Any])
    assert_type(await client.start(without_context, a=1), loom.Run[bytes, Any])
    assert_type(await client.start(context_last, 1, "b", 2.0, d=b"", e=True), loom.Run[Answer, Any])
    assert_type(await client.start(context_last, a=1, b="b", c=2.0, d=b"", e=True), loom.Run[Answer, Any])
    assert_type(await client.start(context_within, 1), loom.Run[str, Any])
    assert_type(await client.start(context_within, 1, "y", loud=True), loom.Run[str, Any])
    assert_type(await client.start(context_within, n=1, word="y"), loom.Run[str, Any])
    assert_type(await client.execute(needed_behind_context, 1, b="y"), str)
    assert_type(await client.execute(context_after_many, 1, 2, 3, 4, 5, 6, 7), int)
    assert_type(await client.execute(context_after_many, 1, 2, 3, 4, 5, f=6, g=7), int)
    assert_type(await client.execute(context_by_name, 1), int)
    assert_type(await client.execute(context_by_name, 1, b=4), int)
    assert_type(await client.execute(context_by_name, a=1, b=4), int)
    assert_type(await client.execute(context_or_none, 1), int)
    assert_type(await client.execute(context_or_none, 1, "b"), int)
    assert_type(await client.execute(context_alone), int)
    assert_type(await client.execute(takes_anything, [1]), str)


async def with_options(client: loom.Client) -> None:
    bound = chat.using(key="u1", queue="slow", timeout=timedelta(seconds=30), ahead=8, labels={"user": "42"})
    assert_type(await client.start(bound, "hi"), loom.Run[str, Any])
    assert_type(await client.start(bound, prompt="hi"), loom.Run[str, Any])
    assert_type(await client.start(context_first.using(id="once"), a=1), loom.Run[int, Any])
    assert_type(await client.execute(double.using(id="once"), 3), int)


async def approval(ctx: loom.Context) -> bool:
    message = await ctx.receive("approve", into=Approval)
    return assert_type(message.data.granted, bool)


async def models(ctx: loom.Context) -> None:
    assert_type(await ctx.ai.complete("hi"), str)
    assert_type(await ctx.ai.complete(messages=[{"role": "user", "content": "hi"}], temperature=0, max_tokens=9), str)
    assert_type(await ctx.ai.complete("hi", output=Answer, model="a-model"), Answer)
    async for part in ctx.ai.stream_object(Answer, "hi"):
        assert_type(part, loom.ObjectPart[Answer])
        assert_type(part.value, Answer | None)
    async for said in ctx.ai.run_tools("hi", tools=[len]):
        assert_type(said, loom.Part)
    async for token in ctx.ai.stream_completion("hi", continue_from=ctx.said()):
        assert_type(token, str)


async def used(run: loom.Run[str, Any]) -> None:
    assert_type(await run.usage(), loom.Usage | None)


async def errors(run: loom.Run[str, Any]) -> None:
    try:
        await run.result()
    except loom.RunCancelled as error:
        assert_type(error.chunk, loom.Chunk[Any] | None)
        assert_type(error.retryable, bool)


async def in_a_route(client: loom.Client, request: Request) -> loom.EventSourceResponse:
    if request.query_params.get("owned"):
        return loom.EventSourceResponse(client.stream(chat, "hi"), request, headers={"X-Mine": "1"})
    return loom.EventSourceResponse(
        await client.start(chat, "hi"), request, after="1-1", heartbeat=timedelta(seconds=5)
    )


async def mounted() -> None:
    loom_app = loom.asgi("memory://", app=app, worker=True, keys=["secret"])
    api = Starlette(routes=[Mount("/loom", loom_app)], exception_handlers={loom.LoomError: loom.error_response})
    api.add_exception_handler(loom.LoomError, loom.error_response)
    async with loom_app.lifespan() as client:
        assert_type(client, loom.Client)


def in_a_view(last_event_id: str | None) -> tuple[int, dict[str, str], Iterator[bytes]]:
    client = loom.per_process("sqlite:///runs.db", app=app)
    events = loom.sse_events(client().start(chat, "hi"), last_event_id, named=False)
    loom.sse_events(client().stream(chat, "hi")).close()
    loom.sse_events(client().stream(chat, "hi"), flask.request).close()
    loom.sse_events(client().stream(chat, "hi"), request=flask.Request({})).close()
    return events.status, events.headers, events


def blocking(url: str) -> None:
    with loom.connect_sync(url, app=app, worker=True) as client:
        for token in client.stream(chat, "hi").values():
            assert_type(token, str)
        with client.stream(chat, "hi") as run:
            for chunk in run:
                assert_type(chunk.data, str)
        assert_type(client.start(double, 3).result(), int)
        assert_type(client.execute(chat, "hi"), str)
        assert_type(client.execute(square, 3), int)
        assert_type(client.start(words, "a b"), SyncRun[str, Any])
        assert_type(client.start(chat, prompt="hi"), SyncRun[str, Any])
        assert_type(client.execute(context_by_name, a=1, b=4), int)
