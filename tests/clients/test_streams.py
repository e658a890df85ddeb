"""Starting, owning, following and resuming runs: the same at every place."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

import loom
from loom.model.grammar import State, advance

from .places import Connected

pytestmark = pytest.mark.anyio


class Counter:
    """What a producer notes of itself."""

    def __init__(self) -> None:
        self.made = 0
        self.gone = asyncio.Event()


def counting(counter: Counter | None = None) -> tuple[loom.App, Any]:
    """An app with one actor, which counts to `n`, or until it is told to stop."""
    app = loom.App()
    counter = counter or Counter()

    @app.actor
    async def count(ctx: loom.Context, n: int, endless: bool = False) -> AsyncIterator[int]:
        try:
            for i in range(n):
                counter.made += 1
                yield i
            if endless:
                await ctx.receive("stop")
        finally:
            counter.gone.set()

    return app, count


async def all_of(chunks: AsyncIterator[loom.Chunk[Any]]) -> list[loom.Chunk[Any]]:
    return [chunk async for chunk in chunks]


def check_log(chunks: list[loom.Chunk[Any]]) -> None:
    """The whole of one run's log: positions dense from 1, grammatical, ended."""
    assert [chunk.seq for chunk in chunks] == list(range(1, len(chunks) + 1))
    state = State.NEW
    for chunk in chunks:
        state = advance(state, chunk.type)
    assert state is State.ENDED


# --- owned -----------------------------------------------------------------------------------------------------------


