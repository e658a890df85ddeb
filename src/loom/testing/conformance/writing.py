"""G1, G2, G4: the one writer of a log, and the end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import Conflict, Fenced, LogEnded
from loom.model.ports import Commit, LogStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.wire.json import make_batch

from .kit import ENDED, WAIT, LogMaker, Suite, outcome_of, turns


class WritingConformance(Suite):
    """Guarantees to the writer of a log, and about it."""

    async def test_g1_positions_are_dense_and_increasing_along_the_epochs(
        self, logs: LogStore, maker: LogMaker
    ) -> None:
        """Seqs go 1, 2, 3 … over the log's whole life; each chunk's epoch is the one that the log lists for it."""
        await maker.create("log")
        epochs: list[int] = []
        for attempt in (1, 2, 3):
            author = await Author.take(logs, "log", f"token-{attempt}")
            epochs.append(author.epoch)
            for size in range(1, 5):
                await author.say(*["start" if author.tail == 0 else "data"] * size)
        lines = await read_all(logs, "log")
        assert [cursor.seq for cursor, _ in lines] == list(range(1, 31))
        assert [cursor.epoch for cursor, _ in lines] == [epoch for epoch in epochs for _ in range(10)]
        info = await logs.info("log")
        assert info.tail == 30
        assert [info.cursor_at(seq) for seq in range(1, 31)] == [cursor for cursor, _ in lines]

    async def test_g1_only_what_continues_the_tail_is_added(self, logs: LogStore, maker: LogMaker) -> None:
        """A batch behind a gap, or over what is there, is a `Conflict` and changes nothing."""
        author = await maker.start()
        await author.say("data", "data")
        before = await read_all(logs, "log")
        for first in (1, 2, 3, 5, 100):
            with pytest.raises(Conflict):
                await logs.append("log", make_batch(author.epoch, first, [Chunk("data", "other")]))
            with pytest.raises(Conflict):
                await logs.append("log", make_batch(author.epoch, first, [Chunk("complete", "other")]), ENDED)
        assert await read_all(logs, "log") == before
        assert not (await logs.info("log")).ended
        await author.say("data")

    async def test_g1_without_waiting_a_store_appends_as_ever_or_does_nothing(
        self, logs: LogStore, maker: LogMaker
    ) -> None:
        """`append_nowait` is `append`, errors and all, where it returns True; else nothing has happened."""
        old = await maker.start()
        author = await Author.take(logs, "log", "newer")
        batch = make_batch(author.epoch, 2, [Chunk("data", 1), Chunk("data", 2)])
        for _ in range(2):
            done = logs.append_nowait("log", batch)
            assert (await logs.info("log")).tail == (3 if done else 1)
        for refused in (
            make_batch(old.epoch, 4 if done else 2, [Chunk("data")]),
            make_batch(author.epoch, 9, [Chunk("data")]),
        ):
            if done:
                with pytest.raises((Fenced, Conflict)):
                    logs.append_nowait("log", refused)
            else:
                assert not logs.append_nowait("log", refused)
        await logs.append("log", batch)
        assert len(await read_all(logs, "log")) == 3

    async def test_g1_concurrent_appends_to_one_place_leave_one(self, logs: LogStore, maker: LogMaker) -> None:
        """Of different batches for one place one is stored, the others are a `Conflict`."""
        author = await maker.start()
        batches = [make_batch(author.epoch, 2, [Chunk("data", number)] * (1 + number % 3)) for number in range(10)]
        outcomes = await asyncio.gather(*(outcome_of(logs.append("log", batch)) for batch in batches))
        stored = [batch for batch, outcome in zip(batches, outcomes, strict=True) if isinstance(outcome, Cursor)]
        assert len(stored) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9
        assert [line for _, line in await read_all(logs, "log")][1:] == stored[0].lines()

    async def test_g1_many_logs_at_once_do_not_mix(self, logs: LogStore, maker: LogMaker) -> None:
        """Concurrent writers of different logs each find what they wrote, in order."""

        async def write(log: str) -> list[bytes]:
            author = await maker.start(log)
            said = author.batch("data")
            for _ in range(20):
                said = author.batch(Chunk("data", log), "data")
                assert await author.send(said) == said.cursor
            return said.lines()

        names = [f"log-{number}" for number in range(20)]
        lasts = await asyncio.gather(*map(write, names))
        for name, last in zip(names, lasts, strict=True):
            lines = [line for _, line in await read_all(logs, name, limit=7)]
            assert len(lines) == 41
            assert lines[-2:] == last

    async def test_append_again_is_success(self, logs: LogStore, maker: LogMaker) -> None:
        """The last batch, byte for byte, is success however often it comes, and stored once."""
        author = await maker.start()
        batch = author.batch("data", "data")
        assert [await logs.append("log", batch) for _ in range(3)] == [batch.cursor] * 3
        assert len(await read_all(logs, "log")) == 3

    async def test_append_again_at_once_is_stored_once(self, logs: LogStore, maker: LogMaker) -> None:
        """Also when the calls overlap."""
        author = await maker.start()
        batch = author.batch("data", "data")
        assert await asyncio.gather(*(logs.append("log", batch) for _ in range(5))) == [batch.cursor] * 5
        assert len(await read_all(logs, "log")) == 3

    async def test_append_again_after_the_end_is_success(self, logs: LogStore, maker: LogMaker) -> None:
        """The batch that ended the log, sent again, is success."""
        author = await maker.start()
        batch = author.batch("data", "complete")
        assert [await logs.append("log", batch, ENDED) for _ in range(3)] == [batch.cursor] * 3
        assert len(await read_all(logs, "log")) == 3

    @pytest.mark.parametrize("count", range(8))
    async def test_append_that_was_cancelled_may_be_repeated(self, logs: LogStore, maker: LogMaker, count: int) -> None:
        """Whenever it is cancelled, the same batch again is success, and stored once."""
        author = await maker.start()
        for _ in range(5):
            batch = author.batch("data")
            appending = spawn(logs.append("log", batch), "append")
            await turns(count)
            await cancel_and_wait(appending)
            assert await author.send(batch) == batch.cursor
        assert len(await read_all(logs, "log")) == 6

    async def test_append_of_an_older_batch_is_a_conflict(self, logs: LogStore, maker: LogMaker) -> None:
        """Only the last batch may be repeated; nothing is said of older ones."""
        author = await maker.start()
        older = author.batch("data")
        await author.send(older)
        await author.say("data")
        with pytest.raises(Conflict):
            await logs.append("log", older)

    async def test_append_keeps_bytes_as_they_are(self, logs: LogStore, maker: LogMaker) -> None:
        """What is stored is what was sent: spaces, escapes, text beyond the Basic Multilingual Plane, large lines."""
        author = await maker.start()
        lines = [
            b'{"type":"data",  "data": 1}',
            '{"type":"data","data":"\U0001f9f5 \u2028 \\u0000 \\n"}'.encode(),
            b'{"type":"data","data":"' + b"x" * (limits.CHUNK_BYTES - 64) + b'"}',
        ]
        await author.send(Batch(author.epoch, 2, 4, b"".join(line + b"\n" for line in lines)))
        assert [line for _, line in await read_all(logs, "log")][1:] == lines

    async def test_g2_after_a_newer_fence_an_older_writer_adds_nothing(self, logs: LogStore, maker: LogMaker) -> None:
        """It is the store that refuses: the zombie's batch continues the tail exactly."""
        zombie = await maker.start()
        await zombie.say("data")
        heir = await Author.take(logs, "log", "token-2")
        before = await read_all(logs, "log")
        for batch, commit in ((zombie.batch("data"), None), (zombie.batch("complete"), ENDED)):
            with pytest.raises(Fenced):
                await logs.append("log", batch, commit)
        assert await read_all(logs, "log") == before
        await heir.say("start", "data")
        with pytest.raises(Fenced):
            await logs.append("log", make_batch(zombie.epoch, 5, [Chunk("data")]))
        assert [cursor.epoch for cursor, _ in await read_all(logs, "log")] == [zombie.epoch] * 2 + [heir.epoch] * 2

    async def test_g2_a_fenced_writer_hears_so_whatever_it_sends(self, logs: LogStore, maker: LogMaker) -> None:
        """Also when it repeats what is stored: it has to stop."""
        zombie = await maker.start()
        stored = zombie.batch("data")
        await zombie.send(stored)
        await Author.take(logs, "log", "token-2")
        with pytest.raises(Fenced):
            await logs.append("log", stored)
        assert len(await read_all(logs, "log")) == 2

    async def test_g2_only_an_epoch_that_was_drawn_may_append(self, logs: LogStore, maker: LogMaker) -> None:
        """Not before the first fence, and none that is larger than the newest."""
        await maker.create("log")
        with pytest.raises(Fenced):
            await logs.append("log", make_batch(10**8, 1, [Chunk("start")]))
        author = await Author.take(logs, "log")
        for epoch in (author.epoch - 1, author.epoch + 1, author.epoch + 10**8):
            with pytest.raises(Fenced):
                await logs.append("log", make_batch(epoch, 1, [Chunk("start")]))
        assert await read_all(logs, "log") == []

    async def test_g2_a_fence_tells_where_to_go_on(self, logs: LogStore, maker: LogMaker) -> None:
        """The epoch is of a higher attempt than every earlier one's; the tail is the log's."""
        await maker.create("log")
        epochs = [0]
        for number in range(1, 6):
            fence = await logs.fence("log", f"token-{number}")
            assert (fence.tail, fence.ended) == (number - 1, False)
            assert attempt_of(fence.epoch) > attempt_of(epochs[-1])
            epochs.append(fence.epoch)
            assert (await logs.info("log")).epochs[-1][0] == fence.epoch
            await Author(logs, "log", fence).say("start")

    async def test_g2_a_fence_is_idempotent_by_its_token(self, logs: LogStore, maker: LogMaker) -> None:
        """The same token gives the same epoch and the tail as it is now, until a newer fence was drawn."""
        author = await maker.start()
        await author.say("data")
        again = await logs.fence("log", "token")
        assert (again.epoch, again.tail) == (author.epoch, 2)
        assert len(set(await asyncio.gather(*(self._epoch(logs, "token-2") for _ in range(5))))) == 1
        with pytest.raises(Fenced):
            await logs.fence("log", "token")
        assert attempt_of((await logs.info("log")).epochs[-1][0]) == 2

    async def test_g2_a_fence_tells_how_many_attempts_have_failed(self, logs: LogStore, maker: LogMaker) -> None:
        """The largest number that was given, also after all output was forgotten."""
        author = await maker.start()
        await author.say(*["data"] * 20)
        assert (await logs.fence("log", "token-2", failures=1)).failures == 1
        author = await Author.take(logs, "log", "token-3")
        await author.say("start", *["data"] * 20)
        await logs.trim("log", 40)
        assert (await logs.fence("log", "token-3")).failures == 1
        assert (await logs.fence("log", "token-4", failures=2)).failures == 2
        assert (await logs.fence("log", "token-5", failures=1)).failures == 2
        await maker.drop("log")
        await maker.create("log")
        assert (await logs.fence("log", "token-6")).failures == 0, "another log of that name"

    @staticmethod
    async def _epoch(logs: LogStore, token: str) -> int:
        return (await logs.fence("log", token)).epoch

    @pytest.mark.parametrize("count", range(6))
    async def test_g2_a_fence_that_was_cancelled_may_be_repeated(
        self, logs: LogStore, maker: LogMaker, count: int
    ) -> None:
        """Whenever it is cancelled: the same token then gives an epoch that may append."""
        await maker.create("log")
        fencing = spawn(logs.fence("log", "token"), "fence")
        await turns(count)
        await cancel_and_wait(fencing)
        await (await Author.take(logs, "log", "token")).say("start")

    async def test_g2_concurrent_fences_leave_one_writer(self, logs: LogStore, maker: LogMaker) -> None:
        """Of many that fence at once, exactly one may append; their attempts all differ."""
        await maker.create("log")
        fences = await asyncio.gather(*(logs.fence("log", f"token-{number}") for number in range(10)))
        assert len({attempt_of(fence.epoch) for fence in fences}) == 10
        authors = [Author(logs, "log", fence) for fence in fences]
        outcomes = await asyncio.gather(*(outcome_of(author.say("start")) for author in authors))
        assert sum(isinstance(outcome, Fenced) for outcome in outcomes) == 9
        newest = max(fence.epoch for fence in fences)
        assert [cursor for cursor, _ in await read_all(logs, "log")] == [Cursor(newest, 1)]

    async def test_g2_fences_and_appends_at_once_never_mix_epochs(self, logs: LogStore, maker: LogMaker) -> None:
        """While writers take over from each other, each chunk that is stored is of the epoch that was newest then."""
        await maker.create("log")

        async def attempt(number: int) -> None:
            await turns(number * 3)
            author = await Author.take(logs, "log", f"token-{number}")
            for _ in range(10):
                if isinstance(await outcome_of(author.say("start")), Fenced):
                    return

        await asyncio.gather(*map(attempt, range(8)))
        info = await logs.info("log")
        lines = await read_all(logs, "log")
        epochs = [cursor.epoch for cursor, _ in lines]
        assert epochs == sorted(epochs)
        assert [info.cursor_at(cursor.seq) for cursor, _ in lines] == [cursor for cursor, _ in lines]
        assert all(msgspec.json.decode(line)["data"] == str(cursor) for cursor, line in lines)

    async def test_g4_ended_is_for_ever(self, logs: LogStore, maker: LogMaker) -> None:
        """Nothing is added, nobody becomes its writer, and what is known of the log stays as it is."""
        author = await maker.start()
        await author.say("data", "complete")
        info, lines = await logs.info("log"), await read_all(logs, "log")
        for batch, commit in ((author.batch("data"), None), (author.batch("complete"), ENDED)):
            with pytest.raises(LogEnded):
                await logs.append("log", batch, commit)
        assert (await logs.fence("log", "token-2")).ended
        assert (await logs.fence("log", "token")).ended
        await maker.create("log")
        assert await logs.info("log") == info
        assert await read_all(logs, "log") == lines

    async def test_g4_the_last_chunk_and_the_end_are_one(self, logs: LogStore, maker: LogMaker) -> None:
        """A page that reaches the last chunk says that the log has ended, also to who read while it was written."""
        for number in range(10):
            author = await maker.start(f"log-{number}")
            following = spawn(self._follow(logs, author.log), "follow")
            await turns(number)
            await author.say("data")
            await author.say("data", "complete")
            pages = await following
            assert [page.ended for page in pages] == [False] * (len(pages) - 1) + [True]
            assert sum(map(len, pages)) == 4

    @staticmethod
    async def _follow(logs: LogStore, log: str) -> list[Any]:
        pages = [await logs.read(log, wait=WAIT)]
        while not pages[-1].ended:
            pages.append(await logs.read(log, pages[-1].cursor, wait=WAIT))
            assert pages[-1].batches
        return pages

    async def test_g4_caught_up_is_not_ended(self, logs: LogStore, maker: LogMaker) -> None:
        """Only the page that reaches the end of an ended log says `ended`; behind it the page is empty at once."""
        author = await maker.start()
        page = await logs.read("log")
        assert (page.caught_up, page.ended) == (True, False)
        await author.say("data", "complete")
        page = await logs.read("log", limit=2)
        assert (len(page), page.caught_up, page.ended) == (2, False, False)
        page = await logs.read("log", page.cursor)
        assert (len(page), page.caught_up, page.ended) == (1, True, True)
        page = await logs.read("log", page.cursor, wait=WAIT)
        assert (page.batches, page.caught_up, page.ended) == ((), True, True)

    async def test_a_fence_tells_how_much_a_log_holds(self, logs: LogStore, maker: LogMaker) -> None:
        """The bytes of its chunks' lines; what was trimmed no longer counts."""
        author = await maker.start()
        for _ in range(4):
            await author.say("data", "data")
        lines = await read_all(logs, "log")
        size = sum(len(line) + 1 for _, line in lines)
        assert (await logs.fence("log", "another")).size == size
        assert await logs.trim("log", 6) == 6
        kept = sum(len(line) + 1 for cursor, line in lines if cursor.seq >= 6)
        assert (await logs.fence("log", "a third")).size == kept
        assert (await logs.fence("log", "a third")).size == kept

    async def test_a_fence_of_an_empty_log(self, logs: LogStore, maker: LogMaker) -> None:
        """Holds nothing."""
        await maker.create("log")
        assert (await logs.fence("log", "token")).size == 0

    async def test_a_commit_without_an_end_ends_nothing(self, logs: LogStore, maker: LogMaker) -> None:
        """The log goes on."""
        author = await maker.start()
        batch = author.batch("data")
        assert await logs.append("log", batch, Commit(end=False)) == batch.cursor
        assert await logs.append("log", batch, Commit(end=False)) == batch.cursor
        assert not (await logs.info("log")).ended
        author.tail = batch.last
        await author.say("complete")
        assert (await logs.info("log")).ended
