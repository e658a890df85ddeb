"""A log that goes on for ever, trimmed by its writer; and what then holds for who reads it, or goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import loom
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.writer import BATCH_BYTES, Writer
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import CursorExpired, RunFailed, RunLost, UsageError
from loom.model.keep import Keep
from loom.stores.memory import MemoryStore
from loom.tasks import spawn
from loom.wire.json import decode_batch
from tests.engine.kit import chunks_in, data_in, open_log, running, until
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture(params=["waits", "at once"])
def store(virtual_time: Clock, request: pytest.FixtureRequest) -> Any:
    store = MemoryStore(clock=virtual_time)
    return FaultStore(store) if request.param == "waits" else store


async def writer_on(store: Any, keep: Keep | None) -> Writer:
    writer = Writer(store.logs, "run", await open_log(store), keep=keep)
    writer.put(Chunk("start", {"attempt": 1}))
    await writer.flush()
    return writer


async def say(writer: Writer, count: int, data: Any = "x") -> None:
    """A batch each."""
    for _ in range(count):
        writer.put(Chunk("data", data))
        await writer.flush()


async def kept(store: Any) -> int:
    head = await store.runs.get("run")
    return int(head.tail - head.first + 1)


async def test_a_log_is_trimmed_as_it_grows(store: Any) -> None:
    writer = await writer_on(store, Keep(chunks=80))
    for _ in range(10):
        await say(writer, 50)
        await asyncio.sleep(0.1)
        assert await kept(store) <= 91
    assert await kept(store) >= 80
    await writer.end(Chunk("complete"))
    await writer.aclose()


async def test_what_is_too_old_goes_by_itself(store: Any) -> None:
    writer = await writer_on(store, Keep(age=80.0))
    for _ in range(20):
        await say(writer, 1)
        await asyncio.sleep(10.0)
    assert 7 <= await kept(store) <= 11
    await asyncio.sleep(200.0)
    assert await kept(store) <= 2
    await writer.aclose()


async def test_without_keep_nothing_goes(store: Any) -> None:
    writer = await writer_on(store, None)
    await say(writer, 500)
    assert await kept(store) == 501
    await writer.aclose()


async def test_a_store_that_does_not_trim_is_asked_again(virtual_time: Clock) -> None:
    store = FaultStore(MemoryStore(clock=virtual_time))
    store.refuse("trim", times=5)
    writer = await writer_on(store, Keep(chunks=8))
    await say(writer, 50)
    await asyncio.sleep(10.0)
    assert await kept(store) <= 10
    await writer.aclose()


async def test_a_stores_own_fault_stops_only_the_trimming_and_not_for_good(
    virtual_time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = FaultStore(MemoryStore(clock=virtual_time))
    store.refuse("trim", ZeroDivisionError())
    writer = await writer_on(store, Keep(chunks=8))
    await say(writer, 50)
    await asyncio.sleep(1.0)
    assert caplog.text.count("its log is not trimmed: the store failed") == 1
    await say(writer, 50)
    await asyncio.sleep(1.0)
    assert await kept(store) <= 10
    await writer.aclose()


# --- the bound of a log ----------------------------------------------------------------------------------------------


async def test_a_flood_fails_its_run(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said stays, and the end finds room; it is not tried again."""
    monkeypatch.setattr(limits, "LOG_BYTES", 100_000)
    app = loom.App()
    attempts = []

    @app.actor(retry=loom.Retry())
    async def flood(ctx: loom.Context) -> AsyncIterator[str]:
        attempts.append(ctx.attempt)
        while True:
            yield "x" * 1000

    async with running(store, app) as client:
        run = await client.start(flood.using(id="run"))
        with pytest.raises(RunFailed, match="the log is full") as failure:
            await run.result()
        assert failure.value.code == "log_full"
        assert attempts == [1]
        size = sum(len(batch.payload) for batch in (await store.logs.read("run", limit=10_000)).batches)
        assert size < 100_000 + 2 * BATCH_BYTES


async def test_the_bound_counts_what_earlier_attempts_said(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 100_000)
    writer = await writer_on(store, None)
    await say(writer, 60, "x" * 1000)
    await writer.aclose()
    writer = Writer(store.logs, "run", await store.logs.fence("run", "another"))
    writer.put(Chunk("start"))
    with pytest.raises(RunFailed, match="full"):
        await say(writer, 60, "x" * 1000)
    with pytest.raises(RunFailed, match="full"):
        writer.put(Chunk("progress"))
    await writer.end(Chunk("complete"))
    await writer.aclose()