async def test_a_run_is_streamed(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client, client.stream(count, 3) as run:
        chunks = await all_of(run.chunks())
    check_log(chunks)
    assert [chunk.type for chunk in chunks] == ["start", "data", "data", "data", "complete"]
    assert [chunk.data for chunk in chunks if chunk.type == "data"] == [0, 1, 2]
    assert chunks[0].data == {"attempt": 1, "actor": "count", "kept_through": 0}
    assert len({chunk.epoch for chunk in chunks}) == 1
    assert all(earlier.time <= later.time for earlier, later in itertools.pairwise(chunks))


async def test_leaving_the_block_cancels(connected: Connected) -> None:
    counter = Counter()
    app, count = counting(counter)
    async with connected(app) as client:
        async with client.stream(count, 3, endless=True) as run:
            async for value in run.values():
                if value == 2:
                    break
        head = await run.wait(timeout=20)
        assert head.state == "cancelled"
        assert counter.gone.is_set()
        check_log(await all_of(run.chunks(raise_errors=False)))


async def test_an_error_in_the_block_cancels(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.stream(count, 3, endless=True) as run:
                raise ZeroDivisionError
        assert (await run.wait(timeout=20)).state == "cancelled"


async def test_leaving_after_the_end_changes_nothing(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        async with client.stream(count, 3) as run:
            assert [value async for value in run.values()] == [0, 1, 2]
        assert (await run.status()).state == "completed"


async def test_the_short_forms(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        chunks = [chunk async for chunk in client.stream(count, 2)]
        check_log(chunks)
        assert [value async for value in client.stream(count, 2).values()] == [0, 1]


async def test_closing_a_short_form_cancels(connected: Connected) -> None:
    counter = Counter()
    app, count = counting(counter)
    async with connected(app) as client:
        async with aclosing(client.stream(count, 3, endless=True).values()) as values:
            assert await anext(values) == 0
        async with asyncio.timeout(20):
            await counter.gone.wait()
        (head,) = await client.runs()
        assert (await client.run(head.meta.run).wait(timeout=20)).state == "cancelled"


# --- detached --------------------------------------------------------------------------------------------------------


async def test_a_started_run_goes_on_without_us(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 3, endless=True)
        async with aclosing(run.values()) as values:
            assert await anext(values) == 0
        assert (await run.status()).state == "running"
        await run.send("stop")
        assert await run.result(timeout=20) == [0, 1, 2]


async def test_by_name_as_well_as_by_function(connected: Connected) -> None:
    app = loom.App()

    @app.actor("to-ten")
    async def up_to(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    async with connected(app) as client:
        for run in (
            await client.start(up_to, 2),
            await client.start(up_to, n=2),
            await client.start("to-ten", 2),
            await client.start("to-ten", {"n": 2}),
            await client.start("to-ten", n=2),
        ):
            assert [value async for value in run.values()] == [0, 1]
            assert (await run.status()).meta.actor == "to-ten"


async def test_positional_and_keyword_input(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def join(first: str, second: str, *, by: str = "-") -> str:
        return first + by + second

    async with connected(app) as client:
        assert await client.execute(join, "a", "b") == "a-b"
        assert await client.execute(join, "a", second="b", by="+") == "a+b"
        assert await client.execute("join", first="a", second="b", by="*") == "a*b"


async def test_a_handle_by_id(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 3)
        other = client.run(run.id)
        assert await all_of(other.chunks()) == await all_of(run.chunks())
        assert await other.result() == [0, 1, 2]


async def test_a_handle_on_nothing_says_so_when_used(connected: Connected) -> None:
    app, _ = counting()
    async with connected(app) as client:
        run = client.run("no-such-run")
        for call in (run.status, run.result, run.wait, run.text, run.cancel, lambda: run.send("x")):
            with pytest.raises(loom.LogNotFound):
                await call()
        with pytest.raises(loom.LogNotFound):
            await all_of(run.chunks())
        with pytest.raises(loom.InvalidInput):
            client.run("no id at all/")


async def test_many_viewers_see_the_same(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 200, endless=True)
        viewers = [asyncio.ensure_future(all_of(client.run(run.id).chunks())) for _ in range(20)]
        await run.send("stop")
        seen = await asyncio.gather(*viewers)
        check_log(seen[0])
        assert all(chunks == seen[0] for chunks in seen)


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["Cursor", "str"])
async def test_resuming_at_every_cut(connected: Connected, form: str) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 30)
        whole = await all_of(run.chunks())
        check_log(whole)
        for place, chunk in enumerate(whole, 1):
            after = chunk.cursor if form == "Cursor" else str(chunk.cursor)
            assert await all_of(run.chunks(after)) == whole[place:]


async def test_resuming_while_it_runs(connected: Connected) -> None:
    """A viewer that leaves after every chunk, and comes back, misses nothing and sees nothing twice."""
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 20, endless=True)
        seen: list[loom.Chunk[Any]] = []
        while not seen or seen[-1].type != "complete":
            async with aclosing(run.chunks(after=seen[-1].cursor if seen else None)) as chunks:
                seen.append(await anext(chunks))
            if seen[-1].data == 19:
                await run.send("stop")
        check_log(seen)
        assert seen == await all_of(run.chunks())


@pytest.mark.parametrize("limit_bytes", [1, 200])
async def test_pages_within_bytes(connected: Connected, limit_bytes: int) -> None:
    """As the run goes, and of one that has ended."""
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 50, endless=True)
        live = client.transport.follow(run.id, limit_bytes=limit_bytes)
        pages = [await anext(live)]
        await run.send("stop")
        pages += [page async for page in live]
        again = [page async for page in client.transport.follow(run.id, pages[0].cursor, limit_bytes=limit_bytes)]
        for each in (pages, again):
            assert all(len(page) == 1 or page.size <= limit_bytes for page in each)
            assert each[-1].ended
        lines = [line for page in pages for line in page.lines()]
        assert [cursor.seq for cursor, _ in lines] == list(range(1, 53))
        assert [line for page in again for line in page.lines()] == lines[len(pages[0]) :]


async def test_a_cursor_of_another_history_is_refused(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 3)
        await run.wait(timeout=20)
        for cursor in (loom.Cursor(7, 2), loom.Cursor((await all_of(run.chunks()))[0].epoch, 99)):
            with pytest.raises(loom.CursorExpired) as caught:
                await all_of(run.chunks(after=cursor))
            assert caught.value.details == {"earliest": None}
        with pytest.raises(loom.UsageError):
            await all_of(run.chunks(after="yesterday"))


# --- in time ---------------------------------------------------------------------------------------------------------


async def test_each_chunk_is_seen_before_the_next_is_said(connected: Connected) -> None:
    """The producer waits for the viewer's word before it goes on; so whatever was said has been seen."""
    app = loom.App()
    said: list[int] = []

    @app.actor
    async def dialogue(n: int, ctx: loom.Context) -> AsyncIterator[int]:
        for i in range(n):
            said.append(i)
            yield i
            assert (await ctx.receive("seen", timeout=20)).data == i

    async with connected(app) as client:
        run = await client.start(dialogue, 30)
        async with asyncio.timeout(60):
            async for value in run.values():
                assert said == list(range(value + 1))
                await run.send("seen", value)
        assert len(said) == 30


async def test_cancelling_a_viewer_leaves_the_run_alone(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 1, endless=True)
        values = run.values()
        assert await anext(values) == 0
        waiting = asyncio.ensure_future(anext(values))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await run.send("stop")
        assert await run.result(timeout=20) == [0]


# --- closed ----------------------------------------------------------------------------------------------------------


async def test_after_leaving_everything_says_closed(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 1, endless=True)
        held = run.chunks()
        assert (await anext(held)).type == "start"
    calls = [
        lambda: client.start(count, 1),
        lambda: client.execute(count, 1),
        client.runs,
        client.actors,
        run.status,
        run.result,
        run.text,
        run.cancel,
        lambda: run.send("stop"),
        lambda: all_of(run.chunks()),
        lambda: all_of(held),
        lambda: client.stream(count, 1).__aenter__(),
    ]
    for call in calls:
        with pytest.raises(loom.HandleClosed):
            await cast(Any, call)()
    with pytest.raises(loom.HandleClosed):
        client.run(run.id)


async def test_leaving_ends_who_waits(connected: Connected) -> None:
    app, count = counting()
    async with connected(app) as client:
        run = await client.start(count, 1, endless=True)
        values = run.values()
        assert await anext(values) == 0
        waiting = asyncio.ensure_future(anext(values))
        await asyncio.sleep(0)
    with pytest.raises(loom.HandleClosed):
        async with asyncio.timeout(20):
            await waiting
