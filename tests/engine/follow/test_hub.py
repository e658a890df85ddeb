"""The hub: one reader a log, however many watch; a gap is read, a wake-up never lost, a slow viewer served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.engine.follow.hub import FEED_BYTES, FEED_LINGER, Feed, Hub
from loom.model import limits
from loom.model.chunk import Chunk, Page
from loom.model.cursor import Cursor, make_epoch
from loom.model.errors import CursorExpired, HandleClosed, LimitExceeded, LogNotFound, Unavailable
from loom.model.ports import Notice
from loom.model.run import Meta
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author
from loom.wire.json import make_batch
from tests.engine.kit import turns, until
from tests.faults.store import FaultStore
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio


class Watcher:
    """A viewer that is iterated in a task, and what it has seen; which it took, if it takes `every` nth page."""

    def __init__(
        self,
        hub: Hub,
        after: Cursor | None = None,
        run: str = "run",
        *,
        every: int = 0,
        limit_bytes: int | None = None,
    ) -> None:
        self.pages: list[Page] = []
        self.taken = 0
        self._every = every
        self.viewer = hub.follow(run, after, sink=self if every else None, limit_bytes=limit_bytes)
        self.task = spawn(self._watch(), "watcher")

    def deliver(self, page: Page) -> bool:
        if len(self.pages) % self._every:
            return False
        self.pages.append(page)
        self.taken += 1
        return True

    async def _watch(self) -> None:
        async for page in self.viewer:
            self.pages.append(page)

    @property
    def seqs(self) -> list[int]:
        return [cursor.seq for page in self.pages for cursor, _ in page.lines()]

    async def saw(self, count: int) -> None:
        await until(lambda: len(self.seqs) >= count)


@pytest.fixture
async def store() -> FaultStore:
    return FaultStore(MemoryStore())


@pytest.fixture
async def author(store: FaultStore) -> Author:
    """The author of "run", who has said `start`."""
    return await Author.start(store)


@pytest.fixture
async def hub(store: FaultStore) -> AsyncIterator[Hub]:
    hub = Hub(store)
    yield hub
    await hub.aclose()
    assert store.watched == set()


@pytest.fixture
async def watch(hub: Hub, author: Author) -> AsyncIterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def watch(after: Cursor | None = None, *, every: int = 0) -> Watcher:
        watchers.append(Watcher(hub, after, every=every))
        return watchers[-1]

    yield watch
    await cancel_and_wait(*(watcher.task for watcher in watchers))
    await turns()


def big(size: int) -> Chunk[Any]:
    return Chunk("data", "x" * size)


async def say_much(author: Author, bytes: int, each: int = 10_000) -> None:
    for _ in range(bytes // each):
        await author.say(big(each))


# --- following -------------------------------------------------------------------------------------------------------


async def test_a_viewer_gets_everything_and_ends_with_the_log(author: Author, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    await watcher.saw(1)
    for _ in range(5):
        await author.say("data")
    await author.say("data", "complete")
    await watcher.task
    assert watcher.seqs == list(range(1, 9))
    assert [page.ended for page in watcher.pages][-1] is True


async def test_a_viewer_resumes_behind_its_cursor(author: Author, watch: Callable[..., Watcher]) -> None:
    cursor = await author.say("data", "data")
    await author.say("data", "complete")
    watcher = watch(Cursor(cursor.epoch, 2))
    await watcher.task
    assert watcher.seqs == [3, 4, 5]


async def test_behind_the_end_there_is_nothing_and_it_ends(author: Author, watch: Callable[..., Watcher]) -> None:
    cursor = await author.say("complete")
    watcher = watch(cursor)
    await watcher.task
    assert watcher.pages == []


async def test_an_empty_log_is_waited_for(store: FaultStore, hub: Hub) -> None:
    await store.runs.create(Meta(run="run", actor="actor"))
    watcher = Watcher(hub)
    await turns()
    author = await Author.take(store.logs, "run")
    await author.say("start")
    await author.say("complete")
    await watcher.task
    assert watcher.seqs == [1, 2]


async def test_the_log_is_read_once_for_a_thousand_viewers(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watchers = [watch() for _ in range(1000)]
    await watchers[-1].saw(1)
    for _ in range(20):
        await author.say("data")
        await turns(5)
    await author.say("complete")
    await asyncio.wait([watcher.task for watcher in watchers])
    assert all(watcher.seqs == list(range(1, 23)) for watcher in watchers)
    assert store.calls["read"] == 1


async def test_who_comes_late_is_served_from_what_is_there(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    first = watch()
    await first.saw(1)
    for _ in range(10):
        await author.say("data")
    await first.saw(11)
    reads = store.calls["read"]
    late = watch()
    await late.saw(11)
    assert store.calls["read"] == reads


# --- taking ----------------------------------------------------------------------------------------------------------


async def test_what_is_taken_is_taken_where_it_was_appended(author: Author, watch: Callable[..., Watcher]) -> None:
    taker = watch(every=1)
    await taker.saw(1)
    await turns()
    for seq in range(2, 10):
        await author.say("data")
        assert taker.seqs[-1] == seq, "no turn of the loop was needed"
    await author.say("complete")
    await taker.task
    assert taker.seqs == list(range(1, 11))
    assert taker.taken == 9


async def test_what_is_not_taken_is_given_by_the_iterator(author: Author, watch: Callable[..., Watcher]) -> None:
    taker = watch(every=2)
    await taker.saw(1)
    for _ in range(8):
        await turns()
        await author.say("data")
    await author.say("complete")
    await taker.task
    assert taker.seqs == list(range(1, 11))
    assert 0 < taker.taken < 9


async def test_only_who_has_all_before_it_is_offered_a_page(
    store: FaultStore, hub: Hub, author: Author, watch: Callable[..., Watcher]
) -> None:
    """Another viewer's read may bring the feed further than a notice has told."""
    await author.say("data", "data")
    taker = watch(every=1)
    await taker.saw(3)
    await turns()
    store.deaf = True
    cursor = await author.say("data")
    other = watch(Cursor(cursor.epoch, 2))  # amid a batch: read from the log
    await other.saw(2)
    store.deaf = False
    await author.say("data")
    assert taker.seqs == [1, 2, 3]
    await author.say("complete")
    await taker.task
    assert taker.seqs == list(range(1, 7))


