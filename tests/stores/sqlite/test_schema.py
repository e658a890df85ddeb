"""A file of the format before is brought to ours when it is opened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from loom.model.run import Claim, Meta
from loom.stores.sqlite import Retention, SqliteStore
from loom.stores.sqlite.schema import APPLICATION_ID, VERSION
from loom.testing.author import Author
from loom.wire.json import encode

pytestmark = pytest.mark.anyio

PUT = """
INSERT INTO queue(run, queue, actor, key, ready, number, beat, hold, crashes, meta, input)
VALUES (?1, 'default', 'actor', ?2, 0, 0, 0, 0, 0, ?3, x'37')
"""

CREATE = """
INSERT INTO run(name, actor, queue, state, epoch, epochs, inbox_epoch, first, beat, started, ended, meta, input)
VALUES (?1, 'actor', 'default', ?2, -1, x'5b5d', 100000007, 1, 0, ?3, ?3, ?4, x'37')
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as format 2 made it: entries claimed, behind it and free, two runs, and ids that were drawn before."""
    path = tmp_path / "runs.db"
    db = apsw.Connection(str(path))
    db.execute("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL")
    db.execute((Path(__file__).parent / "format_2.sql").read_text())
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2")
    for run, key in (("held", "k"), ("behind", "k"), ("free", None), ("gone", None)):
        meta = encode(Meta(run=run, actor="actor", key=key, created=1.0))
        db.execute(PUT, (run, key, meta))
    db.execute("DELETE FROM queue WHERE run = 'gone'")
    for run, state, ended in (("old", "completed", 5.0), ("open", "queued", None), ("lost", "failed", 6.0)):
        db.execute(CREATE, (run, state, ended, encode(Meta(run=run, actor="actor", created=1.0))))
    db.execute("DELETE FROM run WHERE name = 'lost'")
    db.execute("UPDATE queue SET worker = 'w', number = (id << 20) + 1, hold = 10, crashes = 1 WHERE run = 'held'")
    db.close()
    return path


def layout(path: Path) -> list[tuple[str, str]]:
    """What the file is made of."""
    db = apsw.Connection(str(path))
    rows: list[Any] = db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    version = str(db.pragma("user_version"))
    db.close()
    return [*((name, sql.replace('"', "")) for name, sql in rows), ("version", version)]


async def test_everything_is_where_it_was(path: Path, tmp_path: Path) -> None:
    async with SqliteStore(path) as store:
        assert [(entry.run, entry.place, entry.crashes) for entry in await store.entries()] == [
            ("held", "leased", 1), ("behind", "behind", 0), ("free", "ready", 0),
        ]  # fmt: skip
        claim = await store.claim(["default"], "w2", lease=10, wait=0)
        assert claim is not None
        assert (claim.run, bytes(claim.meta.input)) == ("free", b"7")
        held = Claim(meta=Meta(run="held", actor="actor", key="k"), worker="w", number=(1 << 20) + 1)
        await store.renew(held)
        await store.ack(held)
        claim = await store.claim(["default"], "w2", lease=10, wait=0)
        assert claim is not None
        assert claim.run == "behind"
        await store.put(Meta(run="gone", actor="actor"))
        again = await store.claim(["default"], "w2", lease=10, wait=0)
        assert again is not None
        assert again.number > 4 << 20, "ids that were drawn before never come again"
    async with SqliteStore(tmp_path / "new.db"):
        pass
    assert layout(path) == layout(tmp_path / "new.db")
    assert ("version", str(VERSION)) in layout(path)


async def test_format_3_learns_when_owners_were_heard_and_how_many_attempts_failed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    db = apsw.Connection(str(path))
    db.execute("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL")
    db.execute((Path(__file__).parent / "format_3.sql").read_text())
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 3")
    db.execute(CREATE, ("open", "queued", None, encode(Meta(run="open", actor="actor", created=1.0))))
    db.close()
    async with SqliteStore(path) as store:
        assert (await store.fence("open", "token", failures=2)).failures == 2
        assert (await store.head("open")).heard is None
        await store.touch("open")
        assert (await store.head("open")).heard is not None
    async with SqliteStore(tmp_path / "new.db"):
        pass
    assert layout(path) == layout(tmp_path / "new.db")


async def test_runs_are_what_they_were_and_have_a_retention_of_their_own_from_now_on(path: Path) -> None:
    now = 100.0
    store = SqliteStore(path, retention=Retention(age=1000.0), wall=lambda: now)
    async with store:
        open_, old = await store.heads()
        assert [(head.meta.run, head.state, head.ended_at) for head in (open_, old)] == [
            ("open", "queued", None), ("old", "completed", 5.0),
        ]  # fmt: skip
        head = await store.head("open")
        assert (bytes(head.meta.input), head.meta.actor) == (b"7", "actor")
        await Author.start(store, "brief", retention=10.0)
        author = await Author.start(store, "short", retention=10.0)
        await author.say("complete")
        now = 200.0
        await store.sweep()
        assert [head.meta.run for head in await store.heads()] == ["brief", "open", "old"]
        now = 2000.0
        await store.sweep()
        assert [head.meta.run for head in await store.heads()] == ["brief", "open"]
    db = apsw.Connection(str(path))
    new: list[Any] = db.execute("SELECT id FROM run WHERE name = 'brief'").fetchall()
    db.close()
    assert new[0][0] > 3, "ids that were drawn before never come again"


async def test_many_may_open_it_at_once(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(4)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    try:
        claims = [await store.claim(["default"], "w2", lease=10, wait=0) for store in stores]
        assert [claim.run for claim in claims if claim is not None] == ["free"]
    finally:
        for store in stores:
            await store.__aexit__(None, None, None)


async def test_who_has_it_open_goes_on(path: Path) -> None:
    """A process of the version before puts runs as it did; the new one drives them."""
    old = apsw.Connection(str(path))
    old.execute("SELECT count(*) FROM queue").fetchall()
    async with SqliteStore(path) as store:
        old.execute(PUT, ("later", None, encode(Meta(run="later", actor="actor"))))
        claims = [await store.claim(["default"], "w2", lease=10, wait=0) for _ in range(2)]
        assert [claim.run for claim in claims if claim is not None] == ["free", "later"]
    old.close()
