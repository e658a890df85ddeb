"""Opening: what is a store, what is made one, what is refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import apsw
import pytest

from loom.model.errors import Damaged, HandleClosed, LogNotFound, LoomError, StoreFull, Unavailable, UsageError
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.stores.sqlite.database import fault_of
from loom.stores.sqlite.schema import APPLICATION_ID, VERSION
from loom.testing.conformance.kit import outcome_of

from .processes import Appender, check_log, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def refused(path: str | os.PathLike[str]) -> str:
    """Why it cannot be opened."""
    with pytest.raises(UsageError) as caught:
        await SqliteStore(path).__aenter__()
    return caught.value.message


async def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.runs.create(Meta(run="run", actor="actor"))
    db = apsw.Connection(str(path))
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = path.read_bytes()
    assert "newer Loom" in await refused(path)
    assert path.read_bytes() == before


async def test_a_file_of_before_the_first_release_is_refused_and_left_as_it_is(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.runs.create(Meta(run="run", actor="actor"))
    db = apsw.Connection(str(path))
    db.execute(f"PRAGMA user_version = {VERSION - 1}")
    db.close()
    before = path.read_bytes()
    assert "before the first release" in await refused(path)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
    db.close()
    before = path.read_bytes()
    assert "no Loom store" in await refused(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["runs.db"]


async def test_what_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)
    before = path.read_bytes()
    assert "no SQLite database" in await refused(path)
    assert path.read_bytes() == before


async def test_what_is_nowhere_is_refused(tmp_path: Path) -> None:
    assert "folder does not exist" in await refused(tmp_path / "nowhere" / "runs.db")
    assert "cannot open" in await refused(tmp_path)
    for name in ("", ":memory:"):
        assert "memory://" in await refused(name)
    assert os.listdir(tmp_path) == []


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    async with SqliteStore(path) as store:
        await store.runs.create(Meta(run="run", actor="actor"))
    db = apsw.Connection(str(path))
    assert (db.pragma("application_id"), db.pragma("user_version")) == (APPLICATION_ID, VERSION)
    assert (db.pragma("journal_mode"), db.pragma("auto_vacuum")) == ("wal", 2)
    db.close()


async def test_many_may_make_a_file_at_once(path: Path) -> None:
    """In this process and in others: they all open the same store."""
    with running(Appender, path, "process", "1") as first, running(Appender, path, "process", "1") as second:
        stores = [SqliteStore(path) for _ in range(8)]
        await asyncio.gather(*(store.__aenter__() for store in stores))
        await stores[0].runs.create(Meta(run="run", actor="actor"))
        for store in stores:
            assert (await store.runs.get("run")).meta.run == "run"
            await store.__aexit__(None, None, None)
        for each in (first, second):
            await asyncio.to_thread(each.read, 1)
    async with SqliteStore(path) as store:
        await check_log(store, "run-0", 1)


async def test_a_file_whose_maker_was_killed_half_way_becomes_a_store(path: Path) -> None:
    """All but the journal's mode is made in one transaction."""
    db = apsw.Connection(str(path))
    db.execute("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL")
    db.close()
    assert path.stat().st_size > 0
    async with SqliteStore(path) as store:
        await store.runs.create(Meta(run="run", actor="actor"))


async def test_a_damaged_file_is_told(path: Path) -> None:
    """By whatever comes upon it, opening or a call; not as something that may pass."""
    async with SqliteStore(path) as store:
        for number in range(200):
            await store.runs.create(Meta(run=f"run-{number}", actor="actor"))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size // 2))
    async with SqliteStore(path) as store:
        outcomes = [await outcome_of(store.runs.get(f"run-{number}")) for number in range(200)]
        outcomes += [await outcome_of(store.runs.heartbeat(f"run-{number}")) for number in range(200)]
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 8192))
    outcomes.append(await outcome_of(SqliteStore(path).__aenter__()))
    told = [outcome for outcome in outcomes if isinstance(outcome, LoomError)]
    assert {(type(error), error.code, error.retryable) for error in told} == {(Damaged, "damaged", False)}
    assert outcomes[-1] in told
    assert len(told) > 2


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (apsw.FullError, StoreFull),
        (apsw.BusyError, Unavailable),
        (apsw.IOError, Unavailable),
        (apsw.CantOpenError, Unavailable),
        (apsw.CorruptError, Damaged),
        (apsw.ConstraintError, None),
        (apsw.SQLError, None),
    ],
)
def test_what_an_error_of_sqlite_means(error: type[apsw.Error], meaning: type[LoomError] | None) -> None:
    """None: a fault of ours, which is not dressed up."""
    fault = fault_of(error("why"), None)
    assert (None if fault is None else type(fault)) is meaning


async def test_durability_is_disk_or_process(path: Path) -> None:
    assert SqliteStore(path).durability == "disk"
    assert SqliteStore(path, durability="process").durability == "process"
    with pytest.raises(UsageError, match="durability"):
        SqliteStore(path, durability="replica")


async def test_a_store_object_is_opened_once(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(HandleClosed):
        await store.runs.get("run")
    async with store:
        with pytest.raises(LogNotFound):
            await store.runs.get("run")
        with pytest.raises(HandleClosed):
            await store.__aenter__()
    with pytest.raises(HandleClosed):
        await store.__aenter__()
    await store.__aexit__(None, None, None)
