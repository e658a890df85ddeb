"""G5 to G8: cuts, expired cursors, waiting, pages; and how far readers are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor
from loom.model.errors import CursorExpired, Fenced, LimitExceeded, LogNotFound
from loom.model.ports import LogStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all

from .kit import WAIT, LogMaker, Suite, Told, outcome_of, turns


class ReadingConformance(Suite):
    """Guarantees to the readers of a log."""

    async def test_g5_for_any_cut_both_parts_are_the_whole(self, logs: LogStore, maker: LogMaker) -> None:
        """What was read up to a cursor, and what is read after it, is everything once, whatever the page size."""
        author = await maker.start()
        for size in (1, 3, 1, 5):
            await author.say(*["data"] * size)
        author = await Author.take(logs, "log", "token-2")
        await author.say("start", "data", "data")
        await author.say("complete")
        whole = await read_all(logs, "log")
        assert len(whole) == 15
        for cut in range(len(whole) + 1):
            after = whole[cut - 1][0] if cut else None
            for limit in (1, 2, 3, 7, 1000):
                assert await read_all(logs, "log", after, limit=limit) == whole[cut:]

    async def test_g5_a_follower_sees_each_chunk_once(self, logs: LogStore, maker: LogMaker) -> None:
        """Readers that follow while it is written, in pages of different sizes, all see the same log."""

        async def follow(limit: int) -> list[tuple[Cursor, bytes]]:
            seen: list[tuple[Cursor, bytes]] = []
            page = await logs.read("log", limit=limit, wait=WAIT)
            while True:
                seen += page.lines()
                if page.ended:
                    return seen
                page = await logs.read("log", page.cursor, limit=limit, wait=WAIT)
                assert page.batches

        author = await maker.start()
        following = [spawn(follow(limit), f"follow-{limit}") for limit in (1, 2, 5, 1000)]
        for size in (1, 2, 3, 4, 5, 1):
            await author.say(*["data"] * size)
            await turns(size)
        await author.say("complete")
        whole = await read_all(logs, "log")
        for seen in await asyncio.gather(*following):
            assert seen == whole

    async def test_g6_a_cursor_that_was_never_given_is_expired(self, logs: LogStore, maker: LogMaker) -> None:
        """An unknown epoch, and a seq that the epoch did not write, are refused, with where to begin."""
        first = await maker.start()
        await first.say("data", "data")
        second = await Author.take(logs, "log", "token-2")
        await second.say("start", "data")
        third = await Author.take(logs, "log", "token-3")
        unwritten = [
            *((first.epoch, seq) for seq in (4, 5, 6)),
            *((second.epoch, seq) for seq in (1, 3, 6)),
            *((third.epoch, seq) for seq in (5, 6)),
            *((epoch, 2) for epoch in (0, first.epoch - 1, first.epoch + 1, third.epoch + 10**8)),
        ]
        for epoch, seq in unwritten:
            with pytest.raises(CursorExpired) as caught:
                await logs.read("log", Cursor(epoch, seq))
            assert caught.value.details == {"earliest": None}
        assert len(await read_all(logs, "log", Cursor(first.epoch, 3))) == 2
        assert len(await read_all(logs, "log", Cursor(second.epoch, 4))) == 1

    async def test_g6_an_expired_cursor_is_refused_without_waiting(self, logs: LogStore, maker: LogMaker) -> None:
        """A reader of a history that is gone is told at once; it never waits for chunks that cannot come."""
        await maker.start()
        with pytest.raises(CursorExpired):
            await logs.read("log", Cursor(1, 1), wait=1000 * WAIT)

    async def test_g6_trimmed_history_is_refused(self, logs: LogStore, maker: LogMaker) -> None:
        """Whole batches go; a reader who would miss one is told where the log begins now."""
        author = await maker.start()
        for _ in range(3):
            await author.say("data", "data", "data")
        whole = await read_all(logs, "log")
        assert await logs.trim("log", 7) == 5  # 5 to 7 are one batch
        info = await logs.info("log")
        assert (info.first, info.tail, info.earliest) == (5, 10, whole[3][0])
        for after in (None, whole[0][0], whole[2][0]):
            with pytest.raises(CursorExpired) as caught:
                await logs.read("log", after, wait=WAIT)
            assert caught.value.details == {"earliest": str(whole[3][0])}
        for cut in range(4, 11):
            assert await read_all(logs, "log", whole[cut - 1][0], limit=2) == whole[cut:]

    async def test_g6_trimming_is_idempotent_and_keeps_the_last_batch(self, logs: LogStore, maker: LogMaker) -> None:
        """It never goes back; a repeated append is still known afterwards; the log goes on."""
        author = await maker.start()
        await author.say("data", "data")
        last = author.batch("data", "data")
        await author.send(last)
        assert [await logs.trim("log", before) for before in (0, 1, 2, 3, 4, 3, 1, 100)] == [1, 1, 2, 2, 4, 4, 4, 4]
        assert await logs.append("log", last) == last.cursor
        await author.say("complete")
        assert await logs.trim("log", 100) == 6
        assert (await logs.info("log")).ended
        assert len(await read_all(logs, "log", last.cursor)) == 1

    async def test_g6_trimming_what_is_empty_does_nothing(self, logs: LogStore, maker: LogMaker) -> None:
        """An empty log begins at 1, also after a fence."""
        await maker.create("log")
        assert await logs.trim("log", 10) == 1
        author = await Author.take(logs, "log")
        assert await logs.trim("log", 10) == 1
        await author.say("start")
        assert len(await read_all(logs, "log")) == 1

    async def test_g6_trimming_reaches_over_epochs(self, logs: LogStore, maker: LogMaker) -> None:
        """The earliest cursor names the epoch that wrote the chunk before the first that is kept."""
        first = await maker.start()
        second = await Author.take(logs, "log", "token-2")
        await second.say("start")
        await second.say("data")
        assert await logs.trim("log", 2) == 2
        assert (await logs.info("log")).earliest == Cursor(first.epoch, 1)
        assert len(await read_all(logs, "log", Cursor(first.epoch, 1))) == 2
        assert await logs.trim("log", 3) == 3
        assert (await logs.info("log")).earliest == Cursor(second.epoch, 2)
        with pytest.raises(CursorExpired):
            await logs.read("log", Cursor(first.epoch, 1))

    async def test_g7_without_a_wait_an_empty_page_comes_at_once(self, logs: LogStore, maker: LogMaker) -> None:
        """At the tail: no batches, the same cursor, caught up, not ended."""
        author = await maker.start()
        after = Cursor(author.epoch, 1)
        for page in (await logs.read("log", after), await logs.read("log", after, wait=0.01)):
            assert (page.batches, page.cursor, page.caught_up, page.ended) == ((), after, True, False)
        await maker.create("empty")
        page = await logs.read("empty", wait=0.01)
        assert (page.batches, page.cursor, page.caught_up, page.ended) == ((), None, True, False)

    @pytest.mark.parametrize("count", range(8))
    async def test_g7_no_wake_up_is_lost(self, logs: LogStore, maker: LogMaker, count: int) -> None:
        """Whenever the append comes, before, while or after the reader begins to wait, the reader has its chunk."""
        author = await maker.start()
        cursor = Cursor(author.epoch, 1)
        for _ in range(10):
            reading = spawn(logs.read("log", cursor, wait=WAIT), "read")
            await turns(count)
            cursor = await author.say("data")
            page = await reading
            assert (len(page), page.cursor) == (1, cursor)

    async def test_g7_an_append_and_a_wait_at_once_never_miss(self, logs: LogStore, maker: LogMaker) -> None:
        """Begun in the same turn of the loop, in both orders."""
        author = await maker.start()
        cursor = Cursor(author.epoch, 1)
        for number in range(20):
            calls: list[Any] = [logs.read("log", cursor, wait=WAIT), author.say("data")]
            await asyncio.gather(*(calls if number % 2 else calls[::-1]))
            page = await logs.read("log", cursor)
            assert len(page) == 1
            cursor = page.batches[-1].cursor

    async def test_g7_every_reader_wakes(self, logs: LogStore, maker: LogMaker) -> None:
        """However many wait on one log."""
        author = await maker.start()
        after = Cursor(author.epoch, 1)
        reading = [spawn(logs.read("log", after, wait=WAIT), f"read-{number}") for number in range(100)]
        await turns(5)
        await author.say("data")
        assert all(len(page) == 1 for page in await asyncio.gather(*reading))

    @pytest.mark.parametrize("ending", ["complete", "error"])
    async def test_g7_a_reader_wakes_on_the_end(self, logs: LogStore, maker: LogMaker, ending: str) -> None:
        """The page that wakes it holds the last chunk and the end."""
        author = await maker.start()
        reading = spawn(logs.read("log", Cursor(author.epoch, 1), wait=WAIT), "read")
        await turns(5)
        await author.say(ending)
        page = await reading
        assert (len(page), page.ended) == (1, True)

    async def test_g7_dropping_wakes_readers(self, logs: LogStore, maker: LogMaker) -> None:
        """With `LogNotFound`."""
        author = await maker.start()
        after = Cursor(author.epoch, 1)
        reading = [spawn(outcome_of(logs.read("log", after, wait=WAIT)), "read") for _ in range(3)]
        await turns(5)
        await maker.drop("log")
        assert all(isinstance(outcome, LogNotFound) for outcome in await asyncio.gather(*reading))

    @pytest.mark.parametrize("count", range(8))
    async def test_g7_a_wait_is_safe_to_cancel(self, logs: LogStore, maker: LogMaker, count: int) -> None:
        """Wherever it is cut, before or after the append, nothing is lost for the next read."""
        author = await maker.start()
        cursor = Cursor(author.epoch, 1)
        for number in range(6):
            reading = spawn(logs.read("log", cursor, wait=WAIT), "read")
            await turns(count)
            if number % 2:
                said = await author.say("data")
                await cancel_and_wait(reading)
            else:
                await cancel_and_wait(reading)
                said = await author.say("data")
            page = await logs.read("log", cursor, wait=WAIT)
            assert page.cursor == said
            cursor = said

    async def test_g7_a_wait_outlasts_what_does_not_concern_it(self, logs: LogStore, maker: LogMaker) -> None:
        """Positions and trimming wake no reader for good."""
        author = await maker.start()
        reading = spawn(logs.read("log", Cursor(author.epoch, 1), wait=WAIT), "read")
        await turns(3)
        await logs.commit_position("log", "reader", 1)
        await logs.trim("log", 1)
        await turns(3)
        assert not reading.done()
        await author.say("data")
        assert len(await reading) == 1

    async def test_g7_cancelling_one_wait_leaves_the_others(self, logs: LogStore, maker: LogMaker) -> None:
        """Readers do not depend on each other."""
        author = await maker.start()
        after = Cursor(author.epoch, 1)
        reading = [spawn(logs.read("log", after, wait=WAIT), f"read-{number}") for number in range(10)]
        await turns(3)
        await cancel_and_wait(*reading[::2])
        await author.say("data")
        assert all(len(page) == 1 for page in await asyncio.gather(*reading[1::2]))

    async def test_g7_a_watcher_is_told_of_appends(self, logs: LogStore, maker: LogMaker) -> None:
        """With the batch itself, or to look; a batch that is told is exactly what was appended."""
        author = await maker.start()
        told = Told(logs, "log")
        appended: list[Batch] = []
        for end in (False, False, True):
            batch = author.batch("data", "complete" if end else "data")
            appended.append(batch)
            await author.send(batch, end=end)
            for notice in await told.next():
                assert notice.batch is None or notice.batch in appended
                assert notice.batch is None or notice.ended == (notice.batch == appended[-1] and end)
        told.unwatch()

    async def test_g7_a_watcher_is_told_of_marks_and_the_drop(self, logs: LogStore, maker: LogMaker) -> None:
        """Positions with a notice of their own."""
        await maker.start()
        told = Told(logs, "log")
        for seq in (1, None):
            await logs.commit_position("log", "reader", seq)
            for notice in await told.next(marks=True):
                assert notice.batch is None
                assert not notice.ended
        await maker.drop("log")
        await told.next()
        told.unwatch()

    async def test_g7_a_watch_may_come_before_the_log(self, logs: LogStore, maker: LogMaker) -> None:
        """Who watches first and reads then misses nothing, not even its beginning."""
        told = Told(logs, "log")
        await maker.create("log")
        await told.next()
        await (await Author.take(logs, "log")).say("start")
        await told.next()
        told.unwatch()

    async def test_g7_after_unwatch_nothing_is_told(self, logs: LogStore, maker: LogMaker) -> None:
        """Each watch ends by itself, also when the same function watches twice; ending it again does nothing."""
        author = await maker.start()
        first, second = Told(logs, "log"), Told(logs, "log")
        again = logs.watch("log", second.notify)
        first.unwatch()
        first.unwatch()
        second.unwatch()
        await author.say("data")
        await second.next()
        assert first.notices == []
        again()
        await author.say("data")
        await logs.read("log")
        await turns(5)
        assert first.notices == second.notices == []

    async def test_g8_a_page_is_bounded(self, logs: LogStore, maker: LogMaker) -> None:
        """In chunks and in bytes, whatever the reader lags; a single larger chunk still passes."""
        author = await maker.start()
        large = Chunk("data", "x" * (limits.CHUNK_BYTES - 64))
        for _ in range(8):
            await author.say(*[Chunk("data", "x" * 1000)] * 250)
        await author.say("data", large, large, "data")
        after, seen = None, 0
        while True:
            page = await logs.read("log", after)
            seen += len(page)
            assert page.batches
            assert len(page) <= limits.PAGE_CHUNKS
            assert len(page) == 1 or sum(len(batch.payload) for batch in page.batches) <= limits.PAGE_BYTES
            after = page.cursor
            if page.caught_up:
                break
        assert seen == 1 + 2000 + 4

    async def test_g8_no_reader_gets_more_than_the_most(self, logs: LogStore, maker: LogMaker) -> None:
        """A limit is at least 1 and at most `READ_LIMIT`, whatever is asked."""
        author = await maker.start()
        for _ in range(11):
            await author.say(*["data"] * 1000)
        assert len(await logs.read("log", limit=10**9)) <= limits.READ_LIMIT
        assert len(await logs.read("log", limit=1)) == 1
        assert len(await logs.read("log", limit=0)) == 1

    async def test_g6_a_log_that_is_trimmed_as_it_grows(self, logs: LogStore, maker: LogMaker) -> None:
        """First and tail hold at every step; a reader that kept up goes on, one that lags is told."""
        author = await maker.start()
        begin = (await logs.info("log")).cursor_at(1)
        cursor = begin
        for turn in range(1, 30):
            await author.say("data", "data")
            page = await logs.read("log", cursor)
            assert [where.seq for where, _ in page.lines()] == [2 * turn, 2 * turn + 1]
            cursor = page.cursor
            first = await logs.trim("log", author.tail - 5)
            info = await logs.info("log")
            assert (info.first, info.tail) == (first, author.tail)
            assert author.tail - 6 <= first <= max(1, author.tail - 5)
        with pytest.raises(CursorExpired) as expired:
            await logs.read("log", begin)
        assert expired.value.details["earliest"] == str(info.earliest)
        assert [where.seq for where, _ in await read_all(logs, "log", info.earliest)] == list(
            range(info.first, info.tail + 1)
        )

    async def test_readers_are_bounded(self, logs: LogStore, maker: LogMaker, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that are there may go on, and one that leaves makes room."""
        monkeypatch.setattr(limits, "READERS", 2)
        await maker.start()
        for reader in ("a", "b", "a"):
            await logs.commit_position("log", reader, 1)
        for _ in range(2):
            with pytest.raises(LimitExceeded):
                await logs.commit_position("log", "c", 1)
        await logs.commit_position("log", "a", None)
        await logs.commit_position("log", "c", 1)
        assert sorted(mark.reader for mark in await logs.positions("log")) == ["b", "c"]

    async def test_a_reader_that_is_silent_is_forgotten(
        self, logs: LogStore, maker: LogMaker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It holds up nobody, and takes nobody's place."""
        monkeypatch.setattr(limits, "READERS", 2)
        await maker.start()
        for reader in ("a", "b"):
            await logs.commit_position("log", reader, 1)
        with monkeypatch.context() as patch:
            patch.setattr(limits, "READER_LEASE", -1.0)  # as if every mark were older than a reader may be silent
            assert await logs.positions("log") == []
            await logs.commit_position("log", "c", 1)
        assert [mark.reader for mark in await logs.positions("log")] == ["c"]
        await logs.commit_position("log", "a", 2)  # it was alive after all
        assert sorted((mark.reader, mark.seq) for mark in await logs.positions("log")) == [("a", 2), ("c", 1)]

    async def test_marks_tell_how_far_readers_are(self, logs: LogStore, maker: LogMaker) -> None:
        """The newest seq of each attached reader, with a heartbeat that counts up; who left is gone."""
        await maker.start()
        await maker.start("other")
        assert await logs.positions("log") == []
        await logs.commit_position("log", "a", 1)
        await logs.commit_position("log", "b", 2)
        await logs.commit_position("other", "c", 3)
        first = {mark.reader: mark for mark in await logs.positions("log")}
        assert {reader: mark.seq for reader, mark in first.items()} == {"a": 1, "b": 2}
        await logs.commit_position("log", "a", 5)
        await logs.commit_position("log", "b", 2)
        second = {mark.reader: mark for mark in await logs.positions("log")}
        assert {reader: mark.seq for reader, mark in second.items()} == {"a": 5, "b": 2}
        assert all(second[reader].beat > first[reader].beat for reader in second)
        for _ in range(2):
            await logs.commit_position("log", "a", None)
        assert [mark.reader for mark in await logs.positions("log")] == ["b"]

    async def test_g6_cursors_of_a_dropped_log_are_expired_in_its_successor(
        self, logs: LogStore, maker: LogMaker
    ) -> None:
        """A log of the same name is another history."""
        old = await maker.start()
        await old.say("data", "data")
        for _ in range(2):
            await maker.drop("log")
            for call in (logs.info("log"), logs.read("log"), logs.fence("log", "token"), old.say("data")):
                with pytest.raises(LogNotFound):
                    await call
        await maker.create("log")
        assert await read_all(logs, "log") == []
        with pytest.raises(Fenced):
            await old.say("data")
        heir = await Author.take(logs, "log", "token")
        await heir.say("start", "data", "data")
        for seq in (1, 2, 3):
            with pytest.raises(CursorExpired):
                await logs.read("log", Cursor(old.epoch, seq))

    async def test_g8_a_page_is_bounded_in_bytes_as_asked(self, logs: LogStore, maker: LogMaker) -> None:
        """To the byte, also inside a batch; a first record that alone is larger still comes. A reader that asks for
        nothing, or for too much, gets one record, or a page."""
        author = await maker.start()
        await author.say(*[Chunk("data", "x" * (10 * size)) for size in range(8)])
        await author.say(*["data"] * 5)
        lines = await read_all(logs, "log")
        sizes = [len(line) + 1 for _, line in lines]
        for cut in range(len(lines)):
            after = lines[cut - 1][0] if cut else None
            for limit_bytes in {
                0,
                1,
                sizes[cut] - 1,
                sizes[cut],
                sizes[cut] + 1,
                sum(sizes[cut : cut + 3]),
                sum(sizes),
            }:
                page = await logs.read("log", after, limit_bytes=limit_bytes)
                got = sum(len(batch.payload) for batch in page.batches)
                assert got <= limit_bytes or len(page) == 1
                assert len(page) >= 1
                assert [line for _, line in page.lines()] == [line for _, line in lines[cut : cut + len(page)]]
                assert page.caught_up == (cut + len(page) == len(lines))
            first_batch = next(end for end in (1, 9, 14) if end > cut)
            fitting = await logs.read("log", after, limit_bytes=sum(sizes[cut:first_batch]))
            assert len(fitting) == first_batch - cut, "of one batch comes all that fits"
            assert await read_all(logs, "log", after, limit_bytes=100) == lines[cut:]
        assert len(await logs.read("log", limit_bytes=10**12)) == len(lines)
