"""Logs in memory: a list of batches each. Every watcher has been notified when `append` returns."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeVar

from loom.model import history, limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import Conflict, Fenced, LogEnded, LogNotFound, StoreFull, UsageError
from loom.model.ports import Commit, Fence, LogInfo, LogSpec, Notice, ProducerSeq
from loom.model.run import Mark
from loom.stores.positions import Positions
from loom.stores.watchers import Watchers, wait_page

LOG_BYTES = 1024
"""Approximate cost of a log besides its batches: objects, list slots, table entries."""

BATCH_BYTES = 160
"""The same of a batch besides its payload."""

_last = attrgetter("last")

Clock = Callable[[], float]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Log:
    """Batches and the facts about them."""

    name: str
    spec: LogSpec
    run: str | None = None
    """The run that it belongs to."""
    extra: int = 0
    """Bytes that count with it: the input of its run."""
    writer: int = -1
    """The epoch that may append; no batch carries -1."""
    batches: list[Batch] = field(default_factory=list)
    epochs: tuple[tuple[int, int], ...] = ()
    tokens: dict[str, int] = field(default_factory=dict)
    producers: dict[str, tuple[ProducerSeq, Cursor]] = field(default_factory=dict)
    positions: Positions = field(default_factory=Positions)
    failures: int = 0
    first: int = 1
    tail: int = 0
    stored: int = 0
    """Payload bytes."""
    ended: bool = False

    def __post_init__(self) -> None:
        if self.spec.policy == "many":
            self.epochs = ((make_epoch(1, secrets.randbelow(EPOCH_DIGITS)), 1),)

    def begin(self, attempt: int | None = None) -> int:
        """Draw the epoch of the next attempt, or of `attempt`: no other may append from now on."""
        digits = secrets.randbelow(EPOCH_DIGITS)
        self.writer = history.next_epoch(self.epochs, digits) if attempt is None else make_epoch(attempt, digits)
        self.epochs = history.add_epoch(self.epochs, self.writer, self.tail)
        return self.writer

    @property
    def last(self) -> Batch | None:
        return self.batches[-1] if self.batches else None

    @property
    def size(self) -> int:
        return LOG_BYTES + self.extra + self.stored + len(self.batches) * BATCH_BYTES

    def info(self) -> LogInfo:
        spec, epochs, first, tail = self.spec, self.epochs, self.first, self.tail
        return LogInfo(spec=spec, epochs=epochs, first=first, tail=tail, ended=self.ended, size=self.stored)


class Named(dict[str, T]):
    """Logs or runs by name. Looking one up that is not there raises `LogNotFound`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __missing__(self, name: str) -> T:
        raise LogNotFound(f"there is no {self._kind} {name!r}")


