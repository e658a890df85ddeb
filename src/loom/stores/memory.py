"""The memory store: logs and a queue in this process, gone with it. The fastest store, and the reference of the others.

No call suspends, but to wait: `append` has told every watcher when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import secrets
import time
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from math import inf
from operator import attrgetter
from typing import Self

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import ErrorInfo, Fenced, LimitExceeded, LogEnded, LogNotFound, StoreFull
from loom.model.history import add_epoch, check_repeat, newest, next_epoch, page_of, start_after
from loom.model.ports import Durability, Fence, Notice, Notify, Swept, Unwatch
from loom.model.run import Claim, Head, Mark, Meta, RunState, inbox_of, run_of, state_of
from loom.wire.json import check_size, ending_of

__all__ = ["MemoryStore"]

_RUN_BYTES = 2048
_BATCH_BYTES = 160
"""What a run and a batch cost besides their payload, about: objects, list slots, table entries."""

_cursor = tuple.__new__  # what `Cursor(…)` does, without its wrapper
_last = attrgetter("last")
_number = attrgetter("number")


class MemoryStore:
    """Logs and a queue in this process, on one event loop. An acknowledged append survives nothing but calls.

    Ended runs are dropped `retention` seconds after their end (None: never), by `sweep`. With `max_bytes` of
    payload stored the oldest ended runs go before their time; when there are none, adding raises `StoreFull`.
    """

    durability: Durability = "memory"

    def __init__(
        self,
        *,
        retention: float | None = limits.RETENTION,
        max_bytes: int = limits.MEMORY_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retention = inf if retention is None else retention
        self._max_bytes = max_bytes
        self._bytes = 0
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._outboxes: dict[str, _Log] = {}
        self._inboxes: dict[str, _Log] = {}
        self._by_age: list[_Run] = []
        self._ended: OrderedDict[str, _Run] = OrderedDict()
        self._unqueued: dict[str, Meta] = {}
        self._watchers: dict[str, tuple[Notify, ...]] = {}
        self._queue = _Queue(clock)
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def create(self, meta: Meta) -> Head:
        run = self._runs.get(meta.run)
        if run is None:
            self._take_bytes(_RUN_BYTES + len(bytes(meta.input)))
            run = _Run(meta, next(self._numbers))
            self._runs[meta.run] = run
            self._outboxes[meta.run] = run.outbox
            self._inboxes[inbox_of(meta.run)] = run.inbox
            self._by_age.append(run)
            if meta.run not in self._queue:
                self._unqueued[meta.run] = meta
            self._tell(meta.run, Notice())
        return run.head()

    async def head(self, run: str) -> Head:
        return self._run(run).head()

    async def heads(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        end = len(self._by_age) if before is None else self._place(self._run(before))
        wanted = (
            run
            for run in map(self._by_age.__getitem__, range(end - 1, -1, -1))
            if (state is None or run.state == state) and (actor is None or run.meta.actor == actor)
        )
        return [run.head(full=False) for run in itertools.islice(wanted, min(max(limit, 1), limits.LIST_LIMIT))]

    async def fence(self, run: str, token: str) -> Fence:
        known = self._run(run)
        log = known.outbox
        drawn = known.tokens.get(token)
        if drawn is not None and drawn != log.epoch:
            raise Fenced("a newer writer has taken over")
        if drawn is None and not log.ended:
            log.begin(next_epoch(log.epochs, secrets.randbelow(EPOCH_DIGITS)))
            known.tokens[token] = log.epoch
            known.started = known.started or time.time()
        return Fence(log.epoch, log.tail, log.ended)

    async def end_unstarted(self, run: str, line: bytes) -> bool:
        known = self._run(run)
        log = known.outbox
        if log.ended or known.tokens:
            return not known.tokens
        epoch = make_epoch(0, secrets.randbelow(EPOCH_DIGITS))
        log.begin(epoch)
        await self.append(run, Batch(epoch, 1, 1, line + b"\n"), end=True)
        return True

    async def touch(self, run: str) -> None:
        known = self._run(run)
        if not known.outbox.ended:
            known.beat += 1

    async def drop(self, run: str) -> None:
        self._queue.drop(run)
        if run in self._runs:
            self._forget(self._runs[run])

    async def sweep(self) -> Swept:
        runs = list(itertools.islice(self._unqueued.values(), limits.SWEEP_RUNS))
        for meta in runs:
            await self.put(meta)
        before = self._clock() - self._retention
        dropped = 0
        for run in list(itertools.islice(self._ended.values(), limits.SWEEP_RUNS)):
            if run.kept_since > before:
                break
            dropped += self._expire(run)
        return Swept(requeued=len(runs), dropped=dropped)

    # --- logs --------------------------------------------------------------------------------------------------------

    async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
        log = self._outboxes.get(run)
        if log is None:
            raise _no_run(run)
        # The one hot path: `history.continues` and `_add` written out, for a third of the time.
        if batch.epoch != log.epoch or batch.first != log.tail + 1 or log.ended:
            check_repeat(batch, end=end, epoch=log.epoch, ended=log.ended, last=log.last)
            return batch.cursor
        size = len(batch.payload) + _BATCH_BYTES
        if self._bytes + size > self._max_bytes:
            self._make_room(size)
        self._bytes += size
        log.size += size
        log.batches.append(batch)
        log.tail = batch.last
        if end:
            self._end(self._runs[run], batch)
        watchers = self._watchers.get(run)
        if watchers is not None:
            notice = Notice(batch, end)
            for notify in watchers:
                notify(notice)
        return _cursor(Cursor, (batch.epoch, batch.last))

    async def send(self, run: str, message: bytes, *, sender: str, id: str) -> Cursor:
        known = self._run(run)
        sent = known.sent.get((sender, id))
        if sent is not None:
            return sent
        log = known.inbox
        if log.ended:
            raise LogEnded("the run has ended: nothing reads its inbox")
        check_size(message, limits.MESSAGE_BYTES, "a message")
        if log.tail >= limits.INBOX_MESSAGES:
            raise LimitExceeded(f"the inbox is full: {log.tail} messages")
        batch = Batch(log.epoch, log.tail + 1, log.tail + 1, message + b"\n")
        self._add(log, batch)
        known.sent[sender, id] = batch.cursor
        self._tell(inbox_of(run), Notice(batch))
        return batch.cursor

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        page = self._page(log, after, limit)
        if page.batches or page.ended or wait <= 0:
            return page
        changed = asyncio.Event()
        unwatch = self.watch(log, lambda notice: changed.set())
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
        # Tuples, replaced as a whole: whoever is being told may watch and unwatch.
        self._watchers[log] = (*self._watchers.get(log, ()), notify)
        watching = True

        def unwatch() -> None:
            nonlocal watching
            if not watching:
                return
            watching = False
            others = list(self._watchers[log])
            others.remove(notify)
            if others:
                self._watchers[log] = tuple(others)
            else:
                del self._watchers[log]

        return unwatch

    # --- readers' marks ----------------------------------------------------------------------------------------------

    async def mark(self, run: str, reader: str, seq: int | None) -> None:
        marks = self._run(run).marks
        if seq is None:
            marks.pop(reader, None)
        else:
            before = marks.get(reader)
            marks[reader] = Mark(reader, seq, before.beat + 1 if before else 1)
        self._tell(run, Notice(marks=True))

    async def marks(self, run: str) -> list[Mark]:
        return list(self._run(run).marks.values())

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def put(self, meta: Meta) -> None:
        self._unqueued.pop(meta.run, None)
        self._queue.put(meta)

    async def claim(self, queues: Sequence[str], worker: str, *, lease: float, wait: float) -> Claim | None:
        return await self._queue.claim(queues, worker, lease, wait)

    async def renew(self, claim: Claim) -> None:
        self._queue.renew(claim)

    async def ack(self, claim: Claim) -> None:
        self._queue.ack(claim)
        run = self._runs.get(claim.run)
        if run is not None and not run.outbox.ended and claim.run not in self._queue:
            self._unqueued[claim.run] = run.meta

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        self._queue.release(claim, delay)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _run(self, run: str) -> _Run:
        known = self._runs.get(run)
        if known is None:
            raise _no_run(run)
        return known

    def _place(self, run: _Run) -> int:
        return bisect_left(self._by_age, run.number, key=_number)

    def _page(self, name: str, after: Cursor | None, limit: int) -> Page:
        log = self._outboxes.get(name) or self._inboxes.get(name)
        if log is None:
            raise _no_run(name)
        return log.page(after, limit)

    def _tell(self, log: str, notice: Notice) -> None:
        for notify in self._watchers.get(log, ()):
            notify(notice)

    def _end(self, run: _Run, batch: Batch) -> None:
        run.end(batch, self._clock())
        self._ended[run.meta.run] = run
        self._unqueued.pop(run.meta.run, None)
        self._tell(inbox_of(run.meta.run), Notice(ended=True))

    def _add(self, log: _Log, batch: Batch) -> None:
        size = _size(batch)
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
        for run in list(self._ended.values()):
            self._expire(run)
            if self._bytes + size <= self._max_bytes:
                return
        raise StoreFull(f"{self._bytes} of {self._max_bytes} bytes are held by runs that have not ended")

    def _expire(self, run: _Run) -> bool:
        """Drop an ended run, unless its claim was not acknowledged yet."""
        if run.meta.run in self._queue:
            return False
        self._forget(run)
        return True

    def _forget(self, run: _Run) -> None:
        name = run.meta.run
        del self._runs[name], self._outboxes[name], self._inboxes[inbox_of(name)]
        del self._by_age[self._place(run)]
        self._ended.pop(name, None)
        self._unqueued.pop(name, None)
        self._bytes -= run.size
        self._tell(name, Notice())
        self._tell(inbox_of(name), Notice())


def _no_run(name: str) -> LogNotFound:
    return LogNotFound(f"there is no run {run_of(name)!r}")


def _size(batch: Batch) -> int:
    return len(batch.payload) + _BATCH_BYTES


class _Log:
    """Batches and the facts about them."""

    __slots__ = ("batches", "ended", "epoch", "epochs", "first", "size", "tail")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.epochs: tuple[tuple[int, int], ...] = ()
        self.epoch = newest(self.epochs)
        self.first = 1
        self.tail = 0
        self.size = 0
        self.ended = False

    def begin(self, epoch: int) -> None:
        self.epochs = add_epoch(self.epochs, epoch, self.tail)
        self.epoch = epoch

    @property
    def last(self) -> Batch | None:
        return self.batches[-1] if self.batches else None

    def page(self, after: Cursor | None, limit: int) -> Page:
        start = start_after(after, epochs=self.epochs, first=self.first, tail=self.tail)
        index = bisect_left(self.batches, start, key=_last)
        batches = self.batches[index : index + max(limit, 1)]
        return page_of(batches, start, after=after, tail=self.tail, ended=self.ended, limit=limit)

    def trim(self, before: int) -> int:
        """Forget whole batches below seq `before`, never the last one; returns the bytes that this frees."""
        index = min(bisect_left(self.batches, before, key=_last), len(self.batches) - 1)
        if index <= 0:
            return 0
        freed = sum(map(_size, self.batches[:index]))
        del self.batches[:index]
        self.first = self.batches[0].first
        self.size -= freed
        return freed


class _Run:
    """One run's two logs, and what its head tells besides."""

    __slots__ = (
        "beat", "ended_at", "error", "inbox", "kept_since", "marks", "meta", "number", "outbox", "sent", "started",
        "tokens",
    )  # fmt: skip

    def __init__(self, meta: Meta, number: int) -> None:
        self.meta = meta
        self.number = number
        self.outbox = _Log()
        self.inbox = _Log()
        self.inbox.begin(make_epoch(1, secrets.randbelow(EPOCH_DIGITS)))
        self.tokens: dict[str, int] = {}
        self.sent: dict[tuple[str, str], Cursor] = {}
        self.marks: dict[str, Mark] = {}
        self.beat = 0
        self.started: float | None = None
        self.ended_at: float | None = None
        self.kept_since = inf
        self.error: ErrorInfo | None = None

    @property
    def state(self) -> RunState:
        return state_of(attempted=bool(self.tokens), error=self.error, ended=self.outbox.ended)

    @property
    def size(self) -> int:
        return _RUN_BYTES + len(bytes(self.meta.input)) + self.outbox.size + self.inbox.size

    def end(self, batch: Batch, now: float) -> None:
        self.error, _ = ending_of(batch)
        self.outbox.ended = self.inbox.ended = True
        self.ended_at = time.time()
        self.kept_since = now

    def head(self, *, full: bool = True) -> Head:
        log = self.outbox
        # The last batch is never trimmed, so the result need not be kept twice.
        result = ending_of(log.batches[-1])[1] if full and log.ended else None
        return Head(
            meta=self.meta,
            epochs=log.epochs,
            first=log.first,
            tail=log.tail,
            ended=log.ended,
            state=self.state,
            error=self.error,
            result=result,
            started=self.started,
            ended_at=self.ended_at,
            beat=self.beat,
        )


