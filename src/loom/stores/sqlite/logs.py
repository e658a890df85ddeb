"""Logs: the port, and below it what its calls do in a session. Each of those checks before it changes anything."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import Conflict, Fenced, LogEnded, LogNotFound, UsageError
from loom.model.history import (
    Epochs,
    add_epoch,
    check_repeat,
    check_room,
    check_single,
    continues,
    is_repeat,
    newest,
    next_epoch,
    page_of,
    record_batch,
    start_after,
)
from loom.model.ports import JSON_LINES, Commit, Fence, LogInfo, LogSpec, Notice, Notify, ProducerSeq, Unwatch
from loom.model.run import Mark, inbox_of, run_of
from loom.stores.positions import beat_after, is_forgotten, too_many_readers
from loom.stores.stored import check_whole
from loom.stores.watchers import wait_page
from loom.wire.json import encode

from . import schema, sql
from .calls import Session
from .executor import Executor
from .rows import batches_of, epochs_of, spec_of
from .upkeep import clear

__all__ = ["LogRow", "SqliteLogs", "add", "begin_epoch", "digits", "find", "last_batch"]


class SqliteLogs:
    """The `LogStore`."""

    def __init__(self, executor: Executor, wall: Callable[[], float]) -> None:
        self._executor = executor
        self._wall = wall

    async def create(self, log: str, spec: LogSpec) -> LogInfo:
        return await self._executor.write(_create, log, spec)

    async def info(self, log: str) -> LogInfo:
        return (await self._executor.read(find, log)).info()

    async def fence(self, log: str, token: str, *, failures: int = 0) -> Fence:
        return await self._executor.write(_fence, log, token, failures, self._wall())

    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        if commit is None:
            return await self._executor.append(_append, log, batch)
        return await self._executor.write(_append, log, batch, commit, self._wall())

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        return False

    async def send(
        self, log: str, record: bytes, producer: ProducerSeq, *, end: bool = False, urgent: bool = False
    ) -> Cursor:
        return await self._executor.write(_send, log, record, producer, end, urgent)

    async def read(
        self,
        log: str,
        after: Cursor | None = None,
        *,
        limit: int = limits.PAGE_CHUNKS,
        limit_bytes: int = limits.PAGE_BYTES,
        wait: float = 0.0,
    ) -> Page:
        look = partial(self._executor.read, _read, log, after, limit, limit_bytes)
        return await wait_page(self.watch, log, look, wait)

    async def trim(self, log: str, before: int) -> int:
        return await self._executor.write(_trim, log, before)

    async def drop(self, log: str) -> None:
        await self._executor.write(_drop, log)

    def watch(self, log: str, notify: Notify) -> Unwatch:
        return self._executor.watch(log, notify)

    async def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        await self._executor.write(_commit_position, log, reader, seq, self._wall())

    async def positions(self, log: str) -> list[Mark]:
        return await self._executor.read(_positions, log, self._wall())


# --- for runs, too ---------------------------------------------------------------------------------------------------


class LogRow(NamedTuple):
    """A log's row, and where it ends."""

    name: str
    id: int
    spec: LogSpec
    epoch: int
    epochs: Epochs
    first: int
    trimmed: int
    failures: int
    ended: bool
    tail: int
    upto: int

    @property
    def size(self) -> int:
        """Payload bytes that it keeps."""
        return self.upto - self.trimmed

    def info(self) -> LogInfo:
        return LogInfo(
            spec=self.spec,
            epochs=tuple(self.epochs),
            first=self.first,
            tail=self.tail,
            ended=self.ended,
            size=self.size,
        )


def find(session: Session, name: str) -> LogRow:
    """Raises `LogNotFound`."""
    row = session.one(sql.LOG, name)
    if row is None:
        raise _no_log(name)
    id, spec, epoch, epochs, first, trimmed, failures, ended, tail, upto = row
    return LogRow(
        name, id, spec_of(name, spec), epoch, epochs_of(name, epochs), first, trimmed, failures, bool(ended), tail, upto
    )


def last_batch(session: Session, log: LogRow) -> Batch | None:
    row = session.one(sql.LAST_BATCH, log.id)
    return None if row is None else Batch(*row)


def digits() -> int:
    """Of an epoch."""
    return secrets.randbelow(EPOCH_DIGITS)


def begin_epoch(session: Session, log: LogRow, epoch: int) -> None:
    """No other may append from now on."""
    session.run(sql.BEGIN_EPOCH, log.id, epoch, encode(add_epoch(log.epochs, epoch, log.tail)))


def add(session: Session, log: LogRow, batch: Batch, commit: Commit | None = None, now: float = 0.0) -> None:
    """A batch that continues the log, and what is committed with it."""
    session.run(sql.ADD_BATCH, log.id, batch.epoch, batch.first, batch.last, batch.payload)
    session.tell(log.name, batch, ended=commit is not None and commit.end)
    if commit is not None and commit.end:
        _end(session, log, commit, now)


def _end(session: Session, log: LogRow, commit: Commit, now: float) -> None:
    """An inbox ends with its outbox. No trigger does it: as one statement they would cost twice as much."""
    error = None if commit.error is None else encode(commit.error)
    ending = (commit.state, error, now, limits.LEAST_RETENTION)
    if commit.state is not None and session.run(sql.END_RUN, log.id, *ending):
        session.run(sql.END_LOGS, log.id)
        session.run(sql.ADD_CHANGE, schema.LOOK, inbox_of(log.name))
    else:
        session.run(sql.END_LOG, log.id)


# --- what the port's calls do ----------------------------------------------------------------------------------------