class MemoryLogs:
    """The `LogStore`."""

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock, self._max_bytes = clock, max_bytes
        # The runs give these: for the first fence of an outbox, for its end, and to make room by an ended run.
        self.began: Callable[[str], None]
        self.ended: Callable[[str, Commit], None]
        self.forget_oldest: Callable[[], bool] = lambda: False
        self._bytes = 0
        self._logs: Named[Log] = Named("log")
        self.watchers = Watchers()
        self.watch = self.watchers.add

    async def create(self, log: str, spec: LogSpec) -> LogInfo:
        known = self._logs.get(log)
        if known is None:
            known = Log(log, spec)
            self.add(known)
        elif known.run is not None or known.spec != spec:
            raise Conflict(f"there is another log {log!r}")
        return known.info()

    async def info(self, log: str) -> LogInfo:
        return self._logs[log].info()

    async def fence(self, log: str, token: str, *, failures: int = 0) -> Fence:
        known = self._logs[log]
        history.check_single(log, known.spec)
        if known.tokens.get(token, known.writer) != known.writer:
            raise Fenced("a newer writer has taken over")
        if token not in known.tokens and not known.ended:
            known.tokens[token] = known.begin()
            if known.run is not None:
                self.began(known.run)
        known.failures = max(known.failures, failures)
        return Fence(known.writer, known.tail, known.ended, known.stored, known.failures)

    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        self.append_nowait(log, batch, commit)
        return batch.cursor

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        known = self._logs[log]
        # The one hot path: `history.continues`, `_reserve` and `Watchers.tell` written out.
        if batch.epoch != known.writer or batch.first != known.tail + 1 or known.ended:
            history.check_single(log, known.spec, batch)
            end = commit is not None and commit.end
            history.check_repeat(batch, end=end, epoch=known.writer, ended=known.ended, last=known.last)
            return True
        if batch.first != batch.last:
            history.check_single(log, known.spec, batch)
        size = len(batch.payload) + BATCH_BYTES
        if self._bytes + size > self._max_bytes:
            self._reserve(size)
        else:
            self._bytes += size
        known.stored += size - BATCH_BYTES
        known.batches.append(batch)
        known.tail = batch.last
        if commit is not None and commit.end:
            known.ended = True
            if known.run is not None:
                self.ended(known.run, commit)
        if log in self.watchers:
            for notify in list(self.watchers[log].values()):
                notify(Notice(batch, known.ended))
        return True

    async def send(
        self, log: str, record: bytes, producer: ProducerSeq, *, end: bool = False, urgent: bool = False
    ) -> Cursor:
        known = self._logs[log]
        batch = history.record_batch(log, known.spec, history.newest(known.epochs), known.tail + 1, record)
        before, cursor = known.producers.get(producer.producer, (None, batch.cursor))
        if history.is_repeat(before, producer):
            return cursor
        if known.ended:
            raise LogEnded("the log has ended: nothing reads it any more")
        if not urgent:
            records = known.tail - known.first + 1
            history.check_room(known.spec, len(batch.payload), records=records, stored=known.stored)
        self._reserve(len(batch.payload) + BATCH_BYTES)
        known.stored += len(batch.payload)
        known.batches.append(batch)
        known.tail, known.ended = batch.last, end
        known.producers[producer.producer] = (producer, batch.cursor)
        self.watchers.tell(log, Notice(batch, end))
        return batch.cursor

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS,
        limit_bytes: int = limits.PAGE_BYTES, wait: float = 0.0,
    ) -> Page:  # fmt: skip
        return await wait_page(self.watch, log, lambda: self._page(log, after, limit, limit_bytes), wait)

    async def _page(self, name: str, after: Cursor | None, limit: int, limit_bytes: int) -> Page:
        log = self._logs[name]
        start = history.start_after(after, epochs=log.epochs, first=log.first, tail=log.tail)
        index = bisect_left(log.batches, start, key=_last)
        batches = log.batches[index : index + max(limit, 1)]
        return history.page_of(
            batches, start, after=after, tail=log.tail, ended=log.ended, limit=limit, limit_bytes=limit_bytes
        )

    async def trim(self, log: str, before: int) -> int:
        known = self._logs[log]
        index = min(bisect_left(known.batches, before, key=_last), len(known.batches) - 1)
        if index > 0:
            before_bytes = known.size
            known.stored -= sum(len(batch.payload) for batch in known.batches[:index])
            del known.batches[:index]
            known.first = known.batches[0].first
            self._bytes -= before_bytes - known.size
        return known.first

    async def drop(self, log: str) -> None:
        known = self._logs.get(log)
        if known is not None:
            if known.run is not None:
                raise UsageError(f"log {log!r} belongs to a run: it is dropped with it")
            self.remove(known)

    async def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        self._logs[log].positions.commit(log, reader, seq, self._clock())
        self.watchers.tell(log, Notice(marks=True))

    async def positions(self, log: str) -> list[Mark]:
        return self._logs[log].positions.attached(self._clock())

    # --- for the other ports ------------------------------------------------------------------------------------------

    def add(self, *logs: Log) -> None:
        """Logs whose names are free. Raises `Conflict` and `StoreFull`: nothing has changed."""
        for log in logs:
            if log.name in self._logs:
                raise Conflict(f"there is a log {log.name!r} already")
        self._reserve(sum(log.size for log in logs))
        for log in logs:
            self._logs[log.name] = log
            self.watchers.tell(log.name, Notice())

    def remove(self, *logs: Log) -> None:
        for log in logs:
            self._bytes -= log.size
            del self._logs[log.name]
            self.watchers.tell(log.name, Notice())

    def _reserve(self, size: int) -> None:
        """Count `size` more bytes. Ended runs are dropped, the oldest first, until they fit. Raises `StoreFull`."""
        while self._bytes + size > self._max_bytes:
            if not self.forget_oldest():
                raise StoreFull(f"{self._bytes} of {self._max_bytes} bytes are held by what has not ended")
        self._bytes += size