async def test_who_is_cancelled_is_offered_nothing_more(author: Author, watch: Callable[..., Watcher]) -> None:
    taker = watch(every=1)
    await taker.saw(1)
    await turns()
    taker.task.cancel()
    await author.say("data")
    assert taker.taken == 0


async def test_a_run_that_waits_for_its_readers_knows_what_they_took(store: FaultStore, hub: Hub) -> None:
    await store.runs.create(Meta(run="slow", actor="a", created=1.0, ahead=1))
    author = await Author.take(store.logs, "slow", "t")
    await author.say("start")
    taker = Watcher(hub, run="slow", every=1)
    await taker.saw(1)
    for seq in range(2, 5):
        await turns()
        assert [mark.seq for mark in await store.logs.positions("slow")] == [seq - 1]
        await author.say("data")
    assert taker.taken == 0
    await cancel_and_wait(taker.task)


# --- pages within bytes ----------------------------------------------------------------------------------------------

FIVE = [Chunk("data", "x" * 100)] * 5


def within(pages: list[Page], limit_bytes: int) -> bool:
    return all(len(page) == 1 or page.size <= limit_bytes for page in pages)


@pytest.mark.parametrize("limit_bytes", [1, 200, 300, 10**6])
async def test_a_page_is_cut_wherever_it_comes_from(
    store: FaultStore, author: Author, hub: Hub, limit_bytes: int
) -> None:
    """From the log, from the feed's newest batch, and from the feed's batches, without a read more than else."""
    watcher = Watcher(hub, limit_bytes=limit_bytes)
    await author.say(*FIVE)
    await watcher.saw(6)
    reads = store.calls["read"]
    await author.say(*FIVE)  # comes by its notice
    await watcher.saw(11)
    late = Watcher(hub, watcher.pages[-1].cursor, limit_bytes=limit_bytes)
    await author.say(*FIVE)
    await author.say(*FIVE, "complete")
    await watcher.task
    await late.task
    assert store.calls["read"] == reads
    assert watcher.seqs == list(range(1, 23))
    assert late.seqs == watcher.seqs[11:]
    for pages in (watcher.pages, late.pages):
        assert within(pages, limit_bytes)
        assert [page.ended for page in pages] == [False] * (len(pages) - 1) + [True]
        assert (len(pages) > 3) is (limit_bytes < 10**6)