def _create(session: Session, name: str, spec: LogSpec) -> LogInfo:
    epochs = [(make_epoch(1, digits()), 1)] if spec.policy == "many" else []
    added = session.run(sql.ADD_LOG, name, encode(spec), spec.content_type != JSON_LINES, encode(epochs))
    info = find(session, name).info()
    if not added and (info.spec != spec or session.value(sql.RUN_OF_LOG, name) is not None):
        raise Conflict(f"there is another log {name!r}")
    return info


def _fence(session: Session, name: str, token: str, failures: int, now: float) -> Fence:
    log = find(session, name)
    check_single(name, log.spec)
    drawn = session.value(sql.EPOCH_OF_TOKEN, log.id, token)
    if drawn is not None and drawn != log.epoch:
        raise Fenced("a newer writer has taken over")
    if failures > log.failures:
        session.run(sql.COUNT_FAILURES, log.id, failures)
    epoch = log.epoch
    if drawn is None and not log.ended:
        epoch = next_epoch(log.epochs, digits())
        session.run(sql.ADD_TOKEN, log.id, token, epoch)
        begin_epoch(session, log, epoch)
        session.run(sql.BEGIN_RUN, log.id, now)
    return Fence(epoch, log.tail, log.ended, log.size, max(failures, log.failures))


def _append(session: Session, name: str, batch: Batch, commit: Commit | None = None, now: float = 0.0) -> Cursor:
    log = find(session, name)
    check_single(name, log.spec, batch)
    if continues(batch, epoch=log.epoch, tail=log.tail, ended=log.ended):
        add(session, log, batch, commit, now)
        return batch.cursor
    end = commit is not None and commit.end
    check_repeat(batch, end=end, epoch=log.epoch, ended=log.ended, last=last_batch(session, log))
    # Perhaps it was stored a moment ago, in one step with others: then nobody was told yet.
    session.told.append((name, Notice(batch, log.ended)))
    return batch.cursor


def _send(session: Session, name: str, record: bytes, producer: ProducerSeq, end: bool, urgent: bool) -> Cursor:
    log = find(session, name)
    epoch = newest(log.epochs)
    batch = record_batch(name, log.spec, epoch, log.tail + 1, record)
    known = session.one(sql.PRODUCER, log.id, producer.producer)
    if is_repeat(None if known is None else ProducerSeq(producer.producer, *known[:2]), producer):
        assert known is not None
        return Cursor(epoch, known[2])
    if log.ended:
        raise LogEnded("the log has ended: nothing reads it any more")
    if not urgent:
        check_room(log.spec, len(batch.payload), records=log.tail - log.first + 1, stored=log.size)
    session.run(sql.SET_PRODUCER, log.id, producer.producer, producer.epoch, producer.seq, batch.last)
    add(session, log, batch, Commit() if end else None)
    return batch.cursor


def _read(session: Session, name: str, after: Cursor | None, limit: int, limit_bytes: int) -> Page:
    limit, limit_bytes = min(max(limit, 1), limits.READ_LIMIT), min(limit_bytes, limits.PAGE_BYTES)
    row = session.one(sql.READ, name, after.seq if after else 0, limit, limit_bytes)
    if row is None:
        raise _no_log(name)
    epochs, first, ended, opaque, tail, epoch, edge, stored = row
    tail = tail or 0
    start = start_after(after, epochs=epochs_of(name, epochs), first=first, tail=tail)
    batches = () if stored is None else batches_of(name, epoch, edge, stored, opaque=bool(opaque))
    check_whole(run_of(name), batches, start, tail)
    return page_of(batches, start, after=after, tail=tail, ended=bool(ended), limit=limit, limit_bytes=limit_bytes)


def _trim(session: Session, name: str, before: int) -> int:
    row = session.one(sql.FIRST_KEPT, name, before)
    if row is None:
        raise _no_log(name)
    id, first, kept, trimmed = row
    if kept is None or kept <= first:
        return int(first)
    session.run(sql.TRIM, id, kept, trimmed)
    session.run(sql.ADD_DEBRIS, id, kept)
    clear(session)
    return int(kept)


def _drop(session: Session, name: str) -> None:
    if session.value(sql.RUN_OF_LOG, name) is not None:
        raise UsageError(f"log {name!r} belongs to a run: it is dropped with it")
    session.run(sql.DROP_LOG, name)
    clear(session)


def _commit_position(session: Session, name: str, reader: str, seq: int | None, now: float) -> None:
    id = _id(session, name)
    if seq is None:
        session.run(sql.UNMARK, id, reader)
    else:
        beat = session.value(sql.BEAT_OF, id, reader)
        if beat is None:
            _admit_reader(session, name, id, now)
        session.run(sql.MARK, id, reader, seq, beat_after(beat, now))
    session.run(sql.ADD_CHANGE, schema.MARKS, name)


def _positions(session: Session, name: str, now: float) -> list[Mark]:
    return [mark for mark in _marks(session, _id(session, name)) if not is_forgotten(mark.beat, now)]


def _admit_reader(session: Session, name: str, id: int, now: float) -> None:
    """Clears away the marks of forgotten readers when their place is needed."""
    if session.value(sql.COUNT_MARKS, id) < limits.READERS:
        return
    marks = _marks(session, id)
    silent = [mark.reader for mark in marks if is_forgotten(mark.beat, now)]
    for reader in silent:
        session.run(sql.UNMARK, id, reader)
    if len(marks) - len(silent) >= limits.READERS:
        raise too_many_readers(name)


def _marks(session: Session, id: int) -> list[Mark]:
    return [Mark(*row) for row in session.all(sql.MARKS_OF, id)]


def _id(session: Session, name: str) -> int:
    id: int | None = session.value(sql.LOG_ID, name)
    if id is None:
        raise _no_log(name)
    return id


def _no_log(name: str) -> LogNotFound:
    return LogNotFound(f"there is no log {name!r}")
