"""G5 to G8: cuts, expired cursors, waiting, pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor
from loom.model.errors import CursorExpired, Fenced, LogNotFound
from loom.model.ports import Store
from loom.model.run import inbox_of
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all

from .kit import CANCELLED, WAIT, Suite, Told, claim, meta, outcome_of, turns


class ReadingConformance(Suite):
    """What every store guarantees to a reader."""

    # --- G5 ----------------------------------------------------------------------------------------------------------

    async def test_g5_for_any_cut_both_parts_are_the_whole(self, store: Store) -> None:
        """What was read up to a cursor, and what is read after it, is everything once, whatever the page size."""
        author = await Author.start(store)
        for size in (1, 3, 1, 5):
            await author.say(*["data"] * size)
        author = await Author.take(store, "run", "token-2")
        await author.say("start", "data", "data")
        await author.say("complete")
        whole = await read_all(store, "run")
        assert len(whole) == 15
        for cut in range(len(whole) + 1):
            after = whole[cut - 1][0] if cut else None
            for limit in (1, 2, 3, 7, 1000):
                assert await read_all(store, "run", after, limit=limit) == whole[cut:]

    async def test_g5_a_follower_sees_each_chunk_once(self, store: Store) -> None:
        """Readers that follow while it is written, in pages of different sizes, all see the same log."""

        async def follow(limit: int) -> list[tuple[Cursor, bytes]]:
            seen: list[tuple[Cursor, bytes]] = []
            page = await store.read("run", limit=limit, wait=WAIT)
            while True:
                seen += page.lines()
                if page.ended:
                    return seen
                page = await store.read("run", page.cursor, limit=limit, wait=WAIT)
                assert page.batches

        author = await Author.start(store)
        following = [spawn(follow(limit), f"follow-{limit}") for limit in (1, 2, 5, 1000)]
        for size in (1, 2, 3, 4, 5, 1):
            await author.say(*["data"] * size)
            await turns(size)
        await author.say("complete")
        whole = await read_all(store, "run")
        for seen in await asyncio.gather(*following):
            assert seen == whole

    # --- G6 ----------------------------------------------------------------------------------------------------------

    async def test_g6_a_cursor_that_was_never_given_is_expired(self, store: Store) -> None:
        """An unknown epoch, and a seq that the epoch did not write, are refused, with where to begin."""
        first = await Author.start(store)
        await first.say("data", "data")
        second = await Author.take(store, "run", "token-2")
        await second.say("start", "data")
        third = await Author.take(store, "run", "token-3")
        unwritten = [
            *((first.epoch, seq) for seq in (4, 5, 6)),
            *((second.epoch, seq) for seq in (1, 3, 6)),
            *((third.epoch, seq) for seq in (5, 6)),
            *((epoch, 2) for epoch in (0, first.epoch - 1, first.epoch + 1, third.epoch + 10**8)),
        ]
        for epoch, seq in unwritten:
            with pytest.raises(CursorExpired) as caught:
                await store.read("run", Cursor(epoch, seq))
            assert caught.value.details == {"earliest": None}
        assert len(await read_all(store, "run", Cursor(first.epoch, 3))) == 2
        assert len(await read_all(store, "run", Cursor(second.epoch, 4))) == 1

    async def test_g6_an_expired_cursor_is_refused_without_waiting(self, store: Store) -> None:
        """A reader of a history that is gone is told at once; it never waits for chunks that cannot come."""
        await Author.start(store)
        with pytest.raises(CursorExpired):
            await store.read("run", Cursor(1, 1), wait=1000 * WAIT)

    async def test_g6_trimmed_history_is_refused(self, store: Store) -> None:
        """Whole batches go; a reader who would miss one is told where the log begins now."""
        author = await Author.start(store)
        for _ in range(3):
            await author.say("data", "data", "data")
        whole = await read_all(store, "run")
        assert await store.trim("run", 7) == 5  # 5 to 7 are one batch
        head = await store.head("run")
        assert (head.first, head.tail, head.earliest) == (5, 10, whole[3][0])
        for after in (None, whole[0][0], whole[2][0]):
            with pytest.raises(CursorExpired) as caught:
                await store.read("run", after, wait=WAIT)
            assert caught.value.details == {"earliest": str(whole[3][0])}
        for cut in range(4, 11):
            assert await read_all(store, "run", whole[cut - 1][0], limit=2) == whole[cut:]

    async def test_g6_trimming_is_idempotent_and_keeps_the_last_batch(self, store: Store) -> None:
        """It never goes back; a repeated append is still known afterwards; the log goes on."""
        author = await Author.start(store)
        await author.say("data", "data")
        last = author.batch("data", "data")
        await author.send(last)
        assert [await store.trim("run", before) for before in (0, 1, 2, 3, 4, 3, 1, 100)] == [1, 1, 2, 2, 4, 4, 4, 4]
        assert await store.append("run", last) == last.cursor
        await author.say("complete")
        assert await store.trim("run", 100) == 6
        assert (await store.head("run")).state == "completed"
        assert len(await read_all(store, "run", last.cursor)) == 1

    async def test_g6_trimming_what_is_empty_does_nothing(self, store: Store) -> None:
        """An empty log begins at 1, also after a fence."""
        await store.create(meta())
        assert await store.trim("run", 10) == 1
        author = await Author.take(store, "run")
        assert await store.trim("run", 10) == 1
        await author.say("start")
        assert len(await read_all(store, "run")) == 1

    async def test_g6_trimming_reaches_over_epochs(self, store: Store) -> None:
        """The earliest cursor names the epoch that wrote the chunk before the first that is kept."""
        first = await Author.start(store)
        second = await Author.take(store, "run", "token-2")
        await second.say("start")
        await second.say("data")
        assert await store.trim("run", 2) == 2
        assert (await store.head("run")).earliest == Cursor(first.epoch, 1)
        assert len(await read_all(store, "run", Cursor(first.epoch, 1))) == 2
        assert await store.trim("run", 3) == 3
        assert (await store.head("run")).earliest == Cursor(second.epoch, 2)
        with pytest.raises(CursorExpired):
            await store.read("run", Cursor(first.epoch, 1))

    async def test_g6_what_was_dropped_is_gone(self, store: Store) -> None:
        """Logs, queue entry and marks; dropping again does nothing."""
        author = await Author.start(store)
        await store.put(meta())
        for _ in range(2):
            await store.drop("run")
            for call in (store.head("run"), store.read("run"), store.read(inbox_of("run")), author.say("data")):
                with pytest.raises(LogNotFound):
                    await call
        assert await store.heads() == []
        assert await claim(store) is None

    async def test_g6_cursors_of_a_dropped_run_are_expired_in_its_successor(self, store: Store) -> None:
        """A run of the same id is another history: its readers are told, whatever they had read."""
        old = await Author.start(store)
        await old.say("data", "data")
        told = await store.send("run", b'{"type":"x"}', sender="s", id="1")
        await store.drop("run")
        await store.create(meta())
        assert await read_all(store, "run") == await read_all(store, inbox_of("run")) == []
        await self._refused(store, old, told)
        with pytest.raises(Fenced):
            await old.say("data")
        await (await Author.take(store, "run", "token")).say("start", "data", "data")
        await store.send("run", b'{"type":"x"}', sender="s", id="1")
        await self._refused(store, old, told)
        assert len(await read_all(store, inbox_of("run"))) == 1

    @staticmethod
    async def _refused(store: Store, old: Author, told: Cursor) -> None:
        for seq in (1, 2, 3):
            with pytest.raises(CursorExpired):
                await store.read("run", Cursor(old.epoch, seq))
        with pytest.raises(CursorExpired):
            await store.read(inbox_of("run"), told)

    # --- G7 ----------------------------------------------------------------------------------------------------------

    async def test_g7_without_a_wait_an_empty_page_comes_at_once(self, store: Store) -> None:
        """At the tail: no batches, the same cursor, caught up, not ended."""
        author = await Author.start(store)
        after = Cursor(author.epoch, 1)
        for page in (await store.read("run", after), await store.read("run", after, wait=0.01)):
            assert (page.batches, page.cursor, page.caught_up, page.ended) == ((), after, True, False)
        page = await store.read(inbox_of("run"), wait=0.01)
        assert (page.batches, page.cursor, page.caught_up, page.ended) == ((), None, True, False)

    @pytest.mark.parametrize("count", range(8))
    async def test_g7_no_wake_up_is_lost(self, store: Store, count: int) -> None:
        """Whenever the append comes, before, while or after the reader begins to wait, the reader has its chunk."""
        author = await Author.start(store)
        cursor = Cursor(author.epoch, 1)
        for _ in range(10):
            reading = spawn(store.read("run", cursor, wait=WAIT), "read")
            await turns(count)
            cursor = await author.say("data")
            page = await reading
            assert (len(page), page.cursor) == (1, cursor)

    async def test_g7_an_append_and_a_wait_at_once_never_miss(self, store: Store) -> None:
        """Begun in the same turn of the loop, in both orders."""
        author = await Author.start(store)
        cursor = Cursor(author.epoch, 1)
        for number in range(20):
            calls: list[Any] = [store.read("run", cursor, wait=WAIT), author.say("data")]
            await asyncio.gather(*(calls if number % 2 else calls[::-1]))
            page = await store.read("run", cursor)
            assert len(page) == 1
            cursor = page.batches[-1].cursor

    async def test_g7_every_reader_wakes(self, store: Store) -> None:
        """However many wait on one log."""
        author = await Author.start(store)
        after = Cursor(author.epoch, 1)
        reading = [spawn(store.read("run", after, wait=WAIT), f"read-{number}") for number in range(100)]
        await turns(5)
        await author.say("data")
        assert all(len(page) == 1 for page in await asyncio.gather(*reading))

    @pytest.mark.parametrize("ending", ["complete", "error"])
    async def test_g7_a_reader_wakes_on_the_end(self, store: Store, ending: str) -> None:
        """The page that wakes it tells the last chunk and the end; the inbox's reader is told the end too."""
        author = await Author.start(store)
        reading = spawn(store.read("run", Cursor(author.epoch, 1), wait=WAIT), "read")
        listening = spawn(store.read(inbox_of("run"), wait=WAIT), "listen")
        await turns(5)
        await author.say(ending)
        page, told = await reading, await listening
        assert (len(page), page.ended) == (1, True)
        assert (told.batches, told.ended) == ((), True)

    async def test_g7_a_reader_of_a_run_that_never_began_wakes(self, store: Store) -> None:
        """On its first chunk, and on `end_unstarted`."""
        await store.create(meta("run-1"))
        await store.create(meta("run-2"))
        reading = [spawn(store.read(run, wait=WAIT), run) for run in ("run-1", "run-2")]
        await turns(5)
        await (await Author.take(store, "run-1")).say("start")
        await store.end_unstarted("run-2", CANCELLED)
        first, second = await asyncio.gather(*reading)
        assert (len(first), first.ended) == (1, False)
        assert (len(second), second.ended) == (1, True)

    async def test_g7_dropping_wakes_readers(self, store: Store) -> None:
        """Those who wait on either log are told that there is no such run."""
        author = await Author.start(store)
        reading = [
            spawn(outcome_of(store.read(log, after, wait=WAIT)), "read")
            for log, after in (("run", Cursor(author.epoch, 1)), (inbox_of("run"), None))
            for _ in range(3)
        ]
        await turns(5)
        await store.drop("run")
        assert all(isinstance(outcome, LogNotFound) for outcome in await asyncio.gather(*reading))

    @pytest.mark.parametrize("count", range(8))
    async def test_g7_a_wait_is_safe_to_cancel(self, store: Store, count: int) -> None:
        """Wherever it is cut, before or after the append, nothing is lost for the next read."""
        author = await Author.start(store)
        cursor = Cursor(author.epoch, 1)
        for number in range(6):
            reading = spawn(store.read("run", cursor, wait=WAIT), "read")
            await turns(count)
            if number % 2:
                said = await author.say("data")
                await cancel_and_wait(reading)
            else:
                await cancel_and_wait(reading)
                said = await author.say("data")
            page = await store.read("run", cursor, wait=WAIT)
            assert page.cursor == said
            cursor = said

    async def test_g7_a_wait_outlasts_what_does_not_concern_it(self, store: Store) -> None:
        """Marks, heartbeats and trimming wake nobody for good."""
        author = await Author.start(store)
        reading = spawn(store.read("run", Cursor(author.epoch, 1), wait=WAIT), "read")
        await turns(3)
        await store.mark("run", "reader", 1)
        await store.touch("run")
        await store.trim("run", 1)
        await turns(3)
        assert not reading.done()
        await author.say("data")
        assert len(await reading) == 1

    async def test_g7_cancelling_one_wait_leaves_the_others(self, store: Store) -> None:
        """Readers do not depend on each other."""
        author = await Author.start(store)
        after = Cursor(author.epoch, 1)
        reading = [spawn(store.read("run", after, wait=WAIT), f"read-{number}") for number in range(10)]
        await turns(3)
        await cancel_and_wait(*reading[::2])
        await author.say("data")
        assert all(len(page) == 1 for page in await asyncio.gather(*reading[1::2]))

    async def test_g7_a_watcher_is_told_of_appends(self, store: Store) -> None:
        """With the batch itself, or to look; a batch that is told is exactly what was appended."""
        author = await Author.start(store)
        told = Told(store, "run")
        appended: list[Batch] = []
        for end in (False, False, True):
            batch = author.batch("data", "complete" if end else "data")
            appended.append(batch)
            await author.send(batch, end=end)
            for notice in await told.next():
                assert notice.batch is None or notice.batch in appended
                assert notice.batch is None or notice.ended == (notice.batch == appended[-1] and end)
        told.unwatch()

    async def test_g7_a_watcher_is_told_of_messages_and_of_the_end(self, store: Store) -> None:
        """By the inbox's watch."""
        author = await Author.start(store)
        told = Told(store, inbox_of("run"))
        await store.send("run", b'{"type":"x"}', sender="s", id="1")
        await told.next()
        await author.say("complete")
        await told.next()
        told.unwatch()

    async def test_g7_a_watcher_is_told_of_marks_and_the_drop(self, store: Store) -> None:
        """By the outbox's watch."""
        await Author.start(store)
        told = Told(store, "run")
        for seq in (1, None):
            await store.mark("run", "reader", seq)
            for notice in await told.next(marks=True):
                assert notice.batch is None
                assert not notice.ended
        await store.drop("run")
        await told.next()
        told.unwatch()

    async def test_g7_a_watch_may_come_before_the_run(self, store: Store) -> None:
        """Who watches first and reads then misses nothing, not even its beginning."""
        told = Told(store, "run")
        await store.create(meta())
        await told.next()
        await (await Author.take(store, "run")).say("start")
        await told.next()
        told.unwatch()

    async def test_g7_after_unwatch_nothing_is_told(self, store: Store) -> None:
        """Each watch ends by itself, also when the same function watches twice; ending it again does nothing."""
        author = await Author.start(store)
        first, second = Told(store, "run"), Told(store, "run")
        again = store.watch("run", second.notify)
        first.unwatch()
        first.unwatch()
        second.unwatch()
        await author.say("data")
        await second.next()
        assert first.notices == []
        again()
        await author.say("data")
        await store.read("run")
        await turns(5)
        assert first.notices == second.notices == []

    # --- G8 ----------------------------------------------------------------------------------------------------------

    async def test_g8_a_page_is_bounded(self, store: Store) -> None:
        """In chunks and in bytes, whatever the reader lags; a single larger chunk still passes."""
        author = await Author.start(store)
        large = Chunk("data", "x" * (limits.CHUNK_BYTES - 64))
        for _ in range(8):
            await author.say(*[Chunk("data", "x" * 1000)] * 250)
        await author.say("data", large, large, "data")
        after, seen = None, 0
        while True:
            page = await store.read("run", after)
            seen += len(page)
            assert page.batches
            assert len(page) <= limits.PAGE_CHUNKS
            assert len(page) == 1 or sum(len(batch.payload) for batch in page.batches) <= limits.PAGE_BYTES
            after = page.cursor
            if page.caught_up:
                break
        assert seen == 1 + 2000 + 4

    async def test_g8_no_reader_gets_more_than_the_most(self, store: Store) -> None:
        """A limit is at least 1 and at most `READ_LIMIT`, whatever is asked."""
        author = await Author.start(store)
        for _ in range(11):
            await author.say(*["data"] * 1000)
        assert len(await store.read("run", limit=10**9)) <= limits.READ_LIMIT
        assert len(await store.read("run", limit=1)) == 1
        assert len(await store.read("run", limit=0)) == 1
