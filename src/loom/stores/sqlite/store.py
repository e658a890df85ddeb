"""The store itself: its calls go to a writing and a reading thread, outcomes and notices come back to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import Fenced, HandleClosed, UsageError
from loom.model.ports import Durability, Fence, Notice, Notify, Swept, Unwatch
from loom.model.run import Claim, Entry, Head, Mark, Meta, Place, RunState, WorkerInfo
from loom.stores.watchers import Watchers, pause

from . import claims, register, runs, sql, upkeep
from .calls import Call, Session
from .claims import Desk, Taken
from .lane import Lane
from .lender import Lender
from .news import QUEUE, News
from .place import Place as File
from .reader import Reader
from .upkeep import KEEP, Retention
from .writer import Append, Writer

__all__ = ["SqliteStore"]

T = TypeVar("T")


class SqliteStore:
    """Logs and a queue in the file `path`, which any number of processes of one machine may share.

    An acknowledged append survives a power cut (`durability="disk"`) or kill -9 (`"process"`: a power cut takes back
    the newest commits, and leaves the file sound). Changes by other processes are noticed within `limits.POLL`.
    Leases and delays are measured by `clock`, in monotonic seconds; stored times, and the age of ended runs, are of
    `wall`, in Unix seconds.

    Opening raises `UsageError` for what is no Loom store, a newer one's, or cannot be opened. Calls raise `Unavailable`
    when another process holds the write lock for `busy` seconds, or the file was deleted or replaced (noticed within
    `limits.PLACE`; it is never made anew), `StoreFull` when the disk is full, and `HandleClosed`
    before the store is opened and after it is closed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "disk",
        retention: Retention = KEEP,
        busy: float = limits.BUSY,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if durability not in ("disk", "process"):
            raise UsageError(f"durability: an SQLite file gives 'disk' or 'process', not {durability!r}")
        self.durability = durability
        self._retention = retention
        self._wall = wall
        self._watchers = Watchers()
        self._desk = Desk(clock, wall)
        self._untold: list[Claim] = []
        self._lender = Lender()
        self._begun = self._open = False
        place = File(os.fspath(path))
        writer = Writer(place, durability, busy, self._watched, self._written)
        self._writing = Lane("loom-sqlite-writer", writer)
        self._reading = Lane("loom-sqlite-reader", Reader(place, busy, self._was_read))

    async def __aenter__(self) -> Self:
        if self._begun:
            raise HandleClosed("a store object is opened once")
        self._begun = True
        self._loop = asyncio.get_running_loop()
        await self._writing.open()
        try:
            await self._reading.open()
        except BaseException:
            await self._writing.aclose()
            raise
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Waits for what was submitted; who waits for something to happen gets `HandleClosed`."""
        if not self._open:
            return
        for claim in self._untold:
            self._submit(partial(_give_back, claim=claim))
        self._open = False
        self._watchers.tell_all(Notice())
        try:
            await self._reading.aclose()
        finally:
            await self._writing.aclose()

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def create(self, meta: Meta) -> Head:
        return await self._write(partial(runs.create, meta=meta))

    async def head(self, run: str, *, full: bool = True) -> Head:
        return await self._read(partial(runs.head, run=run, full=full))

    async def heads(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        limit = min(max(limit, 1), limits.LIST_LIMIT)
        return await self._read(partial(runs.heads, limit=limit, before=before, state=state, actor=actor))

    async def fence(self, run: str, token: str, *, failures: int = 0) -> Fence:
        return await self._write(partial(runs.fence, run=run, token=token, failures=failures, now=self._wall()))

    async def end_unstarted(self, run: str, line: bytes) -> bool:
        return await self._write(partial(runs.end_unstarted, run=run, line=line, now=self._wall()))

    async def touch(self, run: str) -> None:
        await self._write(partial(runs.touch, run=run, now=self._wall()))

    async def drop(self, run: str) -> None:
        await self._write(partial(runs.drop, run=run))

    async def sweep(self) -> Swept:
        ended = await self._write(partial(_end_idle, now=self._wall()))
        requeued = await self._write(partial(upkeep.requeue, now=self._wall()))
        dropped = 0
        for _ in range(limits.SWEEP_RUNS // limits.DROP_RUNS):
            expired = await self._write(partial(upkeep.expire, retention=self._retention, now=self._wall()))
            dropped += expired
            if not expired:
                break
        dropped += await self._clear()
        await self._write(partial(upkeep.tidy, now=self._wall()))
        return Swept(requeued=requeued, dropped=dropped, ended=ended)

    async def _clear(self) -> int:
        """Make what was dropped free room, and drop more while the file is too large; returns how many runs."""
        dropped = 0
        for _ in range(limits.SWEEP_STEPS):
            if await self._write(upkeep.clear):
                continue
            if not await self._write(partial(upkeep.make_room, retention=self._retention)):
                break
            dropped += 1
        return dropped

    # --- logs --------------------------------------------------------------------------------------------------------

    async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
        if end:
            return await self._write(partial(runs.append, run=run, batch=batch, end=True, now=self._wall()))
        future: asyncio.Future[Cursor] = self._future()
        self._writing.submit(Append(future, run, batch))
        return await future

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        return False

    async def send(self, run: str, message: bytes, *, sender: str, id: str) -> Cursor:
        return await self._write(partial(runs.send, run=run, message=message, sender=sender, id=id))

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        look = partial(runs.read, log=log, after=after, limit=limit)
        page = await self._read(look)
        if page.batches or page.ended or wait <= 0:
            return page
        end = self._loop.time() + wait
        changed = asyncio.Event()
        unwatch = self.watch(log, lambda notice: None if notice.marks else changed.set())
        try:
            # Looked at once more, as it may have changed before it was watched.
            while True:
                page = await self._read(look)
                left = end - self._loop.time()
                if page.batches or page.ended or left <= 0:
                    return page
                await pause(changed, left)
        finally:
            unwatch()

    async def trim(self, run: str, before: int) -> int:
        return await self._write(partial(runs.trim, run=run, before=before))

    def watch(self, log: str, notify: Notify) -> Unwatch:
        if not self._watchers and self._open:
            self._writing.wake()
        return self._watchers.add(log, notify)

    # --- readers' marks ----------------------------------------------------------------------------------------------

    async def mark(self, run: str, reader: str, seq: int | None) -> None:
        await self._write(partial(runs.mark, run=run, reader=reader, seq=seq, now=self._wall()))

    async def marks(self, run: str) -> list[Mark]:
        return await self._read(partial(runs.marks, run=run, now=self._wall()))

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def put(self, meta: Meta) -> None:
        await self._write(partial(claims.put, meta=meta, now=self._wall()))

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, without: Collection[str] = ()
    ) -> Claim | None:
        if wait <= 0:
            return (await self._take(queues, worker, lease, without))[0]
        end = self._loop.time() + wait
        changed = asyncio.Event()
        unwatch = self.watch(QUEUE, lambda notice: changed.set())
        try:
            while True:
                claim, due = await self._take(queues, worker, lease, without)
                left = end - self._loop.time()
                if claim is not None or left <= 0:
                    return claim
                await pause(changed, min(left, limits.OBSERVE if due is None else min(due, limits.OBSERVE)))
        finally:
            unwatch()

    async def seize(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        return await self._write(partial(claims.seize, meta=meta, worker=worker, lease=lease))

    async def renew(self, claim: Claim) -> None:
        if not all(await self.renew_all([claim])):
            raise claims.lost(claim)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        return await self._write(partial(self._desk.renew, claims=claims))

    async def ack(self, claim: Claim) -> None:
        await self._write(partial(claims.ack, claim=claim))

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        await self._write(partial(claims.release, claim=claim, delay=delay))

    async def entries(self, *, queue: str | None = None, place: Place | None = None, limit: int = 100) -> list[Entry]:
        limit = min(max(limit, 1), limits.LIST_LIMIT)
        return await self._read(partial(claims.entries, queue=queue, place=place, limit=limit))

    # --- workers -----------------------------------------------------------------------------------------------------

    async def attend(self, info: WorkerInfo) -> bool:
        return await self._write(partial(register.attend, info=info, now=self._wall()))

    async def dismiss(self, worker: str) -> None:
        await self._write(partial(register.dismiss, worker=worker))

    async def workers(self) -> list[WorkerInfo]:
        return await self._read(partial(register.workers, now=self._wall()))

    async def ask_to_drain(self, worker: str) -> None:
        await self._write(partial(register.ask_to_drain, worker=worker, now=self._wall()))

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _take(self, queues: Sequence[str], worker: str, lease: float, without: Collection[str]) -> Taken:
        """One look. A claim that its caller was cancelled before he had it is the same worker's again, or lapses."""
        kept = await self._kept(queues, worker, without)
        if kept is not None:
            return kept, None
        future = self._submit(partial(self._desk.claim, queues=queues, worker=worker, lease=lease, without=without))
        try:
            taken = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._keep)
            raise
        if taken[0] is None and (kept := await self._kept(queues, worker, without)) is not None:
            return kept, None
        return taken

    def _keep(self, future: asyncio.Future[Taken]) -> None:
        if not future.cancelled() and future.exception() is None and (claim := future.result()[0]) is not None:
            self._untold.append(claim)

    async def _kept(self, queues: Sequence[str], worker: str, without: Collection[str]) -> Claim | None:
        """A claim that this worker holds and was not told of."""
        for claim in self._untold:
            if claim.worker == worker and claim.meta.queue in queues and claim.meta.actor not in without:
                break
        else:
            return None
        self._untold.remove(claim)
        try:
            await self.renew(claim)
        except Fenced:
            return await self._kept(queues, worker, without)
        except BaseException:
            self._untold.append(claim)
            raise
        return claim

    # --- to the threads and back -------------------------------------------------------------------------------------

    def _future(self) -> asyncio.Future[Any]:
        if not self._open:
            raise HandleClosed("this store is not open")
        self._lender.begin()
        return self._loop.create_future()

    def _submit(self, act: Callable[[Session], T]) -> asyncio.Future[T]:
        future = self._future()
        self._writing.submit(Call(future, act))
        return future

    async def _write(self, act: Callable[[Session], T]) -> T:
        return await self._submit(act)

    async def _read(self, act: Callable[[Session], T]) -> T:
        future: asyncio.Future[T] = self._future()
        self._reading.submit(Call(future, act))
        return await future

    def _watched(self) -> bool:
        """Asked by the writing thread, too."""
        return bool(self._watchers)

    def _written(self, calls: Sequence[Call], news: News | None) -> None:
        """In the writing thread."""
        self._writing.post(self._deliver, calls, news)

    def _was_read(self, calls: Sequence[Call]) -> None:
        """In the reading thread."""
        self._reading.post(self._settle, calls)

    def _deliver(self, calls: Sequence[Call], news: News | None) -> None:
        """Watchers are told before the writer goes on: `append` has told everybody when it returns."""
        try:
            if self._watchers:
                self._tell(calls, news)
        finally:
            self._settle(calls)

    def _settle(self, calls: Sequence[Call]) -> None:
        self._lender.end(len(calls))
        for call in calls:
            call.settle()

    def _tell(self, calls: Sequence[Call], news: News | None) -> None:
        for call in calls:
            for log, notice in call.told:
                self._watchers.tell(log, notice)
        if news is None:
            self._watchers.tell_all(Notice())
            self._watchers.tell_all(Notice(marks=True))
            return
        for topic, notice in news:
            self._watchers.tell(topic, notice)


def _end_idle(session: Session, now: float) -> int:
    orphans = session.all(sql.STARTED_ORPHANS, limits.SWEEP_RUNS)
    return sum([runs.end_idle(session, run, now) for (run,) in orphans])


def _give_back(session: Session, claim: Claim) -> None:
    with contextlib.suppress(Fenced):
        claims.release(session, claim, delay=0.0)
