"""The sweep: what is put back, what is dropped, and what becomes of its room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import LogNotFound
from loom.model.ports import SweepReport, message_producer
from loom.model.run import Meta, WorkerInfo, inbox_of
from loom.stores.sqlite import Retention, SqliteStore, upkeep
from loom.stores.sqlite import store as store_module
from loom.testing.author import Author, read_all
from loom.testing.clock import ManualClock

pytestmark = pytest.mark.anyio

DAY = 86400.0


@pytest.fixture
def wall() -> ManualClock:
    return ManualClock(1.7e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def keep() -> Retention:
    return Retention()


@pytest.fixture
async def store(path: Path, keep: Retention, wall: ManualClock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, retention=keep, wall=wall) as store:
        yield store


async def ended(store: SqliteStore, run: str, *said: Any) -> None:
    await (await Author.start(store, run)).say(*said, "complete")


async def names(store: SqliteStore) -> list[str]:
    return [head.meta.run for head in await store.runs.list_runs(limit=1000)]


def rows(path: Path, table: str) -> int:
    db = apsw.Connection(str(path))
    ((count,),) = db.execute(f"SELECT count(*) FROM {table}").fetchall()
    db.close()
    assert isinstance(count, int)
    return count


async def test_a_runs_own_retention_comes_first(store: SqliteStore, wall: ManualClock) -> None:
    """Shorter or longer than the store's."""
    for run, retention in (("long", 30 * DAY), ("plain", None), ("brief", 60.0)):
        await (await Author.start(store, run, retention=retention)).say("complete")
    assert await names(store) == ["brief", "plain", "long"]
    for passed, dropped, left in ((DAY, 1, ["plain", "long"]), (7 * DAY, 1, ["long"]), (30 * DAY, 1, [])):
        wall.advance(passed)
        assert (await store.sweep()).dropped == dropped
        assert await names(store) == left


@pytest.mark.parametrize("keep", [Retention(age=0.0), Retention(age=None)])
async def test_a_retention_of_nothing_is_as_long_as_its_readers_need(
    store: SqliteStore, wall: ManualClock, keep: Retention
) -> None:
    await (await Author.start(store, "own", retention=0.0)).say("complete")
    await ended(store, "plain")
    wall.advance(limits.LEAST_RETENTION - 1)
    assert (await store.sweep()).dropped == 0
    wall.advance(2)
    assert (await store.sweep()).dropped == (1 if keep.age is None else 2)


@pytest.mark.parametrize("keep", [Retention(age=None, max_runs=1)])
async def test_a_bound_in_size_comes_before_a_runs_retention(store: SqliteStore) -> None:
    """The oldest goes, whatever it was to be kept for."""
    for number in range(2):
        await (await Author.start(store, f"run-{number}", retention=1e9)).say("complete")
    await store.sweep()
    assert await names(store) == ["run-1"]


async def test_ended_runs_are_kept_for_seven_days(store: SqliteStore, wall: ManualClock, path: Path) -> None:
    """After their end, however long ago they began; open ones for ever."""
    await ended(store, "first")
    open_run = await Author.start(store, "open")
    late = await Author.start(store, "late")
    wall.advance(6 * DAY)
    await late.say("complete")
    assert await store.sweep() == SweepReport(requeued=2 - 1, dropped=0)
    wall.advance(1.1 * DAY)
    assert await store.sweep() == SweepReport(dropped=1)
    assert await names(store) == ["late", "open"]
    with pytest.raises(LogNotFound):
        await store.logs.read("first")
    wall.advance(100 * DAY)
    assert (await store.sweep()).dropped == 1
    await open_run.say("data")
    assert rows(path, "batch") == 2


@pytest.mark.parametrize("keep", [Retention(age=None)])
async def test_without_an_age_they_are_kept(store: SqliteStore, wall: ManualClock) -> None:
    await ended(store, "run")
    wall.advance(10_000 * DAY)
    assert (await store.sweep()).dropped == 0


@pytest.mark.parametrize("keep", [Retention(max_runs=3)])
async def test_of_too_many_ended_runs_the_first_to_end_go(store: SqliteStore, wall: ManualClock) -> None:
    authors = [await Author.start(store, f"run-{number}") for number in range(6)]
    for author in reversed(authors):
        await author.say("complete")
        wall.advance(1)
    await Author.start(store, "open")
    assert (await store.sweep()).dropped == 3
    assert await names(store) == ["open", "run-2", "run-1", "run-0"]


