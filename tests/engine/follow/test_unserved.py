"""Runs that wait because no worker serves their queue: which are, and that their client warns of it, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import loom
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.follow.unserved import UNSERVED_PAUSE, unserved
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.names import PUBLISHED
from loom.model.run import Head, Meta, RunState, WorkerInfo
from loom.stores.memory import MemoryStore
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


def head(state: RunState = "queued", queue: str = "jobs", not_before: float | None = None) -> Head:
    meta = Meta(run="r", actor="a", queue=queue, not_before=not_before)
    return Head(meta=meta, state=state, ended=state not in ("queued", "running"))


def worker(*queues: str, draining: bool = False) -> WorkerInfo:
    return WorkerInfo(name="w", queues=queues, draining=draining)


@pytest.mark.parametrize(
    ("run", "workers", "waits"),
    [
        (head(), [], True),
        (head(), [worker("default"), worker("other")], True),
        (head(), [worker("default"), worker("other", "jobs")], False),
        (head(), [worker("jobs", draining=True)], True),
        (head("running"), [worker("jobs", draining=True)], False),
        (head("running"), [worker("default")], True),
        (head("completed"), [], False),
        (head(not_before=1e12), [], False),
        (head(not_before=1.0), [], True),
        (head("running", PUBLISHED), [], False),
    ],
)
def test_which_runs_wait_for_a_worker(run: Head, workers: list[WorkerInfo], waits: bool) -> None:
    assert unserved(run, workers) == ("no worker serves queue jobs" if waits else None)


class Place:
    """A client on a store of its own."""

    def __init__(self, clock: Clock) -> None:
        self.store = FaultStore(MemoryStore(clock=clock))
        self.client = Client(StoreTransport(self.store))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "loom.client"]


async def test_a_client_warns_once_of_a_queue_that_no_worker_serves(
    virtual_time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(virtual_time)
    async with place.client as client:
        for run in ("r1", "r2"):
            await client.start("report", queue="jobs", id=run)
        await client.start("mail", id="r3")
        await asyncio.sleep(limits.UNSERVED_AFTER + 1)
        expected = ["run r1 waits: no worker serves queue jobs", "run r3 waits: no worker serves queue default"]
        assert warnings(caplog) == expected
        await asyncio.sleep(UNSERVED_PAUSE)
        await client.start("report", queue="jobs", id="r4")
        await asyncio.sleep(limits.UNSERVED_AFTER + 1)
        assert warnings(caplog) == [*expected, "run r4 waits: no worker serves queue jobs"]


async def test_it_does_not_where_one_serves_it_nor_of_what_is_delayed_or_over(
    virtual_time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(virtual_time)
    app = loom.App()

    @app.actor(queue="jobs")
    async def report() -> str:
        return "done"

    async with place.client as client:
        await client.start("later", queue="later", delay=100)
        await (await client.start("gone", queue="gone")).cancel()
        async with Worker(place.store, app.registry, drain=0):
            assert await client.execute(report) == "done"
            await asyncio.sleep(limits.UNSERVED_AFTER + 1)
    assert warnings(caplog) == []


async def test_what_cannot_be_found_out_is_not_said(virtual_time: Clock, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(virtual_time)
    async with place.client as client:
        await client.start("report", queue="jobs")
        place.store.refuse("list_workers")
        await asyncio.sleep(limits.UNSERVED_AFTER + 1)
    assert warnings(caplog) == []


async def test_a_client_that_is_closed_looks_at_nothing_more(
    virtual_time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(virtual_time)
    async with place.client as client:
        await client.start("report", queue="jobs")
    await asyncio.sleep(limits.UNSERVED_AFTER + 1)
    assert warnings(caplog) == []