class _Place(Enum):
    """Where an entry of the queue is."""

    BEHIND = "behind an earlier entry of its key"
    READY = "ready"
    DELAYED = "delayed"
    CLAIMED = "claimed"
    GONE = "gone"


class _Entry:
    """A run in the queue."""

    __slots__ = ("claim", "crashes", "due", "lease", "meta", "number", "place", "timer")

    def __init__(self, meta: Meta, number: int) -> None:
        self.meta = meta
        self.number = number
        self.place = _Place.BEHIND
        self.claim: Claim | None = None
        self.crashes = 0
        self.lease = 0.0
        self.due = inf
        """When its delay, or its claim's lease, is over."""
        self.timer = inf
        """When the queue looks at it next."""


class _Queue:
    """Entries in the order they were put; of one actor's key only the first may be ready."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[tuple[str, str], deque[_Entry]] = {}
        self._ready: dict[str, list[tuple[int, _Entry]]] = {}
        self._timers: list[tuple[float, int, _Entry]] = []
        self._count = itertools.count(1)
        self._waiting: set[asyncio.Event] = set()

    def __contains__(self, run: str) -> bool:
        return run in self._entries

    def put(self, meta: Meta) -> None:
        if meta.run in self._entries:
            return
        entry = self._entries[meta.run] = _Entry(meta, next(self._count))
        if meta.key is not None:
            line = self._keys.setdefault((meta.actor, meta.key), deque())
            line.append(entry)
            if line[0] is not entry:
                return
        self._make_ready(entry)

    async def claim(self, queues: Sequence[str], worker: str, lease: float, wait: float) -> Claim | None:
        claim = self._take(queues, worker, lease)
        if claim is not None or wait <= 0:
            return claim
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while claim is None and (left := end - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, self._until_due())):
                        await changed.wait()
                changed.clear()
                claim = self._take(queues, worker, lease)
        finally:
            self._waiting.discard(changed)
        return claim

    def renew(self, claim: Claim) -> None:
        entry = self._held(claim)
        self._set_due(entry, self._clock() + entry.lease)

    def ack(self, claim: Claim) -> None:
        if claim.run in self._entries:
            self._held(claim)
            self.drop(claim.run)

    def release(self, claim: Claim, delay: float) -> None:
        entry = self._held(claim)
        entry.claim = None
        if delay > 0:
            entry.place = _Place.DELAYED
            self._set_due(entry, self._clock() + delay)
        else:
            self._make_ready(entry)

    def drop(self, run: str) -> None:
        entry = self._entries.pop(run, None)
        if entry is None:
            return
        entry.place = _Place.GONE
        if entry.meta.key is not None:
            self._leave_line((entry.meta.actor, entry.meta.key), entry)

    def _leave_line(self, key: tuple[str, str], entry: _Entry) -> None:
        line = self._keys[key]
        line.remove(entry)
        if not line:
            del self._keys[key]
        elif line[0].place is _Place.BEHIND:
            self._make_ready(line[0])

    def _held(self, claim: Claim) -> _Entry:
        entry = self._entries.get(claim.run)
        if entry is None or entry.claim is None:
            raise Fenced(f"run {claim.run!r} is no longer claimed")
        if (entry.claim.number, entry.claim.worker) != (claim.number, claim.worker):
            raise Fenced(f"run {claim.run!r} is claimed by another: {entry.claim.worker!r}")
        return entry

    def _make_ready(self, entry: _Entry) -> None:
        entry.place = _Place.READY
        entry.due = inf
        heapq.heappush(self._ready.setdefault(entry.meta.queue, []), (entry.number, entry))
        for changed in self._waiting:
            changed.set()

    def _take(self, queues: Sequence[str], worker: str, lease: float) -> Claim | None:
        now = self._clock()
        self._turn(now)
        entry = self._oldest(queues)
        if entry is None:
            return None
        heapq.heappop(self._ready[entry.meta.queue])
        # Numbers are drawn from the store's one count: also of a run that comes again they only grow.
        claim = Claim(meta=entry.meta, worker=worker, number=next(self._count), crashes=entry.crashes)
        entry.place = _Place.CLAIMED
        entry.claim = claim
        entry.lease = lease
        self._set_due(entry, now + lease)
        return claim

    def _oldest(self, queues: Sequence[str]) -> _Entry | None:
        """The entry that was put first of those ready in `queues`."""
        found: _Entry | None = None
        for name in queues:
            ready = self._ready.get(name)
            while ready and ready[0][1].place is not _Place.READY:  # dropped meanwhile
                heapq.heappop(ready)
            if ready and (found is None or ready[0][0] < found.number):
                found = ready[0][1]
        return found

    def _set_due(self, entry: _Entry, due: float) -> None:
        entry.due = due
        if due < entry.timer:
            entry.timer = due
            heapq.heappush(self._timers, (due, next(self._count), entry))

    def _turn(self, now: float) -> None:
        """Make ready what is due: delays that are over, claims whose lease lapsed."""
        while self._timers and self._timers[0][0] <= now:
            entry = heapq.heappop(self._timers)[-1]
            entry.timer = inf
            if entry.due > now:  # renewed meanwhile, or no longer timed
                if entry.due < inf:
                    self._set_due(entry, entry.due)
            elif entry.place is not _Place.GONE:
                entry.crashes += entry.place is _Place.CLAIMED
                entry.claim = None
                self._make_ready(entry)

    def _until_due(self) -> float:
        return self._timers[0][0] - self._clock() if self._timers else inf
