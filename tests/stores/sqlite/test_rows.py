"""What rows hold: told by name where it was damaged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from loom.model.chunk import Chunk
from loom.model.errors import Damaged, LoomError
from loom.model.ports import message_producer
from loom.model.run import Claim, Meta, inbox_of
from loom.stores.sqlite import SqliteStore
from loom.stores.sqlite.rows import batches_of
from loom.testing.author import Author, read_all
from loom.testing.clock import ManualClock
from loom.testing.conformance.kit import outcome_of, stand_still

pytestmark = pytest.mark.anyio

LEASE = 10.0


LINE = b'{"type":"data"}\n'


@pytest.mark.parametrize(
    ("stored", "seq"),
    [
        (LINE * 3 + b"9", 5),  # a line is missing
        (LINE * 3 + b"6", 5),  # one too many
        (LINE + b'{"type":"da\n' + LINE + b"7", 6),
        (LINE + b"\n" + LINE + b"7", 5),
        (LINE * 2 + b'{"type":"data"}7', 7),
        (b"7", 5),
        (b"", 5),
    ],
)
def test_a_batch_that_is_not_what_was_written(stored: bytes, seq: int) -> None:
    """Is told by the chunk, or the batch's first where lines do not tell."""
    with pytest.raises(Damaged) as caught:
        batches_of("run", 1, 5, stored, opaque=False)
    assert caught.value.details == {"run": "run", "seq": seq}


def test_a_batch_that_is() -> None:
    (batch,) = batches_of("run", 1, 5, LINE * 3 + b"7", opaque=False)
    assert (batch.first, batch.last, batch.payload) == (5, 7, LINE * 3)


# --- in the file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, clock=clock) as store:
        yield store


def damage(path: Path, change: str) -> None:
    """As a bad sector does it, only more to the point."""
    db = apsw.Connection(str(path))
    db.execute(change)
    assert db.changes()
    db.close()


async def claim(store: SqliteStore, worker: str = "w1", wait: float = 0.0) -> Claim | None:
    return await store.queue.claim(["default"], worker, lease=LEASE, wait=wait)