async def test_a_sink_is_offered_only_what_fits(author: Author, hub: Hub) -> None:
    taker = Watcher(hub, every=1, limit_bytes=300)
    await taker.saw(1)
    await turns()
    await author.say(*FIVE)
    assert taker.taken == 0
    await taker.saw(6)
    await turns()
    await author.say("data", "data")
    assert taker.taken == 1
    await author.say(big(1000))  # one chunk, larger than the limit
    assert taker.taken == 2
    await author.say("complete")
    await taker.task
    assert taker.seqs == list(range(1, 11))
    assert within(taker.pages, 300)


async def test_each_part_counts_as_read_when_the_next_is_asked_for(store: FaultStore, hub: Hub) -> None:
    author = await Author.start(store, ahead=5)
    await author.say(*FIVE)
    viewer = hub.follow("run", limit_bytes=1)
    for seq in range(1, 7):
        assert (await anext(viewer)).cursor == Cursor(author.epoch, seq)
        assert [mark.seq for mark in await store.logs.positions("run")] == [seq - 1]
    await viewer.aclose()


# --- notices ---------------------------------------------------------------------------------------------------------


async def test_a_gap_in_the_notices_is_read(store: FaultStore, author: Author, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    await watcher.saw(1)
    store.deaf = True
    await author.say("data", "data")
    store.deaf = False
    reads = store.calls["read"]
    await author.say("data")
    await watcher.saw(4)
    assert watcher.seqs == [1, 2, 3, 4]
    assert store.calls["read"] == reads + 1


async def test_a_notice_without_a_batch_is_a_reason_to_read(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    await watcher.saw(1)
    store.deaf = True
    await author.say("data", "complete")
    store.deaf = False
    store.tell("run", Notice())
    await watcher.task
    assert watcher.seqs == [1, 2, 3]


async def test_repeated_and_late_notices_change_nothing(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    await watcher.saw(1)
    batch = author.batch("data", "data")
    await author.send(batch)
    await watcher.saw(3)
    reads = store.calls["read"]
    for late in (batch, batch.slice(2, 2), make_batch(author.epoch, 1, [Chunk("start")])):
        store.tell("run", Notice(late))
        await turns()
    assert watcher.seqs == [1, 2, 3]
    assert store.calls["read"] == reads


async def test_marks_of_readers_are_nothing_for_who_reads(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    await watcher.saw(1)
    reads = store.calls["read"]
    await store.logs.commit_position("run", "r", 1)
    await turns()
    assert store.calls["read"] == reads


async def test_a_new_epoch_s_first_batch_is_taken_only_from_the_log(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    await watcher.saw(1)
    reads = store.calls["read"]
    later = await Author.take(store.logs, "run", "later")
    await later.say("start")
    await watcher.saw(2)
    assert store.calls["read"] == reads + 1
    await later.say("data")
    await watcher.saw(3)
    assert store.calls["read"] == reads + 1
    assert [batch.epoch for page in watcher.pages for batch in page.batches] == [author.epoch, later.epoch, later.epoch]


@pytest.mark.parametrize("first", [2, 4])
async def test_what_another_history_says_is_not_taken_over(
    store: FaultStore, author: Author, watch: Callable[..., Watcher], first: int
) -> None:
    """After a failover the same seqs may come again, of another epoch: only the log tells what stands."""
    watcher = watch()
    await author.say("data", "data")
    await watcher.saw(3)
    reads = store.calls["read"]
    foreign = make_batch(make_epoch(2, 7), first, [Chunk("data", "foreign")])
    store.tell("run", Notice(foreign))
    await until(lambda: store.calls["read"] > reads)
    await turns()
    assert watcher.seqs == [1, 2, 3]


async def test_no_wake_up_is_lost_while_a_read_is_under_way(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    held = store.hold("read")
    watcher = watch()
    await held.arrived.wait()
    await author.say("data")
    held.let_go()
    await watcher.saw(2)
    await author.say("data")
    await watcher.saw(3)


async def test_no_wake_up_is_lost_behind_a_read_that_came_too_early(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    """The page is empty, and what it misses was told before it came."""
    watcher = watch(Cursor(author.epoch, 1))
    store.pace = 1
    for n in range(1, 30):
        await turns(n % 5)
        await author.say("data")
    await watcher.saw(29)
    assert watcher.seqs == list(range(2, 31))


# --- slow viewers ----------------------------------------------------------------------------------------------------


async def test_a_read_that_is_over_is_nobody_s_answer(author: Author, store: FaultStore) -> None:
    """Who asks in the very turn in which it ended asks anew: taken again and again, it would hold the loop for ever."""
    await author.say("data")
    feed = Feed(store.logs, "run")
    go = asyncio.Event()
    asked = 0
    read = store.logs.read

    async def held(log: str, after: Cursor | None = None, **more: Any) -> Page:
        nonlocal asked
        asked += 1
        await go.wait()
        return await read(log, after, **more)

    store.logs.read = held  # type: ignore[method-assign]
    first = spawn(feed.read(None), "first")
    together = spawn(feed.read(None), "together")
    await until(lambda: asked == 1)
    (reading,) = feed._reads.values()
    go.set()
    await until(reading.done)
    assert list(feed._reads.values()) == [reading], "too late to show anything"
    assert await feed.read(None) == await first == await together
    assert asked == 2
    await feed.aclose()


async def test_a_slow_viewer_is_served_from_the_store_a_page_at_a_time(
    store: FaultStore, author: Author, hub: Hub
) -> None:
    fast, slow = Watcher(hub), hub.follow("run")
    assert [len(page) for page in [await anext(slow)]] == [1]
    await say_much(author, 4 * FEED_BYTES)
    await author.say("complete")
    await fast.task
    seqs = [1]
    async for page in slow:
        assert sum(len(batch.payload) for batch in page.batches) <= max(limits.PAGE_BYTES, FEED_BYTES)
        seqs += [cursor.seq for cursor, _ in page.lines()]
    assert seqs == fast.seqs == list(range(1, len(seqs) + 1))


async def test_what_the_feed_holds_is_bounded(author: Author, hub: Hub) -> None:
    watcher = Watcher(hub)
    await watcher.saw(1)
    feed = hub.attach("run")
    await say_much(author, 4 * FEED_BYTES)
    await turns()
    assert feed._bytes == sum(len(batch.payload) for batch in feed._batches) <= FEED_BYTES
    hub.detach("run")
    await cancel_and_wait(watcher.task)


async def test_one_chunk_larger_than_the_feed_still_passes(author: Author, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    await watcher.saw(1)
    await author.say(big(limits.CHUNK_BYTES - 100))
    await author.say("data", "complete")
    await watcher.task
    assert watcher.seqs == [1, 2, 3, 4]


async def test_a_slow_viewer_does_not_disturb_the_others(
    author: Author, watch: Callable[..., Watcher], hub: Hub
) -> None:
    fast, slow = watch(), hub.follow("run")
    await anext(slow)
    for seq in range(2, 200):
        await author.say(big(10_000))
        await fast.saw(seq)
    assert (await anext(slow)).batches[0].first == 2
    await slow.aclose()


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_a_viewer_that_is_cancelled_disturbs_nobody(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    held = store.hold("read")
    gone, staying = watch(), watch()
    await held.arrived.wait()
    await cancel_and_wait(gone.task)
    held.let_go()
    await staying.saw(1)
    assert store.calls["read"] == 1
    await cancel_and_wait(watch().task)
    await author.say("data", "complete")
    await staying.task
    assert staying.seqs == [1, 2, 3]


async def test_a_closed_viewer_gives_nothing_more(author: Author, hub: Hub) -> None:
    viewer = hub.follow("run")
    await anext(viewer)
    await viewer.aclose()
    await viewer.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(viewer)


async def test_closing_the_hub_ends_every_viewer(store: FaultStore, author: Author, hub: Hub) -> None:
    waiting = Watcher(hub)
    await waiting.saw(1)
    store.deaf = True
    await author.say("data")
    held = store.hold("read")
    store.deaf = False
    reading = Watcher(hub, Cursor(author.epoch, 1))
    store.tell("run", Notice())
    await held.arrived.wait()
    await hub.aclose()
    for watcher in (waiting, reading):
        with pytest.raises(HandleClosed):
            await watcher.task
    with pytest.raises(HandleClosed):
        await anext(hub.follow("run"))


async def test_a_close_that_is_cancelled_closes_all_the_same(store: FaultStore, hub: Hub) -> None:
    before = asyncio.all_tasks()
    watchers = []
    for n in range(3):
        run = f"run{n}"
        await Author.start(store, run)
        store.hold("read")
        watchers.append(Watcher(hub, run=run))
    await until(lambda: store.calls["read"] == 3)
    closing = spawn(hub.aclose(), "close")
    await turns(1)
    await cancel_and_wait(closing)
    await asyncio.wait([watcher.task for watcher in watchers])
    assert [type(watcher.task.exception()) for watcher in watchers] == [HandleClosed] * 3
    assert asyncio.all_tasks() == before


class TestLinger:
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {"loop_factory": VirtualLoop}

    async def test_a_feed_outlives_its_last_viewer_a_little(self, store: FaultStore, author: Author, hub: Hub) -> None:
        for pause, reads in ((FEED_LINGER / 2, 1), (FEED_LINGER * 2, 2)):
            viewer = hub.follow("run")
            await anext(viewer)
            await viewer.aclose()
            assert len(hub) == 1
            assert store.calls["read"] == reads - (1 if pause > FEED_LINGER else 0)
            await asyncio.sleep(pause)
        assert len(hub) == 0
        assert store.watched == set()
        viewer = hub.follow("run")
        await anext(viewer)
        assert store.calls["read"] == 2
        await viewer.aclose()

    async def test_a_feed_with_a_viewer_stays(self, author: Author, hub: Hub) -> None:
        one, other = hub.follow("run"), hub.follow("run")
        await anext(one)
        await anext(other)
        await one.aclose()
        await asyncio.sleep(10 * FEED_LINGER)
        assert len(hub) == 1
        await other.aclose()


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_a_viewer_of_no_run_is_told(hub: Hub) -> None:
    with pytest.raises(LogNotFound):
        await anext(hub.follow("nowhere"))


async def test_a_run_dropped_in_mid_follow_is_told(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watchers = [watch(), watch()]
    await watchers[1].saw(1)
    await store.runs.drop("run")
    for watcher in watchers:
        with pytest.raises(LogNotFound):
            await watcher.task


async def test_a_run_dropped_and_made_anew_is_told(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    await watcher.saw(1)
    store.deaf = True
    await store.runs.drop("run")
    await Author.start(store)
    store.deaf = False
    store.tell("run", Notice())
    with pytest.raises(CursorExpired):
        await watcher.task


async def test_history_trimmed_under_a_slow_viewer_is_told(store: FaultStore, author: Author, hub: Hub) -> None:
    slow = hub.follow("run")
    await anext(slow)
    await say_much(author, 4 * FEED_BYTES)
    await store.logs.trim("run", author.tail)
    with pytest.raises(CursorExpired) as raised:
        await anext(slow)
    assert raised.value.details["earliest"] == f"{author.epoch}-{author.tail - 1}"


@pytest.mark.parametrize("after", [Cursor(make_epoch(9, 9), 1), Cursor(make_epoch(1, 0), 5)])
async def test_a_cursor_of_another_history_is_told(hub: Hub, author: Author, after: Cursor) -> None:
    with pytest.raises(CursorExpired):
        await anext(hub.follow("run", after))


async def test_an_outage_in_mid_follow_is_waited_out(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    watchers = [watch() for _ in range(3)]
    await watchers[-1].saw(1)
    with store.outage():
        store.tell_all(Notice())
        await until(lambda: store.calls["read"] >= 4)
        assert not any(watcher.task.done() for watcher in watchers)
        author.logs = store.store.logs
        await author.say("data", "complete")
    await asyncio.wait([watcher.task for watcher in watchers])
    assert all(watcher.seqs == [1, 2, 3] for watcher in watchers)


async def test_an_outage_before_the_first_page_is_waited_out(
    store: FaultStore, author: Author, watch: Callable[..., Watcher]
) -> None:
    store.refuse("get", times=2)
    store.refuse("read", Unavailable("out"), times=2)
    watcher = watch()
    await watcher.saw(1)


# --- readers of a run with `ahead` -----------------------------------------------------------------------------------


async def test_a_viewer_of_a_run_with_ahead_says_how_far_it_has_read(store: FaultStore, hub: Hub) -> None:
    author = await Author.start(store, ahead=5)
    await author.say("data", "data")
    viewer = hub.follow("run")
    await anext(viewer)
    assert [mark.seq for mark in await store.logs.positions("run")] == [0]
    await author.say("data")
    await anext(viewer)
    assert [mark.seq for mark in await store.logs.positions("run")] == [3]
    await viewer.aclose()
    assert await store.logs.positions("run") == []


async def test_a_viewer_that_resumes_begins_where_it_is(store: FaultStore, hub: Hub) -> None:
    author = await Author.start(store, ahead=5)
    cursor = await author.say("data", "data")
    await author.say("data")
    viewer = hub.follow("run", cursor)
    await anext(viewer)
    assert [mark.seq for mark in await store.logs.positions("run")] == [3]
    await viewer.aclose()


async def test_viewers_of_a_run_with_ahead_are_bounded(
    store: FaultStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READERS", 1)
    author = await Author.start(store, ahead=5)
    first = Watcher(hub)
    await first.saw(1)
    with pytest.raises(LimitExceeded, match="1 readers are attached to run 'run'"):
        await anext(hub.follow("run"))
    assert [mark.seq for mark in await store.logs.positions("run")] == [1]
    await cancel_and_wait(first.task)
    await first.viewer.aclose()
    second = Watcher(hub)
    await second.saw(1)
    await author.say("complete")
    await second.task


@pytest.mark.parametrize(("ahead", "attach"), [(None, True), (5, False)])
async def test_no_other_viewer_says_anything(store: FaultStore, hub: Hub, ahead: int | None, attach: bool) -> None:
    await Author.start(store, ahead=ahead)
    viewer = hub.follow("run", attach=attach)
    await anext(viewer)
    assert store.calls["commit_position"] == 0
    await viewer.aclose()
    assert store.calls["commit_position"] == 0


async def test_a_viewer_that_is_cancelled_leaves(store: FaultStore, hub: Hub) -> None:
    await Author.start(store, ahead=5)
    watcher = Watcher(hub)
    await watcher.saw(1)
    await cancel_and_wait(watcher.task)
    assert await store.logs.positions("run") == []


async def test_a_viewer_of_a_dropped_run_leaves_without_an_error_of_its_own(store: FaultStore, hub: Hub) -> None:
    await Author.start(store, ahead=5)
    viewer = hub.follow("run")
    await anext(viewer)
    await store.runs.drop("run")
    await viewer.aclose()


# --- any order of things ---------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(["say", "say", "say big", "deafen", "hear", "fence", "view", "turn", "out", "back"]), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans())
def test_whatever_happens_every_viewer_sees_the_log(steps: list[str], paced: bool) -> None:
    asyncio.run(_act(steps, paced))


async def _act(steps: list[str], paced: bool) -> None:
    store = FaultStore(MemoryStore())
    author = await Author.start(store.store)
    hub = Hub(store)
    watchers = [Watcher(hub), Watcher(hub, every=1), Watcher(hub, every=3)]
    store.pace = int(paced)
    for number, step in enumerate(steps):
        match step:
            case "say":
                await author.say("data")
            case "say big":
                await author.say(*[big(100_000)] * 3)
            case "deafen" | "hear":
                store.deaf = step == "deafen"
            case "out" | "back":
                store.out = step == "out"
            case "fence":
                author = await Author.take(store.store.logs, "run", f"t{number}")
                await author.say("start")
            case "view":
                watchers.append(Watcher(hub, every=number % 3))
            case _:
                await turns(3)
    store.deaf = store.out = False
    await author.say("complete")
    store.tell("run", Notice())
    async with asyncio.timeout(20):
        await asyncio.wait([watcher.task for watcher in watchers])
    for watcher in watchers:
        watcher.task.result()
        assert watcher.seqs == list(range(1, author.tail + 1))
    await hub.aclose()