async def test_what_is_forgotten_makes_room(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds in chunks or age may not bound the bytes: a full log takes more once it was trimmed."""
    monkeypatch.setattr(limits, "LOG_BYTES", 100_000)
    writer = await writer_on(store, Keep(age=100.0))
    with pytest.raises(RunFailed, match="full"):
        await say(writer, 200, "x" * 1000)
    await asyncio.sleep(1.0)
    with pytest.raises(RunFailed, match="full"):
        await say(writer, 1)
    await asyncio.sleep(100.0)
    await say(writer, 1)
    await writer.aclose()


async def test_keep_in_bytes_has_no_other_bound(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 10_000)
    writer = await writer_on(store, Keep(bytes=50_000))
    await say(writer, 300, "x" * 1000)
    await asyncio.sleep(1.0)
    assert 48 <= await kept(store) <= 58
    await writer.aclose()


# --- who reads it ----------------------------------------------------------------------------------------------------


def never_ending(keep: Keep, *, retry: loom.Retry | None = None) -> loom.App:
    """`tick` says numbers as it is told, fails when told, and ends when told."""
    app = loom.App()

    @app.actor(keep=keep, retry=retry)
    async def tick(ctx: loom.Context) -> AsyncIterator[int]:
        numbers = [chunk.data for chunk in ctx.previous if chunk.type == "data"]
        number = numbers[-1] if numbers else 0
        while True:
            message = await ctx.receive()
            if message.type == "end":
                return
            if message.type == "fail":
                if ctx.attempt == message.data:
                    raise ValueError("as told")
                continue
            while number < message.data:
                number += 1
                yield number
                await asyncio.sleep(0)

    return app


async def test_readers_of_a_trimmed_log(store: Any) -> None:
    """One at the tail goes on; one behind what is kept is told where it begins; the text is of what is kept."""
    async with running(store, never_ending(Keep(chunks=40))) as client:
        run = await client.start("tick", id="run")
        seen: list[int] = []

        async def follow() -> None:
            async for value in run.values():
                seen.append(value)

        following = spawn(follow(), "follow")
        for upto in range(5, 500, 5):
            await run.send("go", upto)
            await until(lambda upto=upto: seen and seen[-1] == upto)  # type: ignore[misc]
        head = await run.status()
        assert head.first > 400
        async with Client(StoreTransport(store)) as another:  # the hub of this one may still have it all
            with pytest.raises(CursorExpired) as expired:
                _ = [chunk async for chunk in another.run("run").chunks()]
        assert expired.value.details["earliest"] == str(head.earliest)
        await run.send("end")
        await following
        assert seen == list(range(1, 496))
        kept = [chunk.data async for chunk in run.chunks(expired.value.details["earliest"]) if chunk.type == "data"]
        assert kept == list(range(kept[0], 496))
        assert len(kept) >= 38
        assert await run.result() == kept


async def test_a_continuing_producer_finds_what_is_kept(store: Any) -> None:
    """And goes on from there; what the log forgot is in nobody's `previous`."""
    app = never_ending(Keep(chunks=40), retry=loom.Retry(mode="continue", backoff=(0.1, 0.1)))
    async with running(store, app) as client:
        run = await client.start("tick", id="run")
        await run.send("go", 300)
        await run.send("fail", 1)
        await run.send("go", 500)
        await run.send("end")
        values = await run.result()
    assert values == list(range(values[0], 501))
    assert len(values) >= 38
    starts = [chunk for chunk in await _kept_chunks(store) if chunk.type == "start"]
    assert all(chunk.data["kept_through"] >= 300 for chunk in starts)


async def _kept_chunks(store: Any) -> list[Chunk[Any]]:
    page = await store.logs.read("run", (await store.runs.get("run")).earliest)
    return [chunk for batch in page.batches for chunk in decode_batch(batch)]


async def test_a_run_that_restarts_takes_back_what_is_kept(store: Any) -> None:
    app = never_ending(Keep(chunks=40), retry=loom.Retry(backoff=(0.1, 0.1)))
    async with running(store, app) as client:
        run = await client.start("tick", id="run")
        await run.send("go", 300)
        await run.send("fail", 1)
        await run.send("end")
        values = await run.result()
        assert values == list(range(values[0], 301))
        assert values[0] > 250  # the second attempt began at 1 again: none of the first one's stand


async def test_a_trimmed_log_has_said_something(store: Any) -> None:
    """Without a retry its run is lost with its worker, however much of what it said was forgotten."""
    app = never_ending(Keep(chunks=8))
    async with running(store, app) as client:
        run = await client.start("tick", id="run")
        await run.send("go", 50)
        await until_tail(store, 51)
    async with running(store, app) as client:
        with pytest.raises(RunLost):
            await client.run("run").result()


async def until_tail(store: Any, tail: int) -> None:
    while (await store.runs.get("run")).tail < tail:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.1)


async def test_keep_is_a_keep() -> None:
    app = loom.App()
    with pytest.raises(UsageError, match=r"loom\.Keep"):
        app.actor("x", keep=100)(lambda: None)  # type: ignore[call-overload]


async def test_data_of_the_whole(store: Any) -> None:
    writer = await writer_on(store, Keep(chunks=1000))
    await say(writer, 3)
    assert data_in(await chunks_in(store)) == ["x"] * 3
    await writer.aclose()
