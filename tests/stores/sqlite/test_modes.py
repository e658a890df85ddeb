"""Who may read a store's files: their owner, unless they were there before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore, database

pytestmark = pytest.mark.anyio

RUN = Meta(run="run", actor="actor")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}


@pytest.mark.usefixtures("umask")
async def test_new_files_are_their_owners_alone(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "runs.db") as store, SqliteStore(tmp_path / "runs.db") as other:
        await store.runs.create(RUN)
        await other.runs.get("run")
        assert modes(tmp_path) == dict.fromkeys(["runs.db", "runs.db-wal", "runs.db-shm"], "0o600")
    assert modes(tmp_path) == {"runs.db": "0o600"}


async def test_what_was_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.touch()
    path.chmod(0o660)
    async with SqliteStore(path) as store:
        await store.runs.create(RUN)
        assert set(modes(tmp_path).values()) == {"0o660"}


async def test_behind_a_link_that_leads_nowhere_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "runs.db")
    async with SqliteStore(tmp_path / "link") as store:
        await store.runs.create(RUN)
        assert set(modes(tmp_path).values()) == {"0o600"}


async def test_the_rollback_journal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there while the file is made a store, before there is a write-ahead log."""
    seen: dict[str, str] = {}
    make = database._make

    def journaled(db: apsw.Connection, path: str, busy: float) -> None:
        db.execute("BEGIN IMMEDIATE; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000))")
        db.cache_flush()
        seen.update(modes(tmp_path))
        db.execute("ROLLBACK")
        make(db, path, busy)

    monkeypatch.setattr(database, "_make", journaled)
    async with SqliteStore(tmp_path / "runs.db"):
        assert seen == {"runs.db": "0o600", "runs.db-journal": "0o600"}
