"""What waits and who works: priorities, delays, retries of what has ended, workers; the same at every place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import loom
from loom.model.errors import Conflict, LogNotFound, UsageError

from .places import Connected, ConnectedSync

pytestmark = pytest.mark.anyio


class Busy:
    """An actor that may be driven once at a time and waits to be told to go on, and one that notes who came."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.tries = 0
        app = self.app = loom.App()

        @app.actor(concurrency=1)
        async def one(name: str, ctx: loom.Context) -> str:
            self.came.append(name)
            async with asyncio.TaskGroup() as tasks:  # in a task of its own, which keeps the slot
                tasks.create_task(ctx.receive("go"))
            return name

        @app.actor(priority="low")
        async def note(name: str) -> str:
            self.came.append(name)
            return name

        @app.actor(retry=loom.Retry(attempts=3, backoff=(0.001, 0.002)))
        async def fails(times: int) -> AsyncIterator[int]:
            self.tries += 1
            yield self.tries
            if self.tries <= times:
                raise OSError("try again")

        self.one, self.note, self.fails = one, note, fails


async def place_of(client: loom.Client, run: str) -> str | None:
    return next((entry.place for entry in await client.entries() if entry.run == run), None)


async def until_leased(client: loom.Client, run: str) -> None:
    while await place_of(client, run) != "leased":  # noqa: ASYNC110  # wherever the queue is
        await asyncio.sleep(0.01)


async def test_of_an_actor_only_so_many_at_a_time(connected: Connected) -> None:
    """The others behind it go on, and the next of it as soon as there is room."""
    busy = Busy()
    async with connected(busy.app) as client:
        runs = [await client.start(busy.one, name) for name in "abc"]
        await until_leased(client, runs[0].id)
        assert await client.execute(busy.note, "free") == "free"
        assert busy.came == ["a", "free"]
        for run, name in zip(runs, "abc", strict=True):
            await run.send("go")
            assert await run.result(timeout=20) == name
        assert busy.came == ["a", "free", "b", "c"]


async def test_what_is_given_wins_over_what_is_declared_and_none_lifts_it(connected: Connected) -> None:
    app = loom.App()

    @app.actor(priority="low", timeout=60, idle_timeout=60, ahead=9, retention=60)
    async def careful() -> None: ...

    async with connected(app) as client:
        lifted: dict[str, Any] = {"priority": "normal", "timeout": None, "ahead": None, "retention": None}
        for run in (await client.start(careful, **lifted), await client.start("careful", **lifted)):
            meta = (await run.status()).meta
            assert (meta.priority, meta.timeout, meta.ahead, meta.retention) == ("normal", None, None, None)
            assert (meta.idle_timeout, meta.assumed) == (60.0, ())


async def test_a_declared_queue_is_served_where_none_is_named(connected: Connected) -> None:
    app = loom.App()

    @app.actor(queue="jobs")
    async def report(rows: int) -> int:
        return rows

    async with connected(app) as client, asyncio.timeout(20):
        assert await client.execute(report, 3) == 3
        assert await client.execute("report", 4) == 4
        while not (workers := await client.workers()):  # noqa: ASYNC110  # wherever the register is
            await asyncio.sleep(0.01)
        assert workers[0].queues == ("default", "jobs")

        @app.actor(queue="late")
        async def late() -> str:
            return "served"

        assert await client.execute(late) == "served"


async def test_priorities_are_the_starts_or_the_actors(connected: Connected) -> None:
    busy = Busy()
    async with connected(busy.app) as client:
        held = await client.start(busy.one, "a")
        await until_leased(client, held.id)
        await client.start(busy.one.using(priority="high", id="high"), "b")
        await client.start("one", {"name": "c"}, priority="low", id="low")
        await client.start("one", name="d", id="normal")
        shown = {entry.run: entry.priority for entry in await client.entries(place="ready")}
        assert shown == {"high": "high", "low": "low", "normal": "normal"}
        assert (await (await client.start(busy.note, "x")).status()).meta.priority == "low"
        with pytest.raises(loom.InvalidInput, match="priority"):
            await client.start("note", "x", priority="urgent")
        for run in ("high", "low", "normal"):
            await client.run(run).cancel()
        await held.cancel()


