"""What changed, found out and told: each change of others, and nothing besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from loom.model.ports import Notice, message_producer
from loom.model.run import Meta, inbox_of
from loom.stores.sqlite import SqliteStore
from loom.stores.sqlite.news import LOOK_RANGES, LOOK_ROWS, Unseen
from loom.testing.author import Author

pytestmark = pytest.mark.anyio


# --- which ids were not looked at ------------------------------------------------------------------------------------


def test_our_own_rows_need_no_look() -> None:
    unseen = Unseen(10)
    unseen.own(11, 13)
    unseen.own(14, 14)
    unseen.grown(14)
    assert (len(unseen), unseen.take()) == (0, [])


def test_what_lies_between_our_own_rows_is_others() -> None:
    unseen = Unseen(10)
    unseen.own(12, 13)
    unseen.own(16, 16)
    unseen.grown(18)
    assert len(unseen) == 5
    assert unseen.take() == [(11, 11), (14, 15), (17, 18)]
    assert unseen.take() == []


def test_while_nobody_looks_memory_is_bounded() -> None:
    """At the price of looking at our own rows too."""
    unseen = Unseen(0)
    for number in range(1, 10 * LOOK_RANGES):
        unseen.own(2 * number, 2 * number)
    unseen.grown(5000)
    ranges = unseen.take()
    assert len(ranges) <= LOOK_RANGES + 1
    assert (ranges[0][0], ranges[-1][1]) == (1, 5000)
    assert all(one[1] < two[0] for one, two in pairwise(ranges))


# --- what is told ----------------------------------------------------------------------------------------------------


class Ear:
    """All notices of some topics, and a wait for one of them."""

    def __init__(self, store: SqliteStore, *logs: str) -> None:
        self.heard: list[tuple[str, Notice]] = []
        self._event = asyncio.Event()
        for log in logs:
            store.logs.watch(log, lambda notice, log=log: self._hear(log, notice))  # type: ignore[misc]

    def _hear(self, log: str, notice: Notice) -> None:
        self.heard.append((log, notice))
        self._event.set()

    async def until(self, log: str, notice: Notice) -> list[tuple[str, Notice]]:
        """What was heard, up to this."""
        async with asyncio.timeout(10):
            while (log, notice) not in self.heard:
                self._event.clear()
                await self._event.wait()
        place = self.heard.index((log, notice)) + 1
        heard, self.heard = self.heard[:place], self.heard[place:]
        return heard


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runs.db") as store:
        yield store


@pytest.fixture
async def other(tmp_path: Path, store: SqliteStore) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runs.db") as other:
        yield other


async def test_others_changes_are_told_by_name(store: SqliteStore, other: SqliteStore) -> None:
    """While both write: ours with their batches, theirs to look, and none of a log that nobody changed."""
    mine, theirs = await Author.start(store, "mine"), await Author.start(other, "theirs")
    await Author.start(store, "quiet")
    ear = Ear(store, "mine", "theirs", "quiet")
    await theirs.say("data")
    await ear.until("theirs", Notice())  # with what came before the watch
    ear.heard.clear()
    for _ in range(20):
        batch = mine.batch("data")
        await asyncio.gather(mine.send(batch), theirs.say("data"))
        heard = await ear.until("theirs", Notice()) + ear.heard
        assert ("mine", Notice(batch)) in heard
        assert not {("quiet", Notice()), ("mine", Notice())} & set(heard)
        ear.heard.clear()


async def test_our_own_appends_are_told_once(store: SqliteStore) -> None:
    """With their batches, and not again from the file."""
    author = await Author.start(store)
    ear = Ear(store, "run", inbox_of("run"))
    await store.logs.commit_position("run", "reader", 1)
    await ear.until("run", Notice(marks=True))  # with what came before the watch
    ear.heard.clear()
    batches = []
    for _ in range(5):
        batches.append(author.batch("data"))
        await author.send(batches[-1])
    message = await store.logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
    await store.logs.commit_position("run", "reader", 1)
    heard = await ear.until("run", Notice(marks=True))
    assert heard[:5] == [("run", Notice(batch)) for batch in batches]
    assert [log for log, _ in heard[5:]] == [inbox_of("run"), "run"]
    assert heard[5][1].batch is not None
    assert heard[5][1].batch.cursor == message


async def test_changes_while_nobody_watched_are_not_missed(store: SqliteStore, other: SqliteStore) -> None:
    """What was committed before a watch began may be told; what came after has to be."""
    theirs = await Author.start(other, "theirs")
    for _ in range(10):
        await theirs.say("data")
    ear = Ear(store, "theirs")
    await theirs.say("data")
    await ear.until("theirs", Notice())


async def test_more_changes_than_are_worth_naming_are_told_to_everybody(store: SqliteStore, other: SqliteStore) -> None:
    authors = await asyncio.gather(*(Author.start(other, f"run-{number}") for number in range(20)))
    for _ in range(LOOK_ROWS // 20 + 1):
        await asyncio.gather(*(author.say("data") for author in authors))
    ear = Ear(store, "run-0", "run-19", "quiet")
    await authors[0].say("data")
    for log in ("run-0", "run-19"):
        await ear.until(log, Notice())


async def test_what_was_forgotten_is_told_to_everybody(store: SqliteStore, other: SqliteStore) -> None:
    """Changes are kept as long as they would be looked at one by one."""
    metas = [Meta(run=f"run-{number}", actor="actor") for number in range(LOOK_ROWS + 10)]
    await asyncio.gather(*map(other.queue.put, metas))
    await other.sweep()
    ear = Ear(store, "watched")
    await other.runs.create(Meta(run="another", actor="actor"))
    await ear.until("watched", Notice())
    await ear.until("watched", Notice(marks=True))
