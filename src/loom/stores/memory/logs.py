"""Logs in memory: a list of batches each. Every watcher has been notified when `append` returns."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter

from loom.model import history, limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import Conflict, Fenced, LogEnded, LogNotFound, StoreFull, UsageError
from loom.model.ports import JSON_LINES, Commit, Fence, LogInfo, LogSpec, Notice, Notify, ProducerSeq, Unwatch
from loom.model.run import Mark
from loom.stores.positions import Positions
from loom.stores.watchers import Watchers, wait_page

LOG_BYTES = 1024
"""Approximate cost of a log besides its batches: objects, list slots, table entries."""

BATCH_BYTES = 160
"""The same of a batch besides its payload."""

_last = attrgetter("last")

Clock = Callable[[], float]


@dataclass(slots=True, eq=False)
class Log:
    """Batches and the facts about them."""

    name: str
    spec: LogSpec
    run: str | None = None
    """The run that it belongs to."""
    opaque: bool = False
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
    size: int = LOG_BYTES
    ended: bool = False

    def __post_init__(self) -> None:
        self.opaque = self.spec.content_type != JSON_LINES
        if self.spec.policy == "many":
            self.epochs = ((make_epoch(1, secrets.randbelow(EPOCH_DIGITS)), 1),)

    def begin(self, epoch: int | None = None) -> int:
        """Draw the next epoch, or take `epoch`: no other may append from now on."""
        self.writer = history.next_epoch(self.epochs, secrets.randbelow(EPOCH_DIGITS)) if epoch is None else epoch
        self.epochs = history.add_epoch(self.epochs, self.writer, self.tail)
        return self.writer

    @property
    def last(self) -> Batch | None:
        return self.batches[-1] if self.batches else None

    @property
    def stored(self) -> int:
        """Payload bytes."""
        return self.size - LOG_BYTES - len(self.batches) * BATCH_BYTES

    def info(self) -> LogInfo:
        spec, epochs, first, tail = self.spec, self.epochs, self.first, self.tail
        return LogInfo(spec=spec, epochs=epochs, first=first, tail=tail, ended=self.ended, size=self.stored)


class MemoryLogs:
    """The `LogStore`."""

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        # The runs give these: for the first fence of an outbox, for its end, and to make room by an ended run.
        self.began: Callable[[str], None]
        self.ended: Callable[[str, Commit], None]
        self.forget_oldest: Callable[[], bool] = lambda: False
        self._bytes = 0
        self._logs: dict[str, Log] = {}
        self.watchers = Watchers()

    async def create(self, log: str, spec: LogSpec) -> LogInfo:
        known = self._logs.get(log)
        if known is None:
            known = Log(log, spec)
            self.add(known)
        elif known.run is not None or known.spec != spec:
            raise Conflict(f"there is another log {log!r}")
        return known.info()

    async def info(self, log: str) -> LogInfo:
        return self._find(log).info()

    async def fence(self, log: str, token: str, *, failures: int = 0) -> Fence:
        known = self._find(log)
        history.check_single(log, known.spec)
        drawn = known.tokens.get(token)
        if drawn is not None and drawn != known.writer:
            raise Fenced("a newer writer has taken over")
        if drawn is None and not known.ended:
            known.tokens[token] = known.begin()
            if known.run is not None:
                self.began(known.run)
        known.failures = max(known.failures, failures)
        return Fence(known.writer, known.tail, known.ended, known.stored, known.failures)

    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        self.append_nowait(log, batch, commit)
        return batch.cursor

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        known = self._logs.get(log) or self._find(log)
        # The one hot path: `history.continues` and `_store` written out, in a third less time.
        if (
            batch.epoch != known.writer
            or batch.first != known.tail + 1
            or known.ended
            or (known.opaque and batch.first != batch.last)
        ):
            history.check_single(log, known.spec, batch)
            end = commit is not None and commit.end
            history.check_repeat(batch, end=end, epoch=known.writer, ended=known.ended, last=known.last)
            return True
        size = len(batch.payload) + BATCH_BYTES
        if self._bytes + size > self._max_bytes:
            self._make_room(size)
        self._bytes += size
        known.size += size
        known.batches.append(batch)
        known.tail = batch.last
        if commit is not None and commit.end:
            known.ended = True
            if known.run is not None:
                self.ended(known.run, commit)
        watching = self.watchers.get(log)
        if watching is not None:
            notice = Notice(batch, known.ended)
            for notify in list(watching.values()):
                notify(notice)
        return True

    async def send(
        self, log: str, record: bytes, producer: ProducerSeq, *, end: bool = False, urgent: bool = False
    ) -> Cursor:
        known = self._find(log)
        batch = history.record_batch(log, known.spec, history.newest(known.epochs), known.tail + 1, record)
        before = known.producers.get(producer.producer)
        if history.is_repeat(before and before[0], producer):
            assert before is not None
            return before[1]
        if known.ended:
            raise LogEnded("the log has ended: nothing reads it any more")
        if not urgent:
            records = known.tail - known.first + 1
            history.check_room(known.spec, len(batch.payload), records=records, stored=known.stored)
        size = len(batch.payload) + BATCH_BYTES
        self._make_room(size)
        self._bytes += size
        known.size += size
        known.batches.append(batch)
        known.tail = batch.last
        known.ended = end
        known.producers[producer.producer] = (producer, batch.cursor)
        self.watchers.tell(log, Notice(batch, end))
        return batch.cursor

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS,
        limit_bytes: int = limits.PAGE_BYTES, wait: float = 0.0,
    ) -> Page:  # fmt: skip
        return await wait_page(self.watchers, log, lambda: self._page(log, after, limit, limit_bytes), wait)

    def _page(self, name: str, after: Cursor | None, limit: int, limit_bytes: int) -> Page:
        log = self._find(name)
        start = history.start_after(after, epochs=log.epochs, first=log.first, tail=log.tail)
        index = bisect_left(log.batches, start, key=_last)
        batches = log.batches[index : index + max(limit, 1)]
        return history.page_of(
            batches, start, after=after, tail=log.tail, ended=log.ended, limit=limit, limit_bytes=limit_bytes
        )

    async def trim(self, log: str, before: int) -> int:
        known = self._find(log)
        index = min(bisect_left(known.batches, before, key=_last), len(known.batches) - 1)
        if index > 0:
            freed = sum(len(batch.payload) + BATCH_BYTES for batch in known.batches[:index])
            del known.batches[:index]
            known.first = known.batches[0].first
            known.size -= freed
            self._bytes -= freed
        return known.first

    async def drop(self, log: str) -> None:
        known = self._logs.get(log)
        if known is not None:
            if known.run is not None:
                raise UsageError(f"log {log!r} belongs to a run: it is dropped with it")
            self.remove(known)

    def watch(self, log: str, notify: Notify) -> Unwatch:
        return self.watchers.add(log, notify)

    async def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        self._find(log).positions.commit(log, reader, seq, self._clock())
        self.watchers.tell(log, Notice(marks=True))

    async def positions(self, log: str) -> list[Mark]:
        return self._find(log).positions.attached(self._clock())

    # --- for the other ports ------------------------------------------------------------------------------------------

    def add(self, *logs: Log, extra: int = 0) -> None:
        """Logs whose names are free, and `extra` bytes. Raises `Conflict` and `StoreFull`: nothing has changed."""
        for log in logs:
            if log.name in self._logs:
                raise Conflict(f"there is a log {log.name!r} already")
        size = sum(log.size for log in logs) + extra
        self._make_room(size)
        self._bytes += size
        for log in logs:
            self._logs[log.name] = log
            self.watchers.tell(log.name, Notice())

    def remove(self, *logs: Log, extra: int = 0) -> None:
        self._bytes -= sum(log.size for log in logs) + extra
        for log in logs:
            del self._logs[log.name]
            self.watchers.tell(log.name, Notice())

    def _find(self, name: str) -> Log:
        log = self._logs.get(name)
        if log is None:
            raise LogNotFound(f"there is no log {name!r}")
        return log

    def _make_room(self, size: int) -> None:
        """Drop ended runs, the oldest first, until `size` more bytes fit. Raises `StoreFull`."""
        while self._bytes + size > self._max_bytes:
            if not self.forget_oldest():
                raise StoreFull(f"{self._bytes} of {self._max_bytes} bytes are held by what has not ended")
