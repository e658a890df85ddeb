"""The hub: in one process, what all viewers of a log share, so that a log is read once however many watch.

A feed keeps the newest batches of a followed log, taken from the store's notices as they are if they continue what it
has. A viewer holds a cursor and one page: nearly caught up it is served from the feed, far behind from the store.
Reads for the same cursor are shared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from loom.backoff import REPEATABLE, Backoff
from loom.engine.run.readers import Reader
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import closed
from loom.model.history import split
from loom.model.ports import InlineSink, LogStore, Notice, Store
from loom.tasks import TaskSet

__all__ = ["Feed", "Hub", "Viewer", "Wait"]

Wait = Callable[[Coroutine[Any, Any, None]], Coroutine[Any, Any, None]]
"""Awaits what blocks, as a run does that gives back its slot meanwhile."""

FEED_BYTES = 512 << 10
"""What the hub keeps of a followed log for viewers that are nearly caught up; the rest is read from the store."""

FEED_LINGER = 1.0
"""How long a feed outlives its last viewer: a page that reloads finds it warm."""


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Feed:
    """The newest batches of one log, contiguous, within `FEED_BYTES`; wakes its viewers."""

    def __init__(self, logs: LogStore, run: str) -> None:
        self._logs = logs
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._tail: Cursor | None = None
        self._anchored = False  # whether `_tail` and `_batches` are known to continue each other
        self._newest: Page | None = None  # the last batch, as nearly every viewer is given it
        self._before: Cursor | None = None  # what it continues
        self._version = 0
        self._waiting: dict[Viewer, None] = {}
        self._reads: dict[Cursor | None, asyncio.Task[Page]] = {}
        self._tasks = TaskSet()
        self._unwatch = logs.watch(run, self._notice)
        self.ended = False
        self.closed = False
        self.viewers = 0

    def page(self, after: Cursor | None) -> Page | None:
        """What stands behind `after`, as far as the feed has it and `after` is the end of a batch; an empty page at the
        log's end. None: the log must be read, or, `at_tail`, waited for."""
        if self._newest is not None and after == self._before:
            return self._newest
        if not self._anchored:
            return None
        if after == self._tail:
            return Page((), after, True, True) if self.ended else None
        batches = self._since(after)
        return Page(batches, self._tail, True, self.ended) if batches else None

    def _since(self, after: Cursor | None) -> tuple[Batch, ...]:
        if not self._batches:
            return ()
        if after is None:
            return tuple(self._batches) if self._batches[0].first == 1 else ()
        return self._search(after) if after.seq >= self._batches[0].first - 1 else ()

    def _search(self, after: Cursor) -> tuple[Batch, ...]:
        """From the newest on, for most are nearly there."""
        behind: list[Batch] = []
        before = self._batches[0]
        for batch in reversed(self._batches):
            if batch.first <= after.seq:
                before = batch
                break
            behind.append(batch)
        fits = before.last == after.seq or before.first == after.seq + 1
        return tuple(reversed(behind)) if fits and before.epoch == after.epoch else ()  # an epoch is a history

    def at_tail(self, after: Cursor | None) -> bool:
        """Whether a viewer at `after` has all there is; then `wait` tells of more."""
        return self._anchored and after == self._tail

    async def wait(self, viewer: Viewer) -> None:
        """Until something may have changed that was not delivered to `viewer`'s sink."""
        woken = viewer.woken = self._loop.create_future()
        self._waiting[viewer] = None
        try:
            await woken
        except asyncio.CancelledError:
            self._waiting.pop(viewer, None)
            raise

    async def read(self, after: Cursor | None) -> Page:
        """Read the log behind `after`, together with whoever else wants the same."""
        task = self._reads.get(after)
        if task is None or task.done():  # its outcome is of before: who took it, again and again, would never wait
            task = self._tasks.spawn(self._read(after), f"loom-feed {self._run}")
            self._reads[after] = task
            task.add_done_callback(lambda task: self._read_done(after, task))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self.closed and not _cancelling():  # it is the read that was cancelled, not its reader
                raise closed() from None
            raise

    def _read_done(self, after: Cursor | None, task: asyncio.Task[Page]) -> None:
        if self._reads.get(after) is task:
            del self._reads[after]
        if not task.cancelled():
            task.exception()  # seen: a viewer that has left meanwhile does not miss it

    async def _read(self, after: Cursor | None) -> Page:
        version = self._version
        page = await self._logs.read(self._run, after)
        if version == self._version:  # no notice in between: the page is the newest there is
            self._absorb(after, page)
        return page

    def _absorb(self, after: Cursor | None, page: Page) -> None:
        if not page.caught_up:
            return
        if not self._anchored or self._tail != after:
            self._forget()
        for batch in page.batches:
            self._keep(batch)
        self._anchored = True
        self._newest = None
        self._tail = page.cursor
        self.ended = page.ended

    def _keep(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._bytes += len(batch.payload)
        while self._bytes > FEED_BYTES and len(self._batches) > 1:
            self._bytes -= len(self._batches.popleft().payload)
        self._tail = Cursor(batch.epoch, batch.last)

    def _forget(self) -> None:
        self._batches.clear()
        self._bytes = 0
        self._lose_anchor()

    def _lose_anchor(self) -> None:
        self._anchored = False
        self._newest = None

    def _notice(self, notice: Notice) -> None:
        if notice.marks:
            return
        self._version += 1
        batch = notice.batch
        if batch is not None and self._continues(batch):
            self._before = self._tail
            self._keep(batch)
            self.ended = notice.ended
            self._newest = Page((batch,), self._tail, True, notice.ended)
            self._offer(self._newest)
            return
        if batch is None or self._is_news(batch):
            self._lose_anchor()
        self._wake()

    def _is_news(self, batch: Batch) -> bool:
        """Not so what is told late or again. A newer epoch is, whatever its seqs: they may come a second time."""
        return self._tail is None or batch.last > self._tail.seq or batch.epoch > self._tail.epoch

    def _continues(self, batch: Batch) -> bool:
        """An epoch's first batch is taken only from the log: after a failover another history may stand before it."""
        tail = self._tail
        if not self._anchored:
            return False
        if tail is None:
            return batch.first == 1
        return batch.first == tail.seq + 1 and batch.epoch == tail.epoch

    def _offer(self, page: Page) -> None:
        """Deliver `page` to the sinks that take it here and now, and wake the other viewers."""
        before, tail = self._before, self._tail
        waiting, self._waiting = self._waiting, {}
        for viewer in waiting:
            if viewer.woken.done():
                continue
            if (
                viewer.sink is not None
                and viewer.cursor == before
                and (viewer.limit_bytes is None or len(split(page, viewer.limit_bytes)) == 1)
                and viewer.sink.deliver(page)
            ):
                viewer.cursor = tail
                if not page.ended:
                    self._waiting[viewer] = None
                    continue
            viewer.woken.set_result(None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for viewer in waiting:
            if not viewer.woken.done():
                viewer.woken.set_result(None)

    async def aclose(self) -> None:
        self.closed = True
        self._lose_anchor()
        self._unwatch()
        self._wake()
        await self._tasks.aclose()


class Viewer:
    """One reader of one run, as its feed knows it.

    Waits out outages of the store. A run with `ahead` is told how far this viewer has come, if it is to `attach`: what
    it was given counts as read when it asks for more.
    """

    def __init__(
        self,
        hub: Hub,
        run: str,
        after: Cursor | None,
        *,
        attach: bool,
        sink: InlineSink | None,
        limit_bytes: int | None,
        wait: Wait | None,
    ) -> None:
        self._hub = hub
        self._wait = wait
        self._run = run
        self._attached = attach
        self.cursor = after
        self.sink = sink
        self.limit_bytes = limit_bytes
        self.woken: asyncio.Future[None]
        self._reader: Reader | None = None
        self._backoff = Backoff.of_store()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Non-empty pages from the cursor to the log's end."""
        feed = await self._attach()
        try:
            if self._reader is not None:
                await self._reader.read_through(self.cursor)
            while True:
                page = feed.page(self.cursor)
                if page is None:
                    if not feed.at_tail(self.cursor):
                        page = await self._read(feed)
                    elif self._wait is None:
                        await feed.wait(self)
                    else:
                        await self._wait(feed.wait(self))
                    if page is None:
                        continue
                for part in (page,) if self.limit_bytes is None else split(page, self.limit_bytes):
                    self.cursor = part.cursor
                    if part.batches:
                        yield part
                    if part.ended:
                        return
                    if self._reader is not None:
                        await self._reader.read_through(self.cursor)
        finally:
            await self._detach()

    async def _read(self, feed: Feed) -> Page | None:
        """A page from the log; None if there was nothing, or the store is out of reach."""
        if feed.closed:
            raise closed()
        try:
            page = await feed.read(self.cursor)
        except REPEATABLE:
            await self._backoff.pause()
            return None
        self._backoff.reset()
        return page if page.batches or page.ended else None

    async def _attach(self) -> Feed:
        if self._hub.closed:
            raise closed()
        head = await self._backoff.attempt(lambda: self._hub.runs.get(self._run, full=False))
        feed = self._hub.attach(self._run)
        if self._attached and head.meta.ahead is not None and not head.ended:
            self._reader = Reader(self._hub.logs.commit_position, self._run)
            self.sink = None  # a page delivered there would not count as read
        return feed

    async def _detach(self) -> None:
        self._hub.detach(self._run)
        if self._reader is not None:
            await self._reader.aclose()


class Hub:
    """The feeds of one process, by run."""

    def __init__(self, store: Store) -> None:
        self.logs = store.logs
        self.runs = store.runs
        self._feeds: dict[str, Feed] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._tasks = TaskSet()
        self.closed = False

    def __len__(self) -> int:
        return len(self._feeds)

    def follow(
        self,
        run: str,
        after: Cursor | None = None,
        *,
        attach: bool = True,
        sink: InlineSink | None = None,
        limit_bytes: int | None = None,
        wait: Wait | None = None,
    ) -> AsyncGenerator[Page, None]:
        """The pages of `run` behind `after`, to its end; no I/O until it is iterated. At the log's tail, `wait` awaits
        more."""
        return Viewer(self, run, after, attach=attach, sink=sink, limit_bytes=limit_bytes, wait=wait).pages()

    def attach(self, run: str) -> Feed:
        """The run's feed, with one viewer more. Raises `HandleClosed`."""
        if self.closed:
            raise closed()
        handle = self._lingering.pop(run, None)
        if handle is not None:
            handle.cancel()
        feed = self._feeds.get(run)
        if feed is None:
            feed = self._feeds[run] = Feed(self.logs, run)
        feed.viewers += 1
        return feed

    def detach(self, run: str) -> None:
        """One viewer less; the feed goes a little after its last."""
        feed = self._feeds.get(run)
        if feed is None:
            return
        feed.viewers -= 1
        if feed.viewers == 0:
            loop = asyncio.get_running_loop()
            self._lingering[run] = loop.call_later(FEED_LINGER, self._drop, run)

    def _drop(self, run: str) -> None:
        self._lingering.pop(run, None)
        self._tasks.spawn(self._feeds.pop(run).aclose(), f"loom-feed-close {run}")

    async def aclose(self) -> None:
        """Viewers that wait, or ask for more, get `HandleClosed`."""
        self.closed = True
        for handle in self._lingering.values():
            handle.cancel()
        self._lingering.clear()
        feeds, self._feeds = list(self._feeds.values()), {}
        for feed in feeds:
            self._tasks.spawn(feed.aclose(), "loom-feed-close")
        await self._tasks.wait_out()