@pytest.mark.parametrize("delay", [0.3, timedelta(milliseconds=300)])
async def test_a_delayed_start(connected: Connected, delay: Any) -> None:
    busy = Busy()
    async with connected(busy.app) as client:
        began = time.time()
        run = await client.start(busy.note.using(delay=delay), "later")
        head = await run.status()
        assert head.state == "queued"
        assert head.meta.not_before == pytest.approx(began + 0.3, abs=0.2)
        assert await place_of(client, run.id) == "delayed"
        assert await run.result(timeout=20) == "later"
        assert time.time() >= began + 0.29


async def test_a_delayed_start_is_cancelled_before_its_time(connected: Connected) -> None:
    busy = Busy()
    async with connected(busy.app) as client:
        run = await client.start(busy.note.using(delay=1000), "never")
        await run.cancel(wait=True, timeout=20)
        assert (await run.status()).state == "cancelled"
        assert await client.entries() == []
        assert busy.came == []
        for delay in (-1, 1e12, float("nan"), "5m"):
            with pytest.raises(loom.InvalidInput, match="delay"):
                await client.start("note", "never", delay=delay)


async def test_what_was_tried_in_vain_is_a_dead_letter(connected: Connected) -> None:
    """Its log is kept and listed; retrying it is a new, linked run of the same."""
    busy = Busy()
    async with connected(busy.app) as client:
        run = await client.start(busy.fails.using(key="k", timeout=60.0), 3)
        with pytest.raises(loom.RunFailed):
            await run.result(timeout=20)
        assert [head.meta.run for head in await client.runs(state="dead")] == [run.id]
        assert await client.runs(state="failed") == []
        again = await client.retry(run.id, id="again")
        assert (await client.retry(run.id, id="again")).id == again.id == "again"
        assert await again.result(timeout=20) == [4]
        head, old = await again.status(), await run.status()
        assert (head.meta.retry_of, old.meta.retry_of, old.state) == (run.id, None, "dead")
        assert (head.meta.key, head.meta.timeout, bytes(head.meta.input)) == ("k", 60.0, bytes(old.meta.input))
        assert [head.meta.run for head in await client.runs()] == ["again", run.id]


async def test_any_run_that_has_ended_is_retried_and_no_other(connected: Connected) -> None:
    busy = Busy()
    async with connected(busy.app) as client:
        run = await client.start(busy.one, "a")
        with pytest.raises(Conflict, match="has not ended"):
            await client.retry(run.id)
        await run.cancel(wait=True, timeout=20)
        again = await client.retry(run.id)
        with pytest.raises(Conflict):
            await client.retry(run.id, id=run.id)
        other = await client.start(busy.note, "x")
        await other.result(timeout=20)
        with pytest.raises(Conflict):
            await client.retry(other.id, id=again.id)
        with pytest.raises(LogNotFound):
            await client.retry("nobody")
        await again.send("go")
        assert await again.result(timeout=20) == "a"
        assert (await client.retry(again.id)).id not in (run.id, again.id)


async def test_workers_are_told_of_and_drain_when_they_are_asked(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.engine.run.worker.ATTEND_EVERY", 0.02)
    busy = Busy()
    async with connected(busy.app) as client:
        async with asyncio.timeout(20):
            while not (workers := await client.workers()):  # noqa: ASYNC110  # wherever they are
                await asyncio.sleep(0.01)
            (worker,) = workers
            assert (worker.queues, worker.concurrency, worker.draining) == (("default",), 100, False)
            assert worker.seen == pytest.approx(time.time(), abs=5)
            with pytest.raises(UsageError) as caught:
                await client.ask_to_drain("nobody")
            assert caught.value.code == "unknown_worker"
            await client.ask_to_drain(worker.name)
            while await client.workers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        run = await client.start(busy.note, "too late")
        assert await place_of(client, run.id) == "ready"


def test_for_code_that_blocks(connected_sync: ConnectedSync) -> None:
    busy = Busy()
    with connected_sync(busy.app) as client:
        run = client.start(busy.note, "a")
        assert run.result(timeout=20) == "a"
        again = client.retry(run.id)
        assert again.result(timeout=20) == "a"
        assert again.status().meta.retry_of == run.id
        later = client.start(busy.note.using(delay=1000), "b")
        assert [entry.run for entry in client.entries(place="delayed")] == [later.id]
        assert all(worker.pid for worker in client.workers())
        with pytest.raises(UsageError):
            client.ask_to_drain("nobody")
