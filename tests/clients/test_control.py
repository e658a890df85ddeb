"""Telling runs, cancelling them, awaiting them, bounding them: the same at every place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

import loom

from .places import Connected

pytestmark = pytest.mark.anyio


class Approval(msgspec.Struct):
    granted: bool
    by: str = "nobody"


class Gone:
    """A proxy whose object is gone."""

    def __getattr__(self, name: str) -> Any:
        raise ReferenceError(name)


NO_UTC = datetime.max.replace(tzinfo=timezone(-timedelta(hours=1, seconds=1)))
"""An instant that has no JSON: in UTC it is later than the last one."""


def listening() -> tuple[loom.App, Any]:
    """An actor that echoes what it is told, until it is told to stop."""
    app = loom.App()

    @app.actor
    async def listen(ctx: loom.Context) -> AsyncIterator[Any]:
        while True:
            message = await ctx.receive()
            if message.type == "stop":
                return
            yield [message.type, message.data]

    return app, listen


async def all_of(chunks: AsyncIterator[loom.Chunk[Any]]) -> list[loom.Chunk[Any]]:
    return [chunk async for chunk in chunks]


# --- send and receive ------------------------------------------------------------------------------------------------


async def test_messages_arrive_in_order(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen)
        for i in range(20):
            await run.send("number", i)
        await run.send("stop")
        assert await run.result(timeout=20) == [["number", i] for i in range(20)]


async def test_a_message_with_an_id_arrives_once(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen)
        for _ in range(3):
            await run.send("a", 1, id="same")
        await run.send("b")
        await run.send("stop")
        assert await run.result(timeout=20) == [["a", 1], ["b", None]]


async def test_a_message_is_received_as_its_type(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def approve(ctx: loom.Context) -> str:
        message = await ctx.receive("approve", into=Approval, timeout=20)
        return f"{message.data.granted} by {message.data.by}"

    async with connected(app) as client:
        run = await client.start(approve)
        await run.send("other", 1)
        await run.send("approve", Approval(True, "me"))
        assert await run.result(timeout=20) == "True by me"


async def test_what_cannot_be_sent(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen)
        for type, data, field in [
            ("a", object(), "data"),
            ("a", Gone(), "data"),
            ("a", NO_UTC, "data"),
            ("no word!", 1, "type"),
        ]:
            with pytest.raises(loom.InvalidInput) as caught:
                await run.send(type, data)
            assert caught.value.details == {"field": field}
        for name, value in [("named", Gone()), ("named", NO_UTC)]:
            with pytest.raises(loom.InvalidInput):
                await client.start(name, value)
        with pytest.raises(loom.LimitExceeded):
            await run.send("a", "x" * 300_000)
        await run.send("stop")
        assert await run.result(timeout=20) is None
        with pytest.raises(loom.LogEnded):
            await run.send("late")


# --- cancel ----------------------------------------------------------------------------------------------------------


async def test_cancelling_what_runs(connected: Connected) -> None:
    """Confirmed by the last chunk, once the producer is gone; what was said stays."""
    app = loom.App()
    gone: list[str] = []

    @app.actor
    async def slow(ctx: loom.Context) -> AsyncIterator[str]:
        try:
            yield "said"
            await ctx.receive("never")
        finally:
            await asyncio.sleep(0)
            gone.append("gone")

    async with connected(app) as client:
        run = await client.start(slow)
        values = run.values()
        assert await anext(values) == "said"
        await run.cancel(wait=True, timeout=20)
        assert gone == ["gone"]
        with pytest.raises(loom.RunCancelled) as caught:
            await anext(values)
        assert caught.value.chunk is not None
        assert caught.value.code == "cancelled"
        chunks = await all_of(run.chunks(raise_errors=False))
        assert [chunk.type for chunk in chunks] == ["start", "data", "error"]
        with pytest.raises(loom.RunCancelled):
            await run.result()
        assert (await run.status()).state == "cancelled"


async def test_cancelling_what_is_queued(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        await client.start(listen, key="k")
        run = await client.start(listen, key="k")
        assert (await run.status()).state == "queued"
        await run.cancel(wait=True, timeout=20)
        (chunk,) = await all_of(run.chunks(raise_errors=False))
        assert chunk.type == "error"
        assert chunk.error is not None
        assert chunk.error.code == "cancelled"
        head = await run.status()
        assert (head.state, head.attempt, head.started) == ("cancelled", 0, None)


async def test_cancelling_what_has_ended(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen)
        await run.send("stop")
        await run.wait(timeout=20)
        before = await all_of(run.chunks())
        for _ in range(2):
            await run.cancel(wait=True)
        assert await all_of(run.chunks()) == before
        assert (await run.status()).state == "completed"


async def test_the_message_that_cancels_is_a_cancel(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen)
        await run.send("cancel")
        assert (await run.wait(timeout=20)).state == "cancelled"


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.05, timedelta(milliseconds=50), 0])
async def test_waiting_has_its_time_and_the_run_goes_on(connected: Connected, timeout: float | timedelta) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen)
        with pytest.raises(TimeoutError):
            await run.result(timeout=timeout)
        with pytest.raises(TimeoutError):
            await run.wait(timeout=timeout)
        await run.send("a")
        await run.send("stop")
        assert await run.result(timeout=20) == [["a", None]]


async def test_execute_raises_what_the_run_ended_with(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def fail(why: str) -> None:
        raise ValueError(why)

    async with connected(app) as client:
        with pytest.raises(loom.RunFailed) as caught:
            await client.execute(fail, "because")
        assert caught.value.message == "ValueError: because"
        assert caught.value.details["type"] == "ValueError"


async def test_cancelling_execute_cancels_the_run(connected: Connected) -> None:
    app = loom.App()
    began, gone = asyncio.Event(), asyncio.Event()

    @app.actor
    async def slow(ctx: loom.Context) -> None:
        began.set()
        try:
            await ctx.receive("never")
        finally:
            gone.set()

    async with connected(app) as client:
        call = asyncio.ensure_future(client.execute(slow))
        async with asyncio.timeout(20):
            await began.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await gone.wait()


async def test_an_error_is_raised_or_given(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def fail() -> AsyncIterator[str]:
        yield "so far"
        raise loom.LimitExceeded("too much", details={"most": 3})

    async with connected(app) as client:
        run = await client.start(fail)
        chunks = run.chunks()
        assert [(await anext(chunks)).type for _ in range(2)] == ["start", "data"]
        with pytest.raises(loom.RunFailed) as caught:
            await anext(chunks)
        given = await all_of(run.chunks(raise_errors=False))
        assert [chunk.type for chunk in given] == ["start", "data", "error"]
        assert caught.value.chunk == given[-1]
        assert caught.value.details["most"] == 3
        assert given[-1].error == caught.value.info


# --- attempts --------------------------------------------------------------------------------------------------------


async def test_a_restart_takes_back_what_was_said(connected: Connected) -> None:
    app = loom.App()

    @app.actor(retry=loom.Retry(attempts=3, on=(OSError,), backoff=(0.001, 0.001)))
    async def moody(ctx: loom.Context) -> AsyncIterator[str]:
        yield f"attempt {ctx.attempt}, "
        if ctx.attempt < 3:
            raise OSError("not yet")
        yield "done"

    async with connected(app) as client:
        run = await client.start(moody)
        await run.wait(timeout=20)
        chunks = await all_of(run.chunks())
        assert [chunk.type for chunk in chunks] == [
            "start",
            "data",
            "start",
            "data",
            "start",
            "data",
            "data",
            "complete",
        ]
        assert [chunk.data["attempt"] for chunk in chunks if chunk.type == "start"] == [1, 2, 3]
        assert len({chunk.epoch for chunk in chunks}) == 3
        assert await run.text() == "attempt 3, done"
        values = run.values()
        assert await anext(values) == "attempt 1, "
        with pytest.raises(loom.RunRestarted) as caught:
            await anext(values)
        behind = caught.value.details["cursor"]
        again = run.values(after=behind)
        assert await anext(again) == "attempt 2, "
        for place, chunk in enumerate(chunks, 1):
            assert await all_of(run.chunks(after=chunk.cursor)) == chunks[place:]


async def test_a_continuing_run_takes_nothing_back(connected: Connected) -> None:
    app = loom.App()

    @app.actor(retry=loom.Retry(attempts=10, mode="continue", backoff=(0.001, 0.001)))
    async def stubborn(n: int, ctx: loom.Context) -> AsyncIterator[int]:
        said = [chunk.data for chunk in ctx.previous if chunk.type == "data"]
        for i in range(len(said), n):
            yield i
            if i == len(said) + 1:
                raise OSError("again")

    async with connected(app) as client:
        run = await client.start(stubborn, 8)
        assert [value async for value in run.values()] == list(range(8))
        assert (await run.status()).attempt > 2


# --- identity --------------------------------------------------------------------------------------------------------


async def test_starting_twice_with_one_id_is_starting_once(connected: Connected) -> None:
    app = loom.App()
    ran: list[int] = []

    @app.actor
    async def note(n: int) -> int:
        ran.append(n)
        return n

    async with connected(app) as client:
        runs = [await client.start(note.using(id="mine"), 1) for _ in range(3)]
        assert {run.id for run in runs} == {"mine"}
        assert [await run.result(timeout=20) for run in runs] == [1, 1, 1]
        assert await (await client.start("note", n=1, id="mine")).result() == 1
        assert ran == [1]
        with pytest.raises(loom.Conflict):
            await client.start(note.using(id="mine"), 2)
        assert len(await client.runs()) == 1
        with pytest.raises(loom.InvalidInput) as caught:
            await client.start(note.using(id="no id!"), 1)
        assert caught.value.details == {"field": "id"}


def noting() -> tuple[loom.App, list[Any], dict[str, Any]]:
    """Actors of each kind of input, what they were called with, and themselves."""
    app = loom.App()
    ran: list[Any] = []

    @app.actor
    async def note(n: int) -> None:
        ran.append(n)

    @app.actor
    async def measure(n: float) -> None:
        ran.append(n)

    @app.actor
    async def pair(a: int, b: int = 2) -> None:
        ran.append((a, b))

    @app.actor
    async def nothing() -> None:
        ran.append(None)

    @app.actor
    async def approve(what: Approval) -> None:
        ran.append(what)

    @app.actor
    async def consider(what: Approval | None = None) -> None:
        ran.append(what)

    @app.actor
    async def anything(what: Any) -> None:
        ran.append(what)

    return app, ran, {each.name: each for each in (note, measure, pair, nothing, approve, consider, anything)}


Call = tuple[tuple[Any, ...], dict[str, Any]]
SAME: list[tuple[str, list[Call], list[Call]]] = [
    ("note", [((1,), {}), ((), {"n": 1})], [((1,), {}), ((), {"n": 1}), (({"n": 1},), {})]),
    ("measure", [((1.0,), {}), ((1,), {})], [((1,), {}), ((1.0,), {}), (({"n": 1},), {})]),
    ("pair", [((1, 3), {}), ((1,), {"b": 3})], [((), {"b": 3, "a": 1}), (({"a": 1, "b": 3},), {})]),
    ("nothing", [((), {})], [((), {}), (({},), {}), ((None,), {})]),
    (
        "approve",
        [((Approval(True),), {}), ((), {"what": Approval(True, "nobody")})],
        [(({"granted": True},), {}), ((), {"granted": True, "by": "nobody"})],
    ),
    (
        "consider",
        [((Approval(True),), {})],
        [(({"granted": True},), {}), ((), {"what": {"granted": True}}), ((Approval(True),), {})],
    ),
    ("consider", [((), {})], [((), {}), (({},), {})]),
    ("anything", [(([1],), {})], [(([1],), {}), ((), {"what": [1]})]),
]


@pytest.mark.parametrize(("actor", "called", "named"), SAME)
async def test_starting_twice_is_starting_once_however_the_input_is_given(
    connected: Connected, actor: str, called: list[Call], named: list[Call]
) -> None:
    """By the function or by name, by position, by name or as one object: the same meaning is the same request."""
    app, ran, actors = noting()
    async with connected(app) as client:
        ways = [(actors[actor], call) for call in called] + [(actor, call) for call in named]
        for id, order in (("mine", ways), ("yours", ways[::-1])):
            for what, (args, kwargs) in order:
                run: loom.Run[Any, Any] = await client.start(what, *args, id=id, **kwargs)
            await run.wait(timeout=20)
        assert len(ran) == len(await client.runs()) == 2
        assert ran[0] == ran[1]


@pytest.mark.parametrize(
    ("actor", "first", "second"),
    [("note", 1, 2), ("anything", 1, True), ("anything", 1, "1"), ("anything", [1], [1, None]), ("anything", 0, None)],
)
async def test_another_input_is_another_request(connected: Connected, actor: str, first: Any, second: Any) -> None:
    """Also where Python takes both for equal."""
    app, ran, _ = noting()
    async with connected(app) as client:
        run = await client.start(actor, first, id="mine")
        with pytest.raises(loom.Conflict):
            await client.start(actor, second, id="mine")
        await run.wait(timeout=20)
        assert ran == [first]


async def test_runs_of_one_key_go_one_at_a_time_in_order(connected: Connected) -> None:
    app = loom.App()
    notes: list[str] = []

    @app.actor
    async def turn(name: str, ctx: loom.Context) -> None:
        notes.append(f"{name} begins")
        await ctx.receive("go", timeout=20)
        notes.append(f"{name} ends")

    async with connected(app) as client:
        a, b, c = [await client.start(turn.using(key="user-1"), name) for name in "abc"]
        other = await client.start(turn.using(key="user-2"), "other")
        for run in (c, b, other):
            await run.send("go")
        await other.wait(timeout=20)
        assert [note for note in notes if "other" not in note] in (["a begins"], [])
        await a.send("go")
        for run in (a, b, c):
            await run.result(timeout=20)
        assert [note for note in notes if "other" not in note] == [
            "a begins", "a ends", "b begins", "b ends", "c begins", "c ends",
        ]  # fmt: skip
        assert (await b.status()).meta.key == "user-1"


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"), [({"timeout": 0.1}, "deadline_exceeded"), ({"idle_timeout": 0.1}, "idle_timeout")]
)
async def test_a_run_that_takes_too_long(connected: Connected, options: dict[str, float], code: str) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen, **options)
        with pytest.raises(loom.RunFailed) as caught:
            await run.result(timeout=20)
        assert caught.value.code == code
        assert (await run.status()).state == "failed"
        for name, value in options.items():
            assert getattr((await run.status()).meta, name) == value


@pytest.mark.parametrize("field", ["timeout", "idle_timeout", "ahead"])
async def test_bounds_that_are_none(connected: Connected, field: str) -> None:
    app, listen = listening()
    async with connected(app) as client:
        with pytest.raises(loom.InvalidInput) as caught:
            await client.start(listen, **{field: -1})
        assert caught.value.details == {"field": field}
        assert await client.runs() == []


# --- back-pressure ---------------------------------------------------------------------------------------------------


class Eager:
    """A producer that would say all at once, and counts what it has made."""

    def __init__(self) -> None:
        self.made = 0
        self.app = loom.App()

        @self.app.actor
        async def eager(n: int, ctx: loom.Context) -> AsyncIterator[int]:
            await ctx.receive("go")
            for i in range(n):
                self.made += 1
                yield i

        self.actor = eager

    async def stands_at(self, run: loom.Run[Any, Any], tail: int) -> None:
        """It reaches chunk `tail`, and no further however often one looks."""
        async with asyncio.timeout(20):
            while True:
                if (await run.status()).tail >= tail:
                    break
                await asyncio.sleep(0)
        for _ in range(20):
            assert (await run.status()).tail == tail
        assert self.made == tail - 1  # the first chunk is `start`


async def test_a_run_waits_for_its_slowest_reader(connected: Connected) -> None:
    eager = Eager()
    async with connected(eager.app) as client:
        run = await client.start(eager.actor.using(ahead=3), 40)
        async with aclosing(run.chunks()) as slow, aclosing(run.chunks()) as quick:
            assert (await anext(slow)).type == "start"
            assert (await anext(quick)).type == "start"
            await run.send("go")
            assert (await anext(slow)).data == 0  # asked for behind `start`, at 1
            await eager.stands_at(run, 0 + 3)  # the other has not asked for anything behind it yet
            for i in range(3):
                assert (await anext(quick)).data == i
            await eager.stands_at(run, 1 + 3)
            async for chunk in slow:
                assert eager.made <= chunk.seq + 3
                if chunk.type == "data" and chunk.data > 2:
                    break
        assert await run.result(timeout=20) == list(range(40))  # both have left: it runs on
        assert eager.made == 40


async def test_without_readers_nothing_waits(connected: Connected) -> None:
    eager = Eager()
    async with connected(eager.app) as client:
        run = await client.start(eager.actor.using(ahead=3), 40)
        await run.send("go")
        await run.wait(timeout=20)
        assert eager.made == 40
        assert [value async for value in run.values()] == list(range(40))


async def test_a_reader_that_comes_back_holds_it_again(connected: Connected) -> None:
    eager = Eager()
    async with connected(eager.app) as client:
        run = await client.start(eager.actor.using(ahead=2), 30)
        seen: list[loom.Chunk[Any]] = []
        async with aclosing(run.chunks()) as chunks:
            seen.append(await anext(chunks))
            await run.send("go")
            seen.append(await anext(chunks))
            await eager.stands_at(run, 1 + 2)
            async for chunk in chunks:
                seen.append(chunk)
                assert eager.made <= chunk.seq + 2
        assert [chunk.data for chunk in seen if chunk.type == "data"] == list(range(30))


# --- lists -----------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first(connected: Connected) -> None:
    app, listen = listening()

    @app.actor
    async def other() -> int:
        return 1

    async with connected(app) as client:
        ids = [(await client.start(listen)).id for _ in range(3)]
        done = await client.start(other)
        await done.wait(timeout=20)
        assert [head.meta.run for head in await client.runs()] == [done.id, *reversed(ids)]
        assert [head.meta.run for head in await client.runs(limit=2)] == [done.id, ids[2]]
        assert [head.meta.run for head in await client.runs(before=ids[2])] == [ids[1], ids[0]]
        assert [head.meta.run for head in await client.runs(actor="other")] == [done.id]
        assert [head.meta.run for head in await client.runs(state="completed")] == [done.id]
        assert await client.runs(state="failed") == []
        with pytest.raises(loom.LogNotFound):
            await client.runs(before="nobody")


async def test_a_runs_status(connected: Connected) -> None:
    app, listen = listening()
    async with connected(app) as client:
        run = await client.start(listen, key="k", id="r")
        await run.send("a")
        await anext(run.values())
        head = await run.status()
        assert (head.meta.run, head.meta.actor, head.meta.key) == ("r", "listen", "k")
        assert (head.state, head.ended, head.attempt, head.tail) == ("running", False, 1, 2)
        assert head.meta.created <= (head.started or 0.0)
        coming = run.chunks(after=head.latest)
        await run.send("b")
        assert (await anext(coming)).data == ["b", None]
        await run.send("stop")
        head = await run.wait(timeout=20)
        assert (head.state, head.ended, head.tail, head.error) == ("completed", True, 4, None)
        assert (head.ended_at or 0.0) >= (head.started or 0.0)
