"""The conformance suite of stores: what every store guarantees, as tests of pytest.

A store proves itself by a subclass that says how it is made::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock: MyStore(tmp_path / "data", clock=clock)

Each test runs on a store of its own. Tests are named after the guarantee they are about, G1 to G10, as the guarantees
page has them. The suite needs pytest, and anyio's plugin, which comes with Loom. With
``pytest.register_assert_rewrite("loom.testing.conformance")`` in a ``conftest.py`` failures show their values.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, get_args

import msgspec
import pytest

from loom.engine.tasks import TaskSet, cancel_and_wait, spawn
from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import (
    Conflict,
    CursorExpired,
    ErrorInfo,
    Fenced,
    LimitExceeded,
    LogEnded,
    LogNotFound,
    LoomError,
)
from loom.model.grammar import State, advance
from loom.model.ports import Durability, Notice, Store
from loom.model.run import Claim, Meta, RunState, inbox_of
from loom.wire.json import encode, make_batch, type_of

from .author import Author, read_all
from .clock import ManualClock

__all__ = ["Clock", "SharedStoreConformance", "StoreConformance", "StoreFactory"]

Clock = Callable[[], float]
"""Monotonic seconds, by which a store measures leases and delays."""

StoreFactory = Callable[[Clock], Store]
"""Makes a store, not entered yet."""

WAIT = 10.0
"""Seconds for a wait that is to be woken at once: if it passes, the wake-up was lost."""

LEASE = 10.0
CANCELLED = encode(Chunk("error", error=ErrorInfo("cancelled", "by test")))
QUEUES = ("default",)


def meta(run: str = "run", actor: str = "actor", **more: Any) -> Meta:
    """How a run of the suite is started."""
    return Meta(run=run, actor=actor, created=1.0, **more)


def failed(code: str) -> Chunk[Any]:
    """An `error` chunk."""
    return Chunk("error", error=ErrorInfo(code, f"{code} by test", details={"by": "test"}))


async def turns(count: int) -> None:
    """Let the loop turn `count` times: what else is ready goes on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def claim(store: Store, worker: str = "w1", *, queues: Sequence[str] = QUEUES, wait: float = 0.0) -> Claim | None:
    """A claim with the suite's lease."""
    return await store.claim(queues, worker, lease=LEASE, wait=wait)


async def must_claim(store: Store, worker: str = "w1", *, queues: Sequence[str] = QUEUES, wait: float = 0.0) -> Claim:
    """A claim that has to be there."""
    claimed = await claim(store, worker, queues=queues, wait=wait)
    assert claimed is not None
    return claimed


async def outcome_of(call: Any) -> Any:
    """What a call gives, be it an error of ours."""
    try:
        return await call
    except LoomError as error:
        return error


