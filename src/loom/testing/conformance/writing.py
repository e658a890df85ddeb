"""G1 to G4: what is appended, by whom, and the end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import Conflict, ErrorInfo, Fenced, LogEnded, LoomError
from loom.model.grammar import State, advance
from loom.model.ports import Store
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.wire.json import make_batch, type_of

from .kit import CANCELLED, WAIT, Suite, meta, outcome_of, turns


class WritingConformance(Suite):
    """What every store guarantees to a writer, and about it."""

    # --- G1 ----------------------------------------------------------------------------------------------------------

    async def test_g1_positions_are_dense_and_increasing_along_the_epochs(self, store: Store) -> None:
        """Seqs go 1, 2, 3 … over the log's whole life; each chunk's epoch is the one that the head lists for it."""
        await store.create(meta())
        epochs: list[int] = []
        for attempt in (1, 2, 3):
            author = await Author.take(store, "run", f"token-{attempt}")
            epochs.append(author.epoch)
            for size in range(1, 5):
                await author.say(*["start" if author.tail == 0 else "data"] * size)
        lines = await read_all(store, "run")
        assert [cursor.seq for cursor, _ in lines] == list(range(1, 31))
        assert [cursor.epoch for cursor, _ in lines] == [epoch for epoch in epochs for _ in range(10)]
        head = await store.head("run")
        assert head.tail == 30
        assert [head.cursor_at(seq) for seq in range(1, 31)] == [cursor for cursor, _ in lines]

    async def test_g1_only_what_continues_the_tail_is_added(self, store: Store) -> None:
        """A batch behind a gap, or over what is there, is a `Conflict` and changes nothing."""
        author = await Author.start(store)
        await author.say("data", "data")
        before = await read_all(store, "run")
        for first in (1, 2, 3, 5, 100):
            with pytest.raises(Conflict):
                await store.append("run", make_batch(author.epoch, first, [Chunk("data", "other")]))
            with pytest.raises(Conflict):
                await store.append("run", make_batch(author.epoch, first, [Chunk("complete", "other")]), end=True)
        assert await read_all(store, "run") == before
        assert not (await store.head("run")).ended
        await author.say("data")

    async def test_g1_without_waiting_a_store_appends_as_ever_or_does_nothing(self, store: Store) -> None:
        """`append_nowait` is `append`, errors and all, where it returns True; else nothing has happened."""
        old = await Author.start(store)
        author = await Author.take(store, "run", "newer")
        batch = make_batch(author.epoch, 2, [Chunk("data", 1), Chunk("data", 2)])
        for _ in range(2):
            done = store.append_nowait("run", batch)
            assert (await store.head("run")).tail == (3 if done else 1)
        for refused in (
            make_batch(old.epoch, 4 if done else 2, [Chunk("data")]),
            make_batch(author.epoch, 9, [Chunk("data")]),
        ):
            if done:
                with pytest.raises((Fenced, Conflict)):
                    store.append_nowait("run", refused)
            else:
                assert not store.append_nowait("run", refused)
        await store.append("run", batch)
        assert len(await read_all(store, "run")) == 3

    async def test_g1_concurrent_appends_to_one_place_leave_one(self, store: Store) -> None:
        """Of different batches for one place one is stored, the others are a `Conflict`."""
        author = await Author.start(store)
        batches = [make_batch(author.epoch, 2, [Chunk("data", number)] * (1 + number % 3)) for number in range(10)]
        outcomes = await asyncio.gather(*(outcome_of(store.append("run", batch)) for batch in batches))
        stored = [batch for batch, outcome in zip(batches, outcomes, strict=True) if isinstance(outcome, Cursor)]
        assert len(stored) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9
        assert [line for _, line in await read_all(store, "run")][1:] == stored[0].lines()

    async def test_g1_many_runs_at_once_do_not_mix(self, store: Store) -> None:
        """Concurrent writers of different runs each find what they wrote, in order."""

        async def write(run: str) -> list[bytes]:
            author = await Author.start(store, run)
            said = author.batch("data")
            for _ in range(20):
                said = author.batch(Chunk("data", run), "data")
                assert await author.send(said) == said.cursor
            return said.lines()

        runs = [f"run-{number}" for number in range(20)]
        lasts = await asyncio.gather(*map(write, runs))
        for run, last in zip(runs, lasts, strict=True):
            lines = [line for _, line in await read_all(store, run, limit=7)]
            assert len(lines) == 41
            assert lines[-2:] == last

    # --- appending again ---------------------------------------------------------------------------------------------

    async def test_append_again_is_success(self, store: Store) -> None:
        """The last batch, byte for byte, is success however often it comes, and stored once."""
        author = await Author.start(store)
        batch = author.batch("data", "data")
        assert [await store.append("run", batch) for _ in range(3)] == [batch.cursor] * 3
        assert len(await read_all(store, "run")) == 3

    async def test_append_again_at_once_is_stored_once(self, store: Store) -> None:
        """Also when the calls overlap."""
        author = await Author.start(store)
        batch = author.batch("data", "data")
        assert await asyncio.gather(*(store.append("run", batch) for _ in range(5))) == [batch.cursor] * 5
        assert len(await read_all(store, "run")) == 3

    async def test_append_again_after_the_end_is_success(self, store: Store) -> None:
        """The batch that ended the log, sent again, is success."""
        author = await Author.start(store)
        batch = author.batch("data", "complete")
        assert [await store.append("run", batch, end=True) for _ in range(3)] == [batch.cursor] * 3
        assert len(await read_all(store, "run")) == 3

    @pytest.mark.parametrize("count", range(8))
    async def test_append_that_was_cancelled_may_be_repeated(self, store: Store, count: int) -> None:
        """Whenever it is cancelled, the same batch again is success, and stored once."""
        author = await Author.start(store)
        for _ in range(5):
            batch = author.batch("data")
            appending = spawn(store.append("run", batch), "append")
            await turns(count)
            await cancel_and_wait(appending)
            assert await author.send(batch) == batch.cursor
        assert len(await read_all(store, "run")) == 6

    async def test_append_of_an_older_batch_is_a_conflict(self, store: Store) -> None:
        """Only the last batch may be repeated; nothing is said of older ones."""
        author = await Author.start(store)
        older = author.batch("data")
        await author.send(older)
        await author.say("data")
        with pytest.raises(Conflict):
            await store.append("run", older)

    async def test_append_keeps_bytes_as_they_are(self, store: Store) -> None:
        """What is stored is what was sent: spaces, escapes, text beyond the Basic Multilingual Plane, large lines."""
        author = await Author.start(store)
        lines = [
            b'{"type":"data",  "data": 1}',
            '{"type":"data","data":"\U0001f9f5 \u2028 \\u0000 \\n"}'.encode(),
            b'{"type":"data","data":"' + b"x" * (limits.CHUNK_BYTES - 64) + b'"}',
        ]
        await author.send(Batch(author.epoch, 2, 4, b"".join(line + b"\n" for line in lines)))
        assert [line for _, line in await read_all(store, "run")][1:] == lines

    # --- G2 ----------------------------------------------------------------------------------------------------------

    async def test_g2_after_a_newer_fence_an_older_writer_adds_nothing(self, store: Store) -> None:
        """It is the store that refuses: the zombie's batch continues the tail exactly."""
        zombie = await Author.start(store)
        await zombie.say("data")
        heir = await Author.take(store, "run", "token-2")
        before = await read_all(store, "run")
        for batch, end in ((zombie.batch("data"), False), (zombie.batch("complete"), True)):
            with pytest.raises(Fenced):
                await store.append("run", batch, end=end)
        assert await read_all(store, "run") == before
        await heir.say("start", "data")
        with pytest.raises(Fenced):
            await store.append("run", make_batch(zombie.epoch, 5, [Chunk("data")]))
        assert [cursor.epoch for cursor, _ in await read_all(store, "run")] == [zombie.epoch] * 2 + [heir.epoch] * 2

    async def test_g2_a_fenced_writer_hears_so_whatever_it_sends(self, store: Store) -> None:
        """Also when it repeats what is stored: it has to stop."""
        zombie = await Author.start(store)
        stored = zombie.batch("data")
        await zombie.send(stored)
        await Author.take(store, "run", "token-2")
        with pytest.raises(Fenced):
            await store.append("run", stored)
        assert len(await read_all(store, "run")) == 2

    async def test_g2_only_an_epoch_that_was_drawn_may_append(self, store: Store) -> None:
        """Not before the first fence, and none that is larger than the newest."""
        await store.create(meta())
        with pytest.raises(Fenced):
            await store.append("run", make_batch(10**8, 1, [Chunk("start")]))
        author = await Author.take(store, "run")
        for epoch in (author.epoch - 1, author.epoch + 1, author.epoch + 10**8):
            with pytest.raises(Fenced):
                await store.append("run", make_batch(epoch, 1, [Chunk("start")]))
        assert await read_all(store, "run") == []

    async def test_g2_a_fence_tells_where_to_go_on(self, store: Store) -> None:
        """The epoch is of a higher attempt than every earlier one's; the tail is the log's."""
        await store.create(meta())
        epochs = [0]
        for number in range(1, 6):
            fence = await store.fence("run", f"token-{number}")
            assert (fence.tail, fence.ended) == (number - 1, False)
            assert attempt_of(fence.epoch) > attempt_of(epochs[-1])
            epochs.append(fence.epoch)
            assert (await store.head("run")).attempt == attempt_of(fence.epoch)
            await Author(store, "run", fence).say("start")

    async def test_g2_a_fence_is_idempotent_by_its_token(self, store: Store) -> None:
        """The same token gives the same epoch and the tail as it is now, until a newer fence was drawn."""
        author = await Author.start(store)
        await author.say("data")
        again = await store.fence("run", "token")
        assert (again.epoch, again.tail) == (author.epoch, 2)
        assert len(set(await asyncio.gather(*(self._epoch(store, "token-2") for _ in range(5))))) == 1
        with pytest.raises(Fenced):
            await store.fence("run", "token")
        assert (await store.head("run")).attempt == 2

    async def test_g2_a_fence_tells_how_many_attempts_have_failed(self, store: Store) -> None:
        """The largest number that was given, also after all output was forgotten."""
        author = await Author.start(store)
        await author.say(*["data"] * 20)
        assert (await store.fence("run", "token-2", failures=1)).failures == 1
        author = await Author.take(store, "run", "token-3")
        await author.say("start", *["data"] * 20)
        await store.trim("run", 40)
        assert (await store.fence("run", "token-3")).failures == 1
        assert (await store.fence("run", "token-4", failures=2)).failures == 2
        assert (await store.fence("run", "token-5", failures=1)).failures == 2
        await store.drop("run")
        await store.create(meta())
        assert (await store.fence("run", "token-6")).failures == 0, "another run of that id"

    @staticmethod
    async def _epoch(store: Store, token: str) -> int:
        return (await store.fence("run", token)).epoch

    @pytest.mark.parametrize("count", range(6))
    async def test_g2_a_fence_that_was_cancelled_may_be_repeated(self, store: Store, count: int) -> None:
        """Whenever it is cancelled: the same token then gives an epoch that may append."""
        await store.create(meta())
        fencing = spawn(store.fence("run", "token"), "fence")
        await turns(count)
        await cancel_and_wait(fencing)
        await (await Author.take(store, "run", "token")).say("start")

    async def test_g2_concurrent_fences_leave_one_writer(self, store: Store) -> None:
        """Of many that fence at once, exactly one may append; their attempts all differ."""
        await store.create(meta())
        fences = await asyncio.gather(*(store.fence("run", f"token-{number}") for number in range(10)))
        assert len({attempt_of(fence.epoch) for fence in fences}) == 10
        authors = [Author(store, "run", fence) for fence in fences]
        outcomes = await asyncio.gather(*(outcome_of(author.say("start")) for author in authors))
        assert sum(isinstance(outcome, Fenced) for outcome in outcomes) == 9
        newest = max(fence.epoch for fence in fences)
        assert [cursor for cursor, _ in await read_all(store, "run")] == [Cursor(newest, 1)]

    async def test_g2_fences_and_appends_at_once_never_mix_epochs(self, store: Store) -> None:
        """While writers take over from each other, each chunk that is stored is of the epoch that was newest then."""
        await store.create(meta())

        async def attempt(number: int) -> None:
            await turns(number * 3)
            author = await Author.take(store, "run", f"token-{number}")
            for _ in range(10):
                if isinstance(await outcome_of(author.say("start")), Fenced):
                    return

        await asyncio.gather(*map(attempt, range(8)))
        head = await store.head("run")
        lines = await read_all(store, "run")
        epochs = [cursor.epoch for cursor, _ in lines]
        assert epochs == sorted(epochs)
        assert [head.cursor_at(cursor.seq) for cursor, _ in lines] == [cursor for cursor, _ in lines]
        assert all(msgspec.json.decode(line)["data"] == str(cursor) for cursor, line in lines)

    # --- G3 ----------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("count", range(6))
    async def test_g3_every_prefix_is_grammatical(self, store: Store, count: int) -> None:
        """Whoever races for a run (two workers, somebody who cancels it before it began), its log is one life."""
        for number in range(8):
            run = f"run-{number}"
            await store.create(meta(run))
            await asyncio.gather(
                self._live(store, run, "a", number % 3),
                self._live(store, run, "b", count),
                self._cancel(store, run, number % 4),
            )
            state = State.NEW
            for _, line in await read_all(store, run):
                state = advance(state, type_of(line), ours=False)
            assert (state is State.ENDED) == (await store.head(run)).ended

    @staticmethod
    async def _live(store: Store, run: str, token: str, count: int) -> None:
        await turns(count)
        fence = await outcome_of(store.fence(run, token))
        if isinstance(fence, LoomError) or fence.ended:
            return
        author = Author(store, run, fence)
        for said in (["start"], ["data"], ["data", "complete"]):
            if isinstance(await outcome_of(author.say(*said)), LoomError):
                return

    @staticmethod
    async def _cancel(store: Store, run: str, count: int) -> None:
        await turns(count)
        await store.end_unstarted(run, CANCELLED)

    async def test_g3_end_unstarted_ends_a_run_that_no_attempt_was_made_on(self, store: Store) -> None:
        """With this one chunk, once, however often it is called; no attempt is counted."""
        await store.create(meta())
        assert [await store.end_unstarted("run", CANCELLED) for _ in range(3)] == [True] * 3
        head = await store.head("run")
        assert (head.ended, head.state, head.attempt, head.tail) == (True, "cancelled", 0, 1)
        assert head.error == ErrorInfo("cancelled", "by test")
        assert [line for _, line in await read_all(store, "run")] == [CANCELLED]
        fence = await store.fence("run", "token")
        assert (fence.tail, fence.ended) == (1, True)

    async def test_g3_end_unstarted_leaves_a_started_run_alone(self, store: Store) -> None:
        """A fence is an attempt, also before its first chunk; so is one that has ended."""
        await store.create(meta())
        author = await Author.take(store, "run")
        assert not await store.end_unstarted("run", CANCELLED)
        await author.say("start", "complete")
        assert not await store.end_unstarted("run", CANCELLED)
        assert (await store.head("run")).state == "completed"

    async def test_g3_end_unstarted_and_fence_exclude_each_other(self, store: Store) -> None:
        """Called at once, either the run is ended or there is a writer, never both."""
        for number in range(20):
            run = f"run-{number}"
            await store.create(meta(run))
            calls: list[Any] = [store.end_unstarted(run, CANCELLED), store.fence(run, "token")]
            outcomes = await asyncio.gather(*(calls if number % 2 else calls[::-1]))
            ended, fence = outcomes if number % 2 else outcomes[::-1]
            assert ended == fence.ended
            assert len(await read_all(store, run)) == fence.tail == int(ended)
            if not ended:
                await Author(store, run, fence).say("start")

    # --- G4 ----------------------------------------------------------------------------------------------------------

    async def test_g4_ended_is_for_ever(self, store: Store) -> None:
        """Nothing is added, nobody becomes its writer, and the head stays as it is."""
        author = await Author.start(store)
        await author.say("data", "complete")
        head, lines = await store.head("run"), await read_all(store, "run")
        for batch, end in ((author.batch("data"), False), (author.batch("complete"), True)):
            with pytest.raises(LogEnded):
                await store.append("run", batch, end=end)
        assert (await store.fence("run", "token-2")).ended
        assert (await store.fence("run", "token")).ended
        assert not await store.end_unstarted("run", CANCELLED)
        await store.touch("run")
        await store.create(meta())
        assert await store.head("run") == head
        assert await read_all(store, "run") == lines

    async def test_g4_the_last_chunk_and_the_end_are_one(self, store: Store) -> None:
        """A page that reaches the last chunk says that the log has ended, also to who read while it was written."""
        for number in range(10):
            author = await Author.start(store, f"run-{number}")
            following = spawn(self._follow(store, author.run), "follow")
            await turns(number)
            await author.say("data")
            await author.say("data", "complete")
            pages = await following
            assert [page.ended for page in pages] == [False] * (len(pages) - 1) + [True]
            assert sum(map(len, pages)) == 4

    @staticmethod
    async def _follow(store: Store, run: str) -> list[Any]:
        pages = [await store.read(run, wait=WAIT)]
        while not pages[-1].ended:
            pages.append(await store.read(run, pages[-1].cursor, wait=WAIT))
            assert pages[-1].batches
        return pages

    async def test_g4_caught_up_is_not_ended(self, store: Store) -> None:
        """Only the page that reaches the end of an ended log says `ended`; behind it the page is empty at once."""
        author = await Author.start(store)
        page = await store.read("run")
        assert (page.caught_up, page.ended) == (True, False)
        await author.say("data", "complete")
        page = await store.read("run", limit=2)
        assert (len(page), page.caught_up, page.ended) == (2, False, False)
        page = await store.read("run", page.cursor)
        assert (len(page), page.caught_up, page.ended) == (1, True, True)
        page = await store.read("run", page.cursor, wait=WAIT)
        assert (page.batches, page.caught_up, page.ended) == ((), True, True)