@pytest.mark.parametrize("keep", [Retention(max_bytes=1 << 20)])
async def test_of_too_large_a_file_the_first_to_end_go(store: SqliteStore, wall: ManualClock, path: Path) -> None:
    """Until what is left fits; then nothing more."""
    large = [Chunk("data", "x" * 50_000)] * 4
    for number in range(20):
        await ended(store, f"run-{number}", *large)
        wall.advance(1)
    dropped = (await store.sweep()).dropped
    left = await names(store)
    assert 3 <= len(left) <= 5
    assert left[0] == "run-19"
    assert dropped == 20 - len(left)
    assert (await store.sweep()).dropped == 0
    assert len(await read_all(store.logs, "run-19")) == 6


@pytest.mark.parametrize("keep", [Retention(age=0.0, max_runs=0, max_bytes=0)])
async def test_what_the_queue_holds_and_what_is_open_is_never_dropped(store: SqliteStore, wall: ManualClock) -> None:
    """An ended run goes when its claim was acknowledged."""
    await store.queue.put(Meta(run="claimed", actor="actor"))
    claim = await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0)
    assert claim is not None
    await ended(store, "claimed")
    await Author.start(store, "open")
    wall.advance(DAY)
    assert await store.sweep() == SweepReport(requeued=1, dropped=0)
    await store.queue.ack(claim)
    assert await store.sweep() == SweepReport(dropped=1)
    assert await names(store) == ["open"]


@pytest.mark.parametrize("keep", [Retention(age=0.0)])
async def test_a_sweep_is_bounded_and_the_next_goes_on(
    store: SqliteStore, wall: ManualClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In runs that it drops, and in rows that it deletes."""
    monkeypatch.setattr(limits, "SWEEP_RUNS", 4)
    for name, value in {"DROP_RUNS": 2, "SWEEP_STEPS": 3, "CLEAR_ROWS": 5}.items():
        for module in (upkeep, store_module):
            monkeypatch.setattr(module, name, value, raising=module is upkeep)
    for number in range(6):
        author = await Author.start(store, f"run-{number}")
        for _ in range(8):
            await author.say("data")
        await author.say("complete")
    wall.advance(limits.LEAST_RETENTION + 1)
    assert [(await store.sweep()).dropped for _ in range(3)] == [4, 2, 0]
    left = [rows(path, "batch")]
    while left[-1]:
        await store.sweep()
        left.append(rows(path, "batch"))
        assert left[-2] - 15 <= left[-1] < left[-2]
    assert rows(path, "debris") == 0


async def test_nothing_is_left_of_a_dropped_run(store: SqliteStore, path: Path) -> None:
    """In no table."""
    await Author.start(store)
    await store.queue.put(Meta(run="run", actor="actor", key="k"))
    await store.logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
    await store.logs.commit_position("run", "reader", 1)
    await store.runs.drop("run")
    await store.sweep()
    for table in ("run", "log", "label", "batch", "fence", "producer", "mark", "queue", "debris"):
        assert rows(path, table) == 0, table


async def test_what_is_left_of_a_run_never_becomes_anothers(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the same id may come before its predecessor's batches are deleted."""
    monkeypatch.setattr("loom.stores.sqlite.upkeep.CLEAR_ROWS", 2)
    author = await Author.start(store)
    for _ in range(10):
        await author.say("data")
    assert await store.logs.trim("run", 5) == 5
    await store.runs.drop("run")
    heir = await Author.start(store)
    await heir.say("data", "data")
    assert len(await read_all(store.logs, "run")) == 3
    await store.sweep()
    assert len(await read_all(store.logs, "run")) == 3
    assert rows(path, "batch") == 2


async def test_a_file_that_is_mostly_free_becomes_smaller(store: SqliteStore, path: Path) -> None:
    await ended(store, "large", *[Chunk("data", "x" * 100_000)] * 50)
    before = pages(path)
    await store.runs.drop("large")
    while (await store.sweep()) and pages(path) > before / 4:
        pass
    await ended(store, "run")


def pages(path: Path) -> int:
    db = apsw.Connection(str(path))
    count = db.pragma("page_count")
    db.close()
    assert isinstance(count, int)
    return count


async def test_workers_that_fell_silent_are_forgotten(store: SqliteStore, wall: ManualClock, path: Path) -> None:
    await store.workers.register(WorkerInfo(name="silent", started=1.0))
    wall.advance(limits.WORKER_SEEN - 1)
    await store.workers.register(WorkerInfo(name="seen", started=1.0))
    await store.sweep()
    assert rows(path, "worker") == 2
    wall.advance(2)
    await store.sweep()
    assert rows(path, "worker") == 1
    assert [info.name for info in await store.workers.list_workers()] == ["seen"]