class Told:
    """The notices of one watch."""

    def __init__(self, store: Store, log: str) -> None:
        self.notices: list[Notice] = []
        self._event = asyncio.Event()
        self.unwatch = store.watch(log, self._notify)

    def _notify(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._event.set()

    async def next(self) -> list[Notice]:
        """At least one notice that came since the last call."""
        async with asyncio.timeout(WAIT):
            await self._event.wait()
        self._event.clear()
        notices, self.notices = self.notices, []
        return notices


class StoreConformance:
    """What every store guarantees. Subclass it and give `make_store`."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The monotonic clock that the store under test measures leases and delays by."""
        return ManualClock()

    @pytest.fixture
    async def store(self, make_store: StoreFactory, clock: ManualClock) -> AsyncIterator[Store]:
        async with make_store(clock) as store:
            yield store

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def test_durability_is_named(self, store: Store) -> None:
        """A store says what an acknowledged append survives, in one of the four words."""
        assert store.durability in get_args(Durability)

    async def test_create_gives_a_queued_head(self, store: Store) -> None:
        """Of a new run nothing is known but how it was started; that is kept whole."""
        started = meta(
            input=msgspec.Raw(b'{"a":[1,2]}'),
            queue="q",
            key="k",
            owner_lease=5.0,
            timeout=1.5,
            idle_timeout=2.5,
            ahead=3,
        )
        head = await store.create(started)
        assert head.meta == started
        assert head == await store.head("run")
        assert (head.state, head.attempt, head.tail, head.first, head.ended) == ("queued", 0, 0, 1, False)
        assert (head.earliest, head.latest, head.error, head.result) == (None, None, None, None)

    async def test_create_is_idempotent(self, store: Store) -> None:
        """Creating again changes nothing, also with another meta: the head comes back as it is."""
        author = await Author.start(store)
        await author.say("data")
        before = await store.head("run")
        assert await store.create(meta(actor="another")) == before
        assert await store.create(before.meta) == before
        assert len(await read_all(store, "run")) == 2

    async def test_concurrent_creates_make_one_run(self, store: Store) -> None:
        """Whoever creates a run, all see the same one."""
        heads = await asyncio.gather(*(store.create(meta(actor=f"actor-{number}")) for number in range(10)))
        assert len({head.meta.actor for head in heads}) == 1
        assert len(await store.heads()) == 1

    async def test_what_there_is_not_is_not_found(self, store: Store) -> None:
        """Every call about a run that does not exist raises `LogNotFound`."""
        batch = make_batch(1, 1, [Chunk("start")])
        for call in (
            store.head("run"),
            store.fence("run", "token"),
            store.append("run", batch),
            store.end_unstarted("run", CANCELLED),
            store.send("run", b'{"type":"x"}', sender="s", id="1"),
            store.read("run"),
            store.read(inbox_of("run")),
            store.read("run", wait=WAIT),
            store.trim("run", 1),
            store.touch("run"),
            store.heads(before="run"),
        ):
            with pytest.raises(LogNotFound):
                await call

    async def test_the_head_tells_how_a_run_ended(self, store: Store) -> None:
        """State, error and result come from the last chunk."""
        endings: list[tuple[Chunk[Any], RunState]] = [
            (Chunk("complete", {"answer": 42}), "completed"),
            (Chunk("complete"), "completed"),
            (failed("run_failed"), "failed"),
            (failed("of the producer's own"), "failed"),
            (failed("cancelled"), "cancelled"),
            (failed("run_lost"), "lost"),
        ]
        for number, (chunk, state) in enumerate(endings):
            author = await Author.start(store, f"run-{number}")
            assert (await store.head(author.run)).state == "running"
            await author.say("data", chunk)
            head = await store.head(author.run)
            assert (head.ended, head.state, head.error, head.tail) == (True, state, chunk.error, 3)
            assert head.started is not None
            assert head.ended_at is not None
            if chunk.type == "complete":
                assert head.result is not None
                assert msgspec.json.decode(head.result) == chunk.data

    async def test_heads_lists_the_newest_first(self, store: Store) -> None:
        """Pages of heads, newest first, by `before`, each run once; without results."""
        names = [f"run-{number}" for number in range(7)]
        for name in names:
            await (await Author.start(store, name)).say(Chunk("complete", "a result"))
        listed: list[str] = []
        before = None
        while page := await store.heads(limit=3, before=before):
            assert len(page) <= 3
            assert all(head.result is None for head in page)
            listed += [head.meta.run for head in page]
            before = listed[-1]
        assert listed == names[::-1]

    async def test_heads_filters(self, store: Store) -> None:
        """By state and by actor, before the limit counts."""
        for number in range(6):
            await store.create(meta(f"run-{number}", f"actor-{number % 2}"))
        for number in range(3):
            author = await Author.take(store, f"run-{number}")
            await author.say("start")
            if number:
                await author.say("complete" if number == 1 else failed("cancelled"))
        states: dict[RunState, list[str]] = {
            "running": ["run-0"],
            "completed": ["run-1"],
            "cancelled": ["run-2"],
            "failed": [],
            "queued": ["run-5", "run-4", "run-3"],
        }
        for state, names in states.items():
            assert [head.meta.run for head in await store.heads(state=state)] == names
        assert [head.meta.run for head in await store.heads(actor="actor-0", limit=2)] == ["run-4", "run-2"]
        assert [head.meta.run for head in await store.heads(actor="actor-1", state="queued")] == ["run-5", "run-3"]
        assert await store.heads(actor="none") == []

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
        await store.mark("run", "reader", 1)
        await told.next()
        await store.mark("run", "reader", None)
        await told.next()
        await store.drop("run")
        await told.next()
        told.unwatch()

    async def test_g7_a_watch_may_come_before_the_run(self, store: Store) -> None:
        """Who watches first and reads then misses nothing."""
        told = Told(store, "run")
        await Author.start(store)
        await told.next()
        told.unwatch()

    async def test_g7_after_unwatch_nothing_is_told(self, store: Store) -> None:
        """Each watch ends by itself, also when the same function watches twice; ending it again does nothing."""
        author = await Author.start(store)
        first, second = Told(store, "run"), Told(store, "run")
        again = store.watch("run", second._notify)
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

    # --- the inbox ---------------------------------------------------------------------------------------------------

    async def test_inbox_keeps_each_message_once(self, store: Store) -> None:
        """By sender and id: sent again it is success, with the same cursor; ids of different senders are apart."""
        await store.create(meta())
        sent = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("b", "1"), ("a", "2")]
        cursors = [
            await store.send("run", encode({"type": "x", "data": f"{sender}{id}"}), sender=sender, id=id)
            for sender, id in sent
        ]
        assert cursors[3:] == [cursors[0], cursors[2], cursors[1]]
        lines = await read_all(store, inbox_of("run"), limit=2)
        assert [msgspec.json.decode(line)["data"] for _, line in lines] == ["a1", "a2", "b1"]
        assert [cursor for cursor, _ in lines] == cursors[:3]
        assert [cursor.seq for cursor, _ in lines] == [1, 2, 3]

    async def test_inbox_takes_many_senders_at_once(self, store: Store) -> None:
        """Each message gets a place of its own; a sender's own order stands."""
        await store.create(meta())

        async def sender(name: str) -> None:
            for number in range(10):
                for _ in range(2):
                    await store.send("run", encode([name, number]), sender=name, id=str(number))

        await asyncio.gather(*(sender(f"s{number}") for number in range(10)))
        told = [msgspec.json.decode(line) for _, line in await read_all(store, inbox_of("run"), limit=7)]
        assert len(told) == 100
        for number in range(10):
            assert [each for name, each in told if name == f"s{number}"] == list(range(10))

    async def test_inbox_is_read_from_the_start_by_each_attempt(self, store: Store) -> None:
        """What was sent before an attempt, or before any, is there for it; fences do not touch it."""
        await store.create(meta())
        await store.send("run", b'{"type":"cancel"}', sender="s", id="1")
        await Author.take(store, "run", "token-1")
        await Author.take(store, "run", "token-2")
        lines = await read_all(store, inbox_of("run"))
        assert [line for _, line in lines] == [b'{"type":"cancel"}']
        cursor = await store.send("run", b'{"type":"more"}', sender="s", id="2")
        assert [cursor for cursor, _ in await read_all(store, inbox_of("run"), lines[0][0])] == [cursor]

    async def test_inbox_wakes_its_reader(self, store: Store) -> None:
        """A run hears at once of what it is told."""
        await store.create(meta())
        reading = spawn(store.read(inbox_of("run"), wait=WAIT), "read")
        await turns(5)
        await store.send("run", b'{"type":"x"}', sender="s", id="1")
        assert len(await reading) == 1

    async def test_inbox_is_closed_by_the_end(self, store: Store) -> None:
        """Then sending is refused, and what is there says so; a message that is already there stays sent."""
        author = await Author.start(store)
        first = await store.send("run", b'{"type":"x"}', sender="s", id="1")
        await author.say("complete")
        with pytest.raises(LogEnded):
            await store.send("run", b'{"type":"x"}', sender="s", id="2")
        assert await store.send("run", b'{"type":"x"}', sender="s", id="1") == first
        page = await store.read(inbox_of("run"))
        assert (len(page), page.caught_up, page.ended) == (1, True, True)

    async def test_inbox_is_bounded(self, store: Store) -> None:
        """In messages, and in one message's size; nothing is changed by what is refused."""
        await store.create(meta())
        with pytest.raises(LimitExceeded):
            await store.send("run", b'"%b"' % (b"x" * limits.MESSAGE_BYTES), sender="s", id="large")
        for start in range(0, limits.INBOX_MESSAGES, 500):
            await asyncio.gather(
                *(store.send("run", b"1", sender="s", id=str(number)) for number in range(start, start + 500))
            )
        with pytest.raises(LimitExceeded):
            await store.send("run", b"1", sender="s", id="one more")
        assert (await store.send("run", b"1", sender="s", id="0")).seq <= 500
        assert len(await read_all(store, inbox_of("run"))) == limits.INBOX_MESSAGES

    # --- heartbeats and marks ----------------------------------------------------------------------------------------

    async def test_touch_counts_the_owners_heartbeat(self, store: Store) -> None:
        """Up, and not after the end."""
        author = await Author.start(store)
        beats = [(await store.head("run")).beat]
        for _ in range(3):
            await store.touch("run")
            beats.append((await store.head("run")).beat)
        assert beats == sorted(set(beats))
        await author.say("complete")
        await store.touch("run")
        assert (await store.head("run")).beat == beats[-1]

    async def test_marks_tell_how_far_readers_are(self, store: Store) -> None:
        """The newest seq of each attached reader, with a heartbeat that counts up; who left is gone."""
        await Author.start(store)
        await Author.start(store, "other")
        assert await store.marks("run") == []
        await store.mark("run", "a", 1)
        await store.mark("run", "b", 2)
        await store.mark("other", "c", 3)
        first = {mark.reader: mark for mark in await store.marks("run")}
        assert {reader: mark.seq for reader, mark in first.items()} == {"a": 1, "b": 2}
        await store.mark("run", "a", 5)
        await store.mark("run", "b", 2)
        second = {mark.reader: mark for mark in await store.marks("run")}
        assert {reader: mark.seq for reader, mark in second.items()} == {"a": 5, "b": 2}
        assert all(second[reader].beat > first[reader].beat for reader in second)
        for _ in range(2):
            await store.mark("run", "a", None)
        assert [mark.reader for mark in await store.marks("run")] == ["b"]

    # --- G9 ----------------------------------------------------------------------------------------------------------

    async def test_g9_a_claim_carries_the_whole_meta(self, store: Store) -> None:
        """Putting precedes creating: whoever claims a run can create its log."""
        started = meta(
            input=msgspec.Raw(b'{"a":[1,2]}'), key="k", owner_lease=5.0, timeout=1.5, idle_timeout=2, ahead=3
        )
        await store.put(started)
        claimed = await must_claim(store, "w1")
        assert (claimed.meta, claimed.run, claimed.worker, claimed.crashes) == (started, "run", "w1", 0)
        assert (await store.create(claimed.meta)).meta == started

    async def test_g9_each_run_goes_to_one_worker(self, store: Store) -> None:
        """However many ask at once; putting a run again does not double it."""
        for _ in range(2):
            await asyncio.gather(*(store.put(meta(f"run-{number}")) for number in range(10)))
        claims = await asyncio.gather(*(claim(store, f"w{number}") for number in range(30)))
        assert sorted(each.run for each in claims if each) == sorted(f"run-{number}" for number in range(10))
        for number in range(10):
            await store.put(meta(f"run-{number}"))
        assert await claim(store) is None

    async def test_g9_one_worker_may_hold_many(self, store: Store) -> None:
        """Oldest first."""
        for number in range(5):
            await store.put(meta(f"run-{number}"))
        assert [(await must_claim(store)).run for _ in range(5)] == [f"run-{number}" for number in range(5)]

    async def test_g9_only_the_named_queues_are_looked_at(self, store: Store) -> None:
        """And all of them."""
        for queue in ("a", "b", "c"):
            await store.put(meta(f"run-{queue}", queue=queue))
        assert await claim(store, queues=["default"]) is None
        assert (await must_claim(store, queues=["c"])).run == "run-c"
        assert {(await must_claim(store, queues=["b", "a"])).run for _ in range(2)} == {"run-a", "run-b"}
        assert await claim(store, queues=["a", "b", "c"]) is None

    async def test_g9_a_waiting_worker_wakes_on_a_put(self, store: Store) -> None:
        """As many as there are runs; the others wait on."""
        assert await claim(store, wait=0.01) is None
        async with TaskSet() as tasks:
            waiting = {tasks.spawn(claim(store, f"w{number}", wait=WAIT), f"w{number}") for number in range(3)}
            for number in range(3):
                await turns(3)
                await store.put(meta(f"run-{number}"))
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                (claimed,) = (task.result() for task in done)
                assert claimed is not None
                assert claimed.run == f"run-{number}"

    @pytest.mark.parametrize("count", range(8))
    async def test_g9_no_put_is_lost_on_a_waiting_worker(self, store: Store, count: int) -> None:
        """Whenever it comes, also when another waiting worker is cancelled just then."""
        for number in range(5):
            waiting = [spawn(claim(store, worker, wait=WAIT), worker) for worker in ("w1", "w2")]
            await turns(count)
            await store.put(meta(f"run-{number}"))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(*waiting)
            claims = [task.result() for task in waiting if not task.cancelled()]
            (claimed,) = [each for each in claims if each is not None]
            assert claimed.run == f"run-{number}"
            await store.ack(claimed)

    async def test_g9_a_claim_lapses_when_its_heartbeat_stands_still(self, store: Store, clock: ManualClock) -> None:
        """For its lease, as the store has seen it: then it is another's, counting a crash, and the first is fenced."""
        await store.put(meta())
        lost = await must_claim(store, "w1")
        assert await claim(store, "w2") is None
        clock.advance(LEASE * 0.99)
        assert await claim(store, "w2") is None
        clock.advance(LEASE * 0.02)
        heir = await must_claim(store, "w2")
        assert (heir.run, heir.worker, heir.crashes) == ("run", "w2", 1)
        assert heir.number > lost.number
        for call in (store.renew(lost), store.ack(lost), store.release(lost)):
            with pytest.raises(Fenced):
                await call
        await store.renew(heir)
        assert await claim(store, "w3") is None

    async def test_g9_a_worker_is_fenced_from_its_own_earlier_claim(self, store: Store, clock: ManualClock) -> None:
        """The claim's number counts, not the worker's name alone."""
        await store.put(meta())
        before = await must_claim(store, "w1")
        await store.release(before)
        after = await must_claim(store, "w1")
        assert after.number > before.number
        for call in (store.renew(before), store.ack(before), store.release(before)):
            with pytest.raises(Fenced):
                await call
        await store.renew(after)

    async def test_g9_a_renewed_claim_stays(self, store: Store, clock: ManualClock) -> None:
        """As long as its heartbeat counts up."""
        await store.put(meta())
        held = await must_claim(store, "w1")
        for _ in range(10):
            assert await claim(store, "w2") is None
            clock.advance(LEASE * 0.9)
            await store.renew(held)
        assert await claim(store, "w2") is None
        clock.advance(LEASE * 1.1)
        assert (await must_claim(store, "w2")).crashes == 1

    async def test_g9_each_lapse_counts_a_crash(self, store: Store, clock: ManualClock) -> None:
        """But a hand-over does not; numbers grow with each claim."""
        await store.put(meta())
        crashes, numbers = [], []
        for number in range(3):
            claimed = await must_claim(store, f"w{number}")
            await store.release(claimed)
            claimed = await must_claim(store, f"w{number}")
            crashes.append(claimed.crashes)
            numbers.append(claimed.number)
            assert await claim(store, "other") is None
            clock.advance(LEASE * 1.1)
        assert crashes == [0, 1, 2]
        assert numbers == sorted(set(numbers))

    async def test_g9_leases_are_each_claims_own(self, store: Store, clock: ManualClock) -> None:
        """A long one outlasts a short one."""
        for run in ("long", "short"):
            await store.put(meta(run))
        for lease in (100.0, 1.0):
            assert await store.claim(QUEUES, "w1", lease=lease, wait=0) is not None
        assert await claim(store, "w2") is None
        clock.advance(1.1)
        assert (await must_claim(store, "w2")).run == "short"
        assert await claim(store, "w2") is None

    async def test_g9_a_waiting_worker_takes_a_lapsed_claim_over(self, make_store: StoreFactory) -> None:
        """By itself, in real time, soon after the lease."""
        async with make_store(time.monotonic) as store:
            await store.put(meta())
            assert await store.claim(QUEUES, "w1", lease=0.1, wait=0) is not None
            heir = await must_claim(store, "w2", wait=WAIT)
            assert heir.crashes == 1

    @pytest.mark.parametrize("count", range(8))
    async def test_g9_a_claim_whose_reply_was_lost_comes_again(
        self, store: Store, clock: ManualClock, count: int
    ) -> None:
        """To the same worker, or after its lease to another."""
        for number in range(3):
            await store.put(meta(f"run-{number}"))
            claiming = spawn(claim(store, "w1", wait=WAIT), "claim")
            await turns(count)
            await cancel_and_wait(claiming)
            again = await claim(store, "w1")
            if again is None:
                assert await claim(store, "w2") is None
                clock.advance(LEASE * 1.1)
                again = await must_claim(store, "w2")
            assert again.run == f"run-{number}"
            assert await claim(store, "w3") is None
            await store.ack(again)

    async def test_g9_acknowledged_is_forgotten(self, store: Store, clock: ManualClock) -> None:
        """For good; acknowledging again does nothing; the log is not touched."""
        author = await Author.start(store)
        await store.put(meta())
        claimed = await must_claim(store)
        await author.say("complete")
        for _ in range(2):
            await store.ack(claimed)
        clock.advance(LEASE * 2)
        assert await claim(store) is None
        for call in (store.renew(claimed), store.release(claimed)):
            with pytest.raises(Fenced):
                await call
        assert (await store.head("run")).state == "completed"

    async def test_g9_released_is_claimable_at_once(self, store: Store) -> None:
        """By whoever waits; no crash is counted."""
        await store.put(meta())
        held = await must_claim(store, "w1")
        waiting = spawn(claim(store, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.release(held)
        taken = await waiting
        assert taken is not None
        assert (taken.run, taken.worker, taken.crashes) == ("run", "w2", 0)

    async def test_g9_released_with_a_delay_is_claimable_after_it(self, store: Store, clock: ManualClock) -> None:
        """Not before; others go meanwhile."""
        await store.put(meta("run-1"))
        await store.release(await must_claim(store), delay=1.0)
        assert await claim(store) is None
        await store.put(meta("run-2"))
        assert (await must_claim(store)).run == "run-2"
        assert await claim(store) is None
        clock.advance(1.0)
        taken = await must_claim(store, wait=WAIT)
        assert (taken.run, taken.crashes) == ("run-1", 0)

    async def test_g9_runs_of_one_key_go_one_at_a_time_in_order(self, store: Store, clock: ManualClock) -> None:
        """Over queues; the next is ready when the one before is acknowledged, not when it is released or lapses."""
        for number in range(4):
            await store.put(meta(f"run-{number}", key="k", queue=f"q{number % 2}"))
        both = ("q0", "q1")
        held = await must_claim(store, "w1", queues=both)
        assert held.run == "run-0"
        assert await claim(store, "w2", queues=both) is None
        await store.release(held)
        held = await must_claim(store, "w1", queues=both)
        assert held.run == "run-0"
        assert await claim(store, "w2", queues=both) is None
        clock.advance(LEASE * 1.1)
        held = await must_claim(store, "w2", queues=both)
        assert held.run == "run-0"
        for number in range(1, 4):
            assert await claim(store, "w1", queues=both) is None
            await store.ack(held)
            held = await must_claim(store, "w1", queues=both)
            assert held.run == f"run-{number}"

    async def test_g9_a_delayed_run_holds_its_key(self, store: Store, clock: ManualClock) -> None:
        """Order within a key also outlasts a pause before a retry."""
        for number in range(2):
            await store.put(meta(f"run-{number}", key="k"))
        await store.release(await must_claim(store), delay=1.0)
        assert await claim(store) is None
        clock.advance(1.0)
        assert (await must_claim(store, wait=WAIT)).run == "run-0"

    async def test_g9_keys_are_of_one_actor(self, store: Store) -> None:
        """Different actors, different keys and runs without one do not wait for each other."""
        metas = [
            meta("run-1", key="k"),
            meta("run-2", key="k"),
            meta("run-3", key="l"),
            meta("run-4", "another", key="k"),
            meta("run-5"),
            meta("run-6"),
        ]
        for each in metas:
            await store.put(each)
        claimed = [await must_claim(store) for _ in range(5)]
        assert [each.run for each in claimed] == ["run-1", "run-3", "run-4", "run-5", "run-6"]
        assert await claim(store) is None

    async def test_g9_a_waiting_worker_wakes_on_the_keys_next(self, store: Store) -> None:
        """When the one before is acknowledged, and when it is dropped."""
        for number in range(3):
            await store.put(meta(f"run-{number}", key="k"))
        held = await must_claim(store)
        waiting = spawn(claim(store, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.ack(held)
        taken = await waiting
        assert taken is not None
        assert taken.run == "run-1"
        waiting = spawn(claim(store, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.drop("run-1")
        last = await waiting
        assert last is not None
        assert last.run == "run-2"
        with pytest.raises(Fenced):
            await store.renew(taken)

    async def test_g9_dropping_a_run_that_waits_keeps_its_keys_order(self, store: Store) -> None:
        """From the middle, and while the first is claimed."""
        for number in range(3):
            await store.put(meta(f"run-{number}", key="k"))
        await store.drop("run-1")
        held = await must_claim(store)
        assert held.run == "run-0"
        assert await claim(store) is None
        await store.ack(held)
        assert (await must_claim(store)).run == "run-2"

    async def test_g9_a_run_may_be_put_again(self, store: Store) -> None:
        """After it was acknowledged or dropped; old claims stay fenced."""
        await store.put(meta())
        old = await must_claim(store)
        await store.ack(old)
        await store.put(meta())
        new = await must_claim(store)
        assert new.crashes == 0
        with pytest.raises(Fenced):
            await store.renew(old)
        await store.drop("run")
        await store.put(meta())
        assert (await must_claim(store)).run == "run"

    # --- G10 ---------------------------------------------------------------------------------------------------------

    async def test_g10_a_sweep_puts_open_runs_back_that_no_queue_holds(self, store: Store) -> None:
        """So that every started run ends: those that never began, and those that did."""
        started = meta("run-1", key="k", queue="q")
        await store.create(started)
        await Author.start(store, "run-2", queue="q")
        assert (await store.sweep()).requeued == 2
        assert (await store.sweep()).requeued == 0
        claims = [await must_claim(store, queues=["q"]) for _ in range(2)]
        assert {each.run for each in claims} == {"run-1", "run-2"}
        assert started in [each.meta for each in claims]

    async def test_g10_a_sweep_leaves_the_others(self, store: Store) -> None:
        """Those in the queue, claimed, delayed or behind their key, and those that have ended."""
        for number in range(4):
            await store.put(meta(f"run-{number}", key="k" if number < 2 else None))
            await store.create(meta(f"run-{number}", key="k" if number < 2 else None))
        claims = {each.run: each for each in [await must_claim(store) for _ in range(2)]}
        assert set(claims) == {"run-0", "run-2"}
        await store.release(claims["run-2"], delay=1000.0)
        await (await Author.start(store, "ended")).say("complete")
        await store.create(meta("unstarted"))
        await store.end_unstarted("unstarted", CANCELLED)
        swept = await store.sweep()
        assert (swept.requeued, swept.dropped) == (0, 0)
        assert len(await store.heads()) == 6


class SharedStoreConformance(StoreConformance):
    """What a store guarantees besides, that several objects, in one process or many, open on the same place.

    Every call of `make_store` gives another object on the same place; it outlasts them.
    """

    @pytest.fixture
    async def other(self, make_store: StoreFactory, clock: ManualClock, store: Store) -> AsyncIterator[Store]:
        """A second object on the place of `store`."""
        async with make_store(clock) as other:
            yield other

    async def test_g4_everything_outlasts_a_restart(self, make_store: StoreFactory, clock: ManualClock) -> None:
        """Runs, chunks, ends, messages, tokens and the queue."""
        async with make_store(clock) as store:
            await (await Author.start(store, "ended")).say("data", Chunk("complete", {"answer": 42}))
            author = await Author.start(store, "open")
            last = author.batch("data")
            await author.send(last)
            sent = await store.send("open", b'{"type":"x"}', sender="s", id="1")
            await store.put(meta("queued"))
            heads = [await store.head(run) for run in ("ended", "open")]
            lines = [await read_all(store, run) for run in ("ended", "open")]
        async with make_store(clock) as store:
            assert [await store.head(run) for run in ("ended", "open")] == heads
            assert [await read_all(store, run) for run in ("ended", "open")] == lines
            assert await store.send("open", b'{"type":"x"}', sender="s", id="1") == sent
            assert (await store.fence("open", "token")).epoch == author.epoch
            assert await store.append("open", last) == last.cursor
            assert (await must_claim(store)).run == "queued"

    async def test_g2_a_fence_by_one_object_fences_the_others_writer(self, store: Store, other: Store) -> None:
        """It is the place that refuses, not an object's memory of it."""
        zombie = await Author.start(store)
        await zombie.say("data")
        heir = await Author.take(other, "run", "token-2")
        with pytest.raises(Fenced):
            await zombie.say("data")
        assert heir.tail == 2
        await heir.say("start")
        assert await read_all(store, "run") == await read_all(other, "run")

    async def test_g2_concurrent_fences_of_two_objects_leave_one_writer(self, store: Store, other: Store) -> None:
        """As within one."""
        await store.create(meta())
        stores = [store, other] * 4
        fences = await asyncio.gather(*(each.fence("run", f"token-{number}") for number, each in enumerate(stores)))
        authors = [Author(each, "run", fence) for each, fence in zip(stores, fences, strict=True)]
        outcomes = await asyncio.gather(*(outcome_of(author.say("start")) for author in authors))
        assert sum(isinstance(outcome, Cursor) for outcome in outcomes) == 1
        assert len({attempt_of(fence.epoch) for fence in fences}) == 8

    @pytest.mark.parametrize("count", range(4))
    async def test_g7_what_one_object_appends_wakes_the_others_reader(
        self, store: Store, other: Store, count: int
    ) -> None:
        """On appends, messages and the end; nothing is lost between them."""
        author = await Author.start(store)
        cursor = Cursor(author.epoch, 1)
        for _ in range(5):
            reading = spawn(other.read("run", cursor, wait=WAIT), "read")
            await turns(count)
            cursor = await author.say("data")
            assert (await reading).cursor == cursor
        listening = spawn(other.read(inbox_of("run"), wait=WAIT), "listen")
        await turns(count)
        await store.send("run", b'{"type":"x"}', sender="s", id="1")
        heard = await listening
        assert len(heard) == 1
        reading = spawn(other.read("run", cursor, wait=WAIT), "read")
        listening = spawn(other.read(inbox_of("run"), heard.cursor, wait=WAIT), "listen")
        await turns(count)
        await author.say("complete")
        assert (await reading).ended
        assert (await listening).ended

    async def test_g7_what_one_object_drops_wakes_the_others_reader(self, store: Store, other: Store) -> None:
        """With `LogNotFound`."""
        author = await Author.start(store)
        reading = spawn(outcome_of(other.read("run", Cursor(author.epoch, 1), wait=WAIT)), "read")
        await turns(5)
        await store.drop("run")
        assert isinstance(await reading, LogNotFound)

    async def test_g7_a_watcher_is_told_of_the_other_objects_changes(self, store: Store, other: Store) -> None:
        """Appends, marks and the drop."""
        author = await Author.start(store)
        told = Told(other, "run")
        await author.say("data")
        await told.next()
        await store.mark("run", "reader", 1)
        await told.next()
        assert [mark.reader for mark in await other.marks("run")] == ["reader"]
        await store.drop("run")
        await told.next()
        told.unwatch()

    async def test_g9_each_run_goes_to_one_worker_of_either_object(self, store: Store, other: Store) -> None:
        """However many ask at once."""
        for number in range(10):
            await store.put(meta(f"run-{number}"))
        claims = await asyncio.gather(*(claim([store, other][number % 2], f"w{number}") for number in range(30)))
        assert sorted(each.run for each in claims if each) == sorted(f"run-{number}" for number in range(10))

    async def test_g9_an_object_takes_over_only_what_it_has_watched(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        """A lease is measured from when this object first saw the heartbeat: clocks of others count for nothing."""
        await store.put(meta())
        held = await must_claim(store, "w1")
        clock.advance(LEASE * 10)
        assert await claim(other, "w2") is None
        clock.advance(LEASE * 0.9)
        await store.renew(held)
        assert await claim(other, "w2") is None
        clock.advance(LEASE * 0.9)
        assert await claim(other, "w2") is None
        clock.advance(LEASE * 0.2)
        heir = await must_claim(other, "w2")
        assert heir.crashes == 1
        with pytest.raises(Fenced):
            await store.renew(held)

    async def test_g9_a_put_by_one_object_wakes_the_others_worker(self, store: Store, other: Store) -> None:
        """So do a release and the acknowledgement of a key's first."""
        waiting = spawn(must_claim(other, "w2", wait=WAIT), "claim")
        await turns(5)
        await store.put(meta("run-1", key="k"))
        await store.put(meta("run-2", key="k"))
        held = await waiting
        waiting = spawn(must_claim(store, "w1", wait=WAIT), "claim")
        await turns(5)
        await other.release(held)
        held = await waiting
        assert held.run == "run-1"
        waiting = spawn(must_claim(other, "w2", wait=WAIT), "claim")
        await turns(5)
        await store.ack(held)
        assert (await waiting).run == "run-2"
