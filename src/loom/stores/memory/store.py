"""The memory store: logs and a queue in this process, gone with it. The fastest store, and the reference of the others.

No call suspends, but to wait: `append` has told every watcher when it returns.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Self

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import Fenced, LogEnded, LogNotFound, StoreFull
from loom.model.history import check_repeat, next_epoch
from loom.model.ports import Durability, Fence, Notice, Notify, Swept, Unwatch
from loom.model.run import Claim, Entry, Head, Mark, Meta, Place, RunState, WorkerInfo, inbox_of, run_of
from loom.stores.inbox import check_room
from loom.stores.orphans import ending_batch, is_idle
from loom.stores.positions import beat_after, is_forgotten, too_many_readers
from loom.stores.watchers import Watchers

from .queue import Queue
from .register import Register
from .runs import BATCH_BYTES, RUN_BYTES, ByAge, Log, Run, size_of

__all__ = ["MemoryStore"]


class MemoryStore:
    """Logs and a queue in this process, on one event loop. An acknowledged append survives nothing but calls.

    Ended runs are dropped `retention` seconds after their end (None: never; a run's own comes first), by `sweep`. With
    `max_bytes` of payload stored the oldest ended runs go before their time; when there are none, adding raises
    `StoreFull`.
    """

    durability: Durability = "memory"

    def __init__(
        self,
        *,
        retention: float | None = limits.RETENTION,
        max_bytes: int = limits.MEMORY_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._retention = retention
        self._max_bytes = max_bytes
        self._bytes = 0
        self._clock = clock
        self._wall = wall
        self._runs: dict[str, Run] = {}
        self._outboxes: dict[str, Log] = {}
        self._inboxes: dict[str, Log] = {}
        self._by_age = ByAge()
        self._spent: dict[str, Run] = {}  # ended, and no longer in the queue; the oldest first
        self._due: list[tuple[float, int, Run]] = []  # a heap: when a spent run's retention is over, its number
        self._unqueued: dict[str, Meta] = {}
        self._watchers = Watchers()
        self._queue = Queue(clock, wall)
        self._register = Register(wall)
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def create(self, meta: Meta) -> Head:
        run = self._runs.get(meta.run)
        if run is None:
            self._take_bytes(RUN_BYTES + len(bytes(meta.input)))
            run = Run(meta, next(self._numbers))
            self._runs[meta.run] = run
            self._outboxes[meta.run] = run.outbox
            self._inboxes[inbox_of(meta.run)] = run.inbox
            self._by_age.add(run)
            if meta.run not in self._queue:
                self._unqueued[meta.run] = meta
            self._watchers.tell(meta.run, Notice())
        return run.head()

    async def head(self, run: str, *, full: bool = True) -> Head:
        return self._run(run).head(full=full)

    async def heads(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        wanted = (
            run
            for run in self._by_age.newest_first(None if before is None else self._run(before))
            if (state is None or run.state == state) and (actor is None or run.meta.actor == actor)
        )
        return [run.head(full=False) for run in itertools.islice(wanted, min(max(limit, 1), limits.LIST_LIMIT))]

    async def fence(self, run: str, token: str, *, failures: int = 0) -> Fence:
        known = self._run(run)
        log = known.outbox
        drawn = known.tokens.get(token)
        if drawn is not None and drawn != log.epoch:
            raise Fenced("a newer writer has taken over")
        if drawn is None and not log.ended:
            log.begin(next_epoch(log.epochs, secrets.randbelow(EPOCH_DIGITS)))
            known.tokens[token] = log.epoch
            known.started = known.started or time.time()
        known.failures = max(known.failures, failures)
        size = log.size - len(log.batches) * BATCH_BYTES
        return Fence(log.epoch, log.tail, log.ended, size, known.failures)

    async def end_unstarted(self, run: str, line: bytes) -> bool:
        known = self._run(run)
        log = known.outbox
        if log.ended or known.tokens:
            return not known.tokens
        epoch = make_epoch(0, secrets.randbelow(EPOCH_DIGITS))
        log.begin(epoch)
        await self.append(run, Batch(epoch, 1, 1, line + b"\n"), end=True)
        self._queue.drop_later(run)
        self._left_queue(known)
        return True

    async def touch(self, run: str) -> None:
        known = self._run(run)
        if not known.outbox.ended:
            known.beat += 1
            known.heard = self._wall()

    async def drop(self, run: str) -> None:
        self._queue.drop(run)
        if run in self._runs:
            self._forget(self._runs[run])

    async def sweep(self) -> Swept:
        orphans = list(itertools.islice(self._unqueued.values(), limits.SWEEP_RUNS))
        ended = sum([self._end_idle(self._runs[meta.run]) for meta in orphans])
        for meta in orphans:
            if meta.run in self._unqueued:
                await self.put(meta)
        return Swept(requeued=len(orphans) - ended, dropped=self._drop_aged(), ended=ended)

    def _end_idle(self, run: Run) -> bool:
        """End an orphan in which nothing has happened for too long; whether it was one."""
        log, now = run.outbox, self._wall()
        if not is_idle(log.last, now):
            return False
        log.begin(next_epoch(log.epochs, secrets.randbelow(EPOCH_DIGITS)))
        self.append_nowait(run.meta.run, ending_batch(log.epoch, log.tail, now), end=True)
        return True

    def _drop_aged(self) -> int:
        """Drop ended runs whose retention has passed; returns how many."""
        now, dropped = self._clock(), 0
        while self._due and self._due[0][0] <= now and dropped < limits.SWEEP_RUNS:
            run = heapq.heappop(self._due)[-1]
            if self._spent.get(run.meta.run) is run:  # else it was dropped before its time, or is queued again
                self._forget(run)
                dropped += 1
        return dropped

    # --- logs --------------------------------------------------------------------------------------------------------

    async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
        self.append_nowait(run, batch, end=end)
        return batch.cursor

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        log = self._outboxes.get(run)
        if log is None:
            raise _no_run(run)
        # The one hot path: `history.continues` and `_add` written out, in a third less time.
        if batch.epoch != log.epoch or batch.first != log.tail + 1 or log.ended:
            check_repeat(batch, end=end, epoch=log.epoch, ended=log.ended, last=log.last)
            return True
        size = len(batch.payload) + BATCH_BYTES
        if self._bytes + size > self._max_bytes:
            self._make_room(size)
        self._bytes += size
        log.size += size
        log.batches.append(batch)
        log.tail = batch.last
        if end:
            self._end(self._runs[run], batch)
        watching = self._watchers.get(run)
        if watching is not None:
            notice = Notice(batch, end)
            for notify in list(watching.values()):
                notify(notice)
        return True

    async def send(self, run: str, message: bytes, *, sender: str, id: str) -> Cursor:
        known = self._run(run)
        sent = known.sent.get((sender, id))
        if sent is not None:
            return sent
        log = known.inbox
        if log.ended:
            raise LogEnded("the run has ended: nothing reads its inbox")
        check_room(message, sender, messages=log.tail, size=log.size - log.tail * BATCH_BYTES)
        batch = Batch(log.epoch, log.tail + 1, log.tail + 1, message + b"\n")
        self._add(log, batch)
        known.sent[sender, id] = batch.cursor
        self._watchers.tell(inbox_of(run), Notice(batch))
        return batch.cursor

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        page = self._page(log, after, limit)
        if page.batches or page.ended or wait <= 0:
            return page
        changed = asyncio.Event()
        unwatch = self.watch(log, lambda notice: None if notice.marks else changed.set())
        try:
            async with asyncio.timeout(wait):
                while not page.batches and not page.ended:
                    await changed.wait()
                    changed.clear()
                    page = self._page(log, after, limit)
        except TimeoutError:
            page = self._page(log, after, limit)
        finally:
            unwatch()
        return page

    async def trim(self, run: str, before: int) -> int:
        log = self._run(run).outbox
        self._bytes -= log.trim(before)
        return log.first

    def watch(self, log: str, notify: Notify) -> Unwatch:
        return self._watchers.add(log, notify)

    # --- readers' marks ----------------------------------------------------------------------------------------------

    async def mark(self, run: str, reader: str, seq: int | None) -> None:
        marks = self._run(run).marks
        if seq is None:
            marks.pop(reader, None)
        else:
            now, before = self._clock(), marks.get(reader)
            if before is None:
                self._admit_reader(run, now)
            marks[reader] = Mark(reader, seq, beat_after(None if before is None else before.beat, now))
        self._watchers.tell(run, Notice(marks=True))

    async def marks(self, run: str) -> list[Mark]:
        now = self._clock()
        return [mark for mark in self._run(run).marks.values() if not is_forgotten(mark.beat, now)]

    def _admit_reader(self, run: str, now: float) -> None:
        """Clears away the marks of forgotten readers when their place is needed."""
        marks = self._run(run).marks
        if len(marks) >= limits.READERS:
            for silent in [mark.reader for mark in marks.values() if is_forgotten(mark.beat, now)]:
                del marks[silent]
        if len(marks) >= limits.READERS:
            raise too_many_readers(run)

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def put(self, meta: Meta) -> None:
        self._entered_queue(meta.run)
        self._queue.put(meta)

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, without: Collection[str] = ()
    ) -> Claim | None:
        return await self._queue.claim(queues, worker, lease, wait, without)

    async def seize(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        claim = self._queue.seize(meta, worker, lease)
        self._entered_queue(meta.run)
        return claim

    async def renew(self, claim: Claim) -> None:
        self._queue.renew(claim)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        return [self._queue.renew_held(claim) for claim in claims]

    async def ack(self, claim: Claim) -> None:
        self._queue.ack(claim)
        run = self._runs.get(claim.run)
        if run is None:
            return
        if run.outbox.ended:
            self._left_queue(run)
        elif claim.run not in self._queue:
            self._unqueued[claim.run] = run.meta

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        self._queue.release(claim, delay)

    async def entries(self, *, queue: str | None = None, place: Place | None = None, limit: int = 100) -> list[Entry]:
        return self._queue.entries(queue, place, limit)

    # --- workers -----------------------------------------------------------------------------------------------------

    async def attend(self, info: WorkerInfo) -> bool:
        return self._register.attend(info)

    async def dismiss(self, worker: str) -> None:
        self._register.dismiss(worker)

    async def workers(self) -> list[WorkerInfo]:
        return self._register.workers()

    async def ask_to_drain(self, worker: str) -> None:
        self._register.ask_to_drain(worker)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _run(self, run: str) -> Run:
        known = self._runs.get(run)
        if known is None:
            raise _no_run(run)
        return known

    def _page(self, name: str, after: Cursor | None, limit: int) -> Page:
        log = self._outboxes.get(name) or self._inboxes.get(name)
        if log is None:
            raise _no_run(name)
        return log.page(after, limit)

    def _end(self, run: Run, batch: Batch) -> None:
        run.end(batch)
        retention = run.meta.kept_for(self._retention)
        run.expires = inf if retention is None else self._clock() + retention
        self._left_queue(run)
        self._unqueued.pop(run.meta.run, None)
        self._watchers.tell(inbox_of(run.meta.run), Notice(ended=True))

    def _entered_queue(self, name: str) -> None:
        """Keeps what is queued from being dropped: a claim of it would begin it anew."""
        self._unqueued.pop(name, None)
        self._spent.pop(name, None)

    def _left_queue(self, run: Run) -> None:
        """It has ended, and may be dropped unless it is queued still."""
        name = run.meta.run
        if name in self._queue or name in self._spent:
            return
        self._spent[name] = run
        if run.expires < inf:
            heapq.heappush(self._due, (run.expires, run.number, run))
            self._tidy_due()

    def _tidy_due(self) -> None:
        """Of those that are dropped before their time nothing stays."""
        if len(self._due) > 2 * len(self._spent) + limits.SWEEP_RUNS:
            self._due = [(run.expires, run.number, run) for run in self._spent.values() if run.expires < inf]
            heapq.heapify(self._due)

    def _add(self, log: Log, batch: Batch) -> None:
        size = size_of(batch)
        self._take_bytes(size)
        log.size += size
        log.batches.append(batch)
        log.tail = batch.last

    def _take_bytes(self, size: int) -> None:
        if self._bytes + size > self._max_bytes:
            self._make_room(size)
        self._bytes += size

    def _make_room(self, size: int) -> None:
        """Drop ended runs, the oldest first, until `size` more bytes fit. Raises `StoreFull`."""
        while self._bytes + size > self._max_bytes:
            oldest = next(iter(self._spent.values()), None)
            if oldest is None:
                raise StoreFull(f"{self._bytes} of {self._max_bytes} bytes are held by runs that have not ended")
            self._forget(oldest)

    def _forget(self, run: Run) -> None:
        name = run.meta.run
        del self._runs[name], self._outboxes[name], self._inboxes[inbox_of(name)]
        self._by_age.remove(run)
        if self._spent.pop(name, None) is not None:
            self._tidy_due()
        self._unqueued.pop(name, None)
        self._bytes -= run.size
        self._watchers.tell(name, Notice())
        self._watchers.tell(inbox_of(name), Notice())


def _no_run(name: str) -> LogNotFound:
    return LogNotFound(f"there is no run {run_of(name)!r}")
