"""A file that is deleted, moved or replaced while it is open: said by every call, and never made anew."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import loom
from loom.model import limits
from loom.model.errors import Unavailable, UsageError
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.stores.sqlite.database import open_for_reading
from loom.stores.sqlite.place import Guard, Place
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.testing.conformance.kit import outcome_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked for at each call."""
    monkeypatch.setattr(limits, "PLACE", 0.0)


def replace(path: Path) -> None:
    """As who restores a backup does it."""
    shutil.copyfile(path, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "replaced": replace,
    "moved": lambda path: path.rename(path.with_suffix(".moved")),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_whoever_writes_is_told_soon(path: Path, loss: str) -> None:
    """A run that goes on while its file goes, within the bound that is told; and so is everybody else."""
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        LOSSES[loss](path)
        async with asyncio.timeout(limits.PLACE * 100):
            while not isinstance(fault := await outcome_of(author.say("data")), Unavailable):
                pass
        assert str(path) in fault.message
        assert loss in fault.message
        assert fault.retryable
        assert path.exists() == (loss == "replaced")


@pytest.mark.usefixtures("at_once")
async def test_every_call_says_so(path: Path) -> None:
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        path.unlink()
        for call in (
            author.say("data"),
            author.say("complete"),
            store.runs.get("run"),
            store.runs.list_runs(),
            store.logs.read("run"),
            store.queue.put(Meta(run="another", actor="actor")),
            store.queue.claim(["default"], "w1", lease=10.0, wait=0.0),
            store.sweep(),
        ):
            assert isinstance(await outcome_of(call), Unavailable)
        assert not path.exists()


@pytest.mark.usefixtures("at_once")
async def test_who_waits_is_told(path: Path) -> None:
    """A reader and a worker, while nobody writes."""
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        cursor = await author.say("data")
        waiting = [
            spawn(store.logs.read("run", cursor, wait=60.0), "read"),
            spawn(store.queue.claim(["default"], "w1", lease=10.0, wait=60.0), "claim"),
        ]
        await store.runs.get("run")
        path.unlink()
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("linked", [False, True])
async def test_a_write_ahead_log_that_is_deleted_is_told(tmp_path: Path, path: Path, linked: bool) -> None:
    """It looks like a leftover, and holds what was acknowledged last; put back, all goes on."""
    if linked:
        path.symlink_to(tmp_path / "real.db")
    log = Path(f"{path.resolve()}-wal")
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        await author.say("data")
        log.rename(tmp_path / "moved")
        refused = author.batch("data")
        fault = await outcome_of(author.send(refused))
        assert isinstance(fault, Unavailable)
        assert str(log) in fault.message
        assert isinstance(await outcome_of(store.runs.get("run")), Unavailable)
        (tmp_path / "moved").rename(log)
        await author.send(refused)
    async with SqliteStore(path) as store:
        assert len(await read_all(store.logs, "run")) == 3


@pytest.mark.usefixtures("at_once")
async def test_a_file_that_is_put_back_goes_on(path: Path) -> None:
    """With all that was acknowledged, and nothing that was refused."""
    async with SqliteStore(path) as store:
        author = await Author.start(store)
        path.rename(path.with_suffix(".moved"))
        refused = author.batch("data")
        assert isinstance(await outcome_of(author.send(refused)), Unavailable)
        path.with_suffix(".moved").rename(path)
        assert len(await read_all(store.logs, "run")) == 1
        await author.send(refused)
        assert len(await read_all(store.logs, "run")) == 2


@pytest.mark.usefixtures("at_once")
async def test_the_file_that_took_its_place_is_left_alone(path: Path) -> None:
    """A store of its own, with its own runs, also when the first one closes."""
    async with SqliteStore(path) as first:
        author = await Author.start(first)
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        async with SqliteStore(path) as second:
            await Author.start(second, "of the second")
            assert isinstance(await outcome_of(author.say("data")), Unavailable)
            await first.__aexit__(None, None, None)
            await Author.start(second, "another")
    async with SqliteStore(path) as again:
        assert [head.meta.run for head in await again.runs.list_runs()] == ["another", "of the second"]


@pytest.mark.usefixtures("at_once")
async def test_a_client_is_told(path: Path) -> None:
    """Who starts a run hears at once which file it is about."""
    app = loom.App()

    @app.actor
    async def speak(ctx: loom.Context) -> AsyncIterator[Any]:
        yield "said"
        await ctx.receive("never")

    async with loom.connect(f"sqlite:///{path}", app=app) as client:
        run = await client.start(speak)
        path.unlink()
        with pytest.raises(Unavailable, match="deleted"):
            await client.start(speak)
        with pytest.raises(Unavailable, match="deleted"):
            await run.status()


async def test_a_run_that_goes_on_is_stopped_at_its_leases_end(path: Path) -> None:
    """By its worker, which can write nothing more; the file does not come again."""
    app = loom.App()
    gone = asyncio.Event()

    @app.actor
    async def speak(ctx: loom.Context) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.01)  # as what it waits for would
        finally:
            gone.set()

    async with loom.connect(f"sqlite:///{path}", app=app, worker=True, lease=0.5, drain=0) as client:
        run = await client.start(speak)
        async with aclosing(run.values()) as values:
            assert [await anext(values) for _ in range(3)] == [0, 1, 2]
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        async with asyncio.timeout(20):
            await gone.wait()
    assert os.listdir(path.parent) == []


async def test_a_reader_makes_no_file(path: Path) -> None:
    with pytest.raises(UsageError):
        open_for_reading(str(path), 0.0)
    assert not path.exists()


# --- looking ---------------------------------------------------------------------------------------------------------


def test_a_place_is_the_same_from_every_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    path.touch()
    place = Place("runs.db")
    place.remember()
    monkeypatch.chdir("/")
    assert place.fault() is None


def test_what_is_gone_again_when_it_was_opened_is_told(path: Path) -> None:
    with pytest.raises(Unavailable, match="deleted"):
        Place(str(path)).remember()


def test_a_folder_that_is_gone_counts_as_deleted(path: Path) -> None:
    path.touch()
    place = Place(str(path))
    place.remember()
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    fault = place.fault()
    assert fault is not None
    assert "deleted" in fault.message


def test_a_link_that_leads_elsewhere_is_another_file(path: Path) -> None:
    """Who opens the path now has another store."""
    for name in ("old", "new"):
        (path.parent / name).touch()
    path.symlink_to("old")
    place = Place(str(path))
    place.remember()
    path.unlink()
    path.symlink_to("new")
    fault = place.fault()
    assert fault is not None
    assert "replaced" in fault.message


def test_a_guard_looks_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each time once the file is lost."""
    looked: list[str] = []
    stat = os.stat

    def look(path: str) -> os.stat_result:
        if path == place.path:
            looked.append(path)
        return stat(path)

    monkeypatch.setattr("loom.stores.sqlite.place.os.stat", look)
    path.touch()
    place = Place(str(path))
    place.remember()
    guard = Guard(place)
    for _ in range(100):
        assert guard.fault() is None
    assert len(looked) == 2
    path.unlink()
    guard = Guard(place)
    for _ in range(3):
        assert guard.fault() is not None
    assert len(looked) == 5