async def test_an_entry_that_cannot_be_read_is_stepped_over(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And told of once, by its run."""
    for number in range(1, 5):
        await store.queue.put(Meta(run=f"run-{number}", actor="actor"))
    damage(path, "UPDATE queue SET meta = x'7b2272' WHERE run IN ('run-1', 'run-3')")
    with caplog.at_level(logging.ERROR, "loom.store"):
        claims = [await claim(store) for _ in range(4)]
    assert [each and each.run for each in claims] == ["run-2", "run-4", None, None]
    assert ["run-1" in record.getMessage() for record in caplog.records] == [True, False]


async def test_an_entry_that_was_repaired_is_claimed_by_who_opens_the_file(store: SqliteStore, path: Path) -> None:
    """It was left as it was, not thrown away."""
    await store.queue.put(Meta(run="run", actor="actor"))
    damage(path, "UPDATE queue SET meta = x'00' WHERE run = 'run'")
    assert await claim(store) is None
    damage(path, """UPDATE queue SET meta = CAST('{"run":"run","actor":"actor"}' AS BLOB)""")
    assert await claim(store) is None
    async with SqliteStore(path) as other:
        taken = await claim(other)
        assert taken is not None
        assert taken.meta == Meta(run="run", actor="actor")


async def test_a_lapsed_claim_of_an_entry_that_cannot_be_read_holds_up_nobody(
    store: SqliteStore, path: Path, clock: ManualClock
) -> None:
    for number in range(2):
        await store.queue.put(Meta(run=f"run-{number}", actor="actor"))
        assert await claim(store) is not None
    assert await claim(store, "w2") is None
    damage(path, "UPDATE queue SET meta = x'00' WHERE run = 'run-0'")
    await stand_still(store.queue, clock, LEASE * 1.1)
    taken = await claim(store, "w2")
    assert taken is not None
    assert (taken.run, taken.crashes) == ("run-1", 1)
    assert await claim(store, "w2") is None


async def test_a_waiting_claim_gets_what_comes_behind_it(store: SqliteStore, path: Path) -> None:
    await store.queue.put(Meta(run="run-1", actor="actor"))
    damage(path, "UPDATE queue SET meta = x'00'")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(claim(store, wait=20.0))
        await claim(store, "w2")
        await store.queue.put(Meta(run="run-2", actor="actor"))
    taken = waiting.result()
    assert taken is not None
    assert taken.run == "run-2"


async def test_a_file_with_too_many_of_them_says_so(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.stores.sqlite.claims.HELD_BACK", 2)
    for number in range(4):
        await store.queue.put(Meta(run=f"run-{number}", actor="actor"))
    damage(path, "UPDATE queue SET meta = x'00'")
    for _ in range(2):
        outcome = await outcome_of(claim(store))
        assert isinstance(outcome, Damaged)
        assert outcome.details == {"run": "run-2"}


async def test_a_batch_that_cannot_be_read_is_told_by_run_and_seq(store: SqliteStore, path: Path) -> None:
    """By every read that would pass it on; what lies before it is read."""
    author = await Author.start(store)
    await author.say("data")
    await author.say("data", "data")
    damage(path, "UPDATE batch SET payload = substr(payload, 1, 20) WHERE first = 3")
    for after in (None, (await store.logs.read("run", limit=1)).cursor):
        outcome = await outcome_of(store.logs.read("run", after))
        assert isinstance(outcome, Damaged)
        assert outcome.details == {"run": "run", "seq": 3}
        assert "'run'" in outcome.message
        assert not outcome.retryable
    assert len(await store.logs.read("run", limit=2)) == 2


async def test_a_chunk_that_is_missing_is_told(store: SqliteStore, path: Path) -> None:
    """Sound lines are not enough: those behind it would be read under other numbers."""
    author = await Author.start(store)
    await author.say("data", "data")
    await author.say("data")
    damage(path, "UPDATE batch SET payload = substr(payload, 1, instr(payload, x'0a')) WHERE first = 2")
    outcome = await outcome_of(read_all(store.logs, "run"))
    assert isinstance(outcome, Damaged)


async def test_a_batch_that_is_gone_is_told(store: SqliteStore, path: Path) -> None:
    """No gap is passed over, wherever reading begins, and nobody reads in vain."""
    author = await Author.start(store)
    first, second, third = [(await store.logs.read("run")).cursor, await author.say("data"), await author.say("data")]
    damage(path, "DELETE FROM batch WHERE first = 2")
    for after in (None, first):
        outcome = await outcome_of(read_all(store.logs, "run", after))
        assert isinstance(outcome, Damaged)
    assert len(await read_all(store.logs, "run", second)) == 1
    damage(path, "UPDATE batch SET first = 2 WHERE first = 3")
    outcome = await outcome_of(store.logs.read("run", first))
    assert isinstance(outcome, Damaged)
    assert (await store.logs.read("run", third)).caught_up


async def test_a_message_that_cannot_be_read_is_told(store: SqliteStore, path: Path) -> None:
    await Author.start(store)
    for number in range(3):
        await store.logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", str(number)))
    damage(path, "UPDATE batch SET payload = x'7b0a' WHERE first = 2")
    outcome = await outcome_of(store.logs.read(inbox_of("run")))
    assert isinstance(outcome, Damaged)
    assert outcome.details == {"run": "run", "seq": 2}


@pytest.mark.parametrize(("table", "column"), [("run", "meta"), ("log", "epochs"), ("run", "error")])
async def test_a_head_that_cannot_be_read_is_told_by_its_run(
    store: SqliteStore, path: Path, table: str, column: str
) -> None:
    for run in ("sound", "run"):
        await (await Author.start(store, run)).say("complete")
    damage(path, f"UPDATE {table} SET {column} = x'5b' WHERE id = (SELECT id FROM log WHERE name = 'run')")
    for call in (store.runs.get("run"), store.runs.list_runs()):
        outcome = await outcome_of(call)
        assert isinstance(outcome, Damaged)
        assert outcome.details == {"run": "run"}
    assert (await store.runs.get("sound")).ended


async def test_a_result_that_cannot_be_read_is_told_by_its_run(store: SqliteStore, path: Path) -> None:
    await (await Author.start(store)).say("data", Chunk("complete", 42))
    damage(path, "UPDATE batch SET payload = x'00' WHERE last = 3")
    outcome: LoomError = await outcome_of(store.runs.get("run"))
    assert isinstance(outcome, Damaged)
    assert outcome.details == {"run": "run", "seq": 3}
