"""Group commit: one transaction for all that waits, and each call its own outcome."""

from __future__ import annotations

import asyncio
import gc
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor
from loom.model.errors import Conflict, Fenced, LogNotFound, StoreFull
from loom.model.ports import Durability
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.stores.sqlite.database import open_for_writing
from loom.stores.sqlite.sql import GROUP_ROWS
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.wire.json import make_batch

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runs.db") as store:
        yield store


def commits(folder: Path) -> int:
    """How many transactions the write-ahead log holds: frames that end one name the size of the database.

    SQLite's file format, section 4.1: a header of 32 bytes, then frames of 24 bytes and a page each.
    """
    wal = (folder / "runs.db-wal").read_bytes()
    (page_size,) = struct.unpack(">I", wal[8:12])
    salt = wal[16:24]
    frames = (wal[at : at + 24] for at in range(32, len(wal), 24 + page_size))
    return sum(1 for frame in frames if frame[8:16] == salt and frame[4:8] != b"\0\0\0\0")


async def test_what_waits_is_committed_together(store: SqliteStore, tmp_path: Path) -> None:
    """A thousand appends, a hundred at a time, in about ten commits."""
    authors = await asyncio.gather(*(Author.start(store, f"run-{number}") for number in range(100)))
    before = commits(tmp_path)

    async def say(author: Author) -> None:
        for _ in range(10):
            await author.say("data")

    await asyncio.gather(*map(say, authors))
    assert commits(tmp_path) - before <= 50
    for author in authors:
        assert len(await read_all(store.logs, author.log)) == 11


async def test_an_idle_writer_is_not_made_to_wait(store: SqliteStore, tmp_path: Path) -> None:
    """One at a time is one commit each."""
    author = await Author.start(store)
    before = commits(tmp_path)
    for _ in range(10):
        await author.say("data")
    assert commits(tmp_path) - before == 10


async def test_appends_leave_nothing_to_the_garbage_collector(store: SqliteStore) -> None:
    """It goes round seldom: what is in a cycle keeps its batch in memory until then."""
    author = await Author.start(store)
    gc.collect()
    gc.disable()
    try:
        for _ in range(200):
            await author.say("data")
        assert gc.collect() < 100
    finally:
        gc.enable()


async def test_a_refusal_leaves_its_neighbours(store: SqliteStore) -> None:
    """Zombies, gaps, repeats and runs that are not there, among appends that stand: all in one group."""
    count = GROUP_ROWS + 10
    authors = await asyncio.gather(*(Author.start(store, f"run-{number}") for number in range(count)))
    zombie = authors[0]
    heir = await Author.take(store.logs, zombie.log, "token-2")
    repeated = authors[1].batch("data")
    await authors[1].send(repeated)
    calls = [
        zombie.say("data"),
        store.logs.append(authors[1].log, repeated),
        store.logs.append(authors[2].log, make_batch(authors[2].epoch, 9, [Chunk("data")])),
        store.logs.append("nobody", make_batch(1, 1, [Chunk("data")])),
        *(author.say("data") for author in authors[3:]),
        heir.say("start"),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1] == repeated.cursor
    assert isinstance(outcomes[2], Conflict)
    assert isinstance(outcomes[3], LogNotFound)
    assert outcomes[4:-1] == [Cursor(author.epoch, 2) for author in authors[3:]]
    assert outcomes[-1] == Cursor(heir.epoch, 2)
    for author in authors:
        assert len(await read_all(store.logs, author.log)) == (1 if author is authors[2] else 2)


async def test_a_value_that_cannot_be_stored_is_its_callers_own_trouble(store: SqliteStore) -> None:
    """Neighbours in the group stand, and the store goes on."""
    authors = [await Author.start(store, f"run-{number}") for number in range(5)]
    poison = Batch(2**70, 1, 1, b'{"type":"data"}\n')
    outcomes = await asyncio.gather(
        *(author.say("data") for author in authors),
        store.logs.append("run-0", poison),
        store.logs.fence("run-1", "\udc80"),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Cursor] * 5 + [OverflowError, UnicodeEncodeError]
    await authors[0].say("data")


async def test_appends_of_one_run_keep_their_order(store: SqliteStore) -> None:
    """Also when they are submitted at once, with other calls between them."""
    author = await Author.start(store)
    batches = [make_batch(author.epoch, seq, [Chunk("data", seq)]) for seq in range(2, 12)]
    await asyncio.gather(
        *(call for batch in batches for call in (store.logs.append("run", batch), store.runs.heartbeat("run")))
    )
    assert [cursor.seq for cursor, _ in await read_all(store.logs, "run")] == list(range(1, 12))


async def test_an_append_that_was_submitted_is_done_whether_its_caller_waits_or_not(store: SqliteStore) -> None:
    author = await Author.start(store)
    appending = spawn(store.logs.append("run", author.batch("data")), "append")
    await asyncio.sleep(0)
    await cancel_and_wait(appending)
    assert (await store.logs.fence("run", "token")).tail == 2


async def say_for_ever(author: Author, chunk: Chunk[str]) -> None:
    while True:
        await author.say(chunk)


async def test_a_full_file_refuses_changes_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the group; readers go on; the same batch again is success later."""
    opened: list[apsw.Connection] = []

    def open_small(path: str, durability: Durability, busy: float) -> apsw.Connection:
        opened.append(open_for_writing(path, durability, busy))
        opened[0].execute("PRAGMA max_page_count = 60")
        return opened[0]

    monkeypatch.setattr("loom.stores.sqlite.writer.open_for_writing", open_small)
    async with SqliteStore(tmp_path / "runs.db") as store:
        authors = [await Author.start(store, f"run-{number}") for number in range(3)]
        large = Chunk("data", "x" * 20_000)
        with pytest.raises(StoreFull):
            await say_for_ever(authors[0], large)
        frozen = [author.batch(large) for author in authors]
        outcomes = await asyncio.gather(
            *(author.send(batch) for author, batch in zip(authors, frozen, strict=True)),
            store.runs.create(Meta(run="another", actor="actor")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreFull] * 4
        for author in authors:
            assert len(await read_all(store.logs, author.log)) == author.tail
        with pytest.raises(LogNotFound):
            await store.runs.get("another")
        opened[0].execute("PRAGMA max_page_count = 10000")
        for author, batch in zip(authors, frozen, strict=True):
            assert await author.send(batch) == batch.cursor
            assert len(await read_all(store.logs, author.log)) == author.tail
