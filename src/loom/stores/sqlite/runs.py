"""Runs and their logs: what the calls of `Logs` do in a session. Each checks before it changes anything."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, attempt_of, make_epoch
from loom.model.errors import ErrorInfo, Fenced, LogEnded, LogNotFound
from loom.model.history import Epochs, add_epoch, check_repeat, continues, next_epoch, page_of, start_after
from loom.model.ports import Fence, Notice
from loom.model.run import Head, Mark, Meta, RunState, inbox_of, run_of, state_of
from loom.stores.inbox import check_room
from loom.stores.orphans import ending_batch, is_idle
from loom.stores.positions import beat_after, is_forgotten, too_many_readers
from loom.stores.stored import check_whole, error_of, join, split
from loom.wire.json import encode, ending_of

from . import schema, sql
from .calls import Session
from .rows import batch_of, epochs_of, result_of
from .upkeep import clear

__all__ = [
    "append",
    "create",
    "drop",
    "end_idle",
    "end_unstarted",
    "fence",
    "head",
    "heads",
    "mark",
    "marks",
    "read",
    "send",
    "touch",
    "trim",
]


class _State(NamedTuple):
    """What decides about an outbox."""

    id: int
    epoch: int
    epochs: Epochs
    ended: bool
    last: Batch | None

    @property
    def log(self) -> int:
        return 2 * self.id

    @property
    def tail(self) -> int:
        return self.last.last if self.last else 0


# --- a run's life ----------------------------------------------------------------------------------------------------


def create(session: Session, meta: Meta) -> Head:
    inbox_epoch = make_epoch(1, _digits())
    if session.run(sql.CREATE, meta.run, meta.actor, meta.queue, meta.key, inbox_epoch, *split(meta)):
        session.run(sql.ADD_CHANGE, schema.LOOK, meta.run)
    return head(session, meta.run)


def head(session: Session, run: str, *, full: bool = True) -> Head:
    return _head(_found(session.one(sql.HEAD if full else sql.LIGHT_HEAD, run), run))


def heads(session: Session, limit: int, before: str | None, state: RunState | None, actor: str | None) -> list[Head]:
    place = None if before is None else _id(session, before)
    statement = sql.heads(before=before is not None, state=state is not None, actor=actor is not None)
    return [_head(row) for row in session.all(statement, place, state, actor, limit)]


def fence(session: Session, run: str, token: str, failures: int, now: float) -> Fence:
    state = _state(session, run)
    drawn = session.value(sql.EPOCH_OF_TOKEN, state.id, token)
    if drawn is not None and drawn != state.epoch:
        raise Fenced("a newer writer has taken over")
    size = session.value(sql.SIZE, state.id) or 0
    failures = _counted(session, state.id, failures)
    if drawn is not None or state.ended:
        return Fence(state.epoch, state.tail, state.ended, size, failures)
    epoch = next_epoch(state.epochs, _digits())
    session.run(sql.ADD_TOKEN, state.id, token, epoch)
    _begin(session, state, epoch)
    session.run(sql.BEGIN_ATTEMPT, state.id, now)
    return Fence(epoch, state.tail, ended=False, size=size, failures=failures)


def _counted(session: Session, number: int, failures: int) -> int:
    """The number of attempts that have failed: at least `failures`."""
    known = session.value(sql.FAILURES, number) or 0
    if failures > known:
        session.run(sql.COUNT_FAILURES, number, failures)
    return max(known, failures)


def end_unstarted(session: Session, run: str, line: bytes, now: float) -> bool:
    state = _state(session, run)
    if state.ended or state.epochs:
        return state.ended and attempt_of(state.epoch) == 0
    epoch = make_epoch(0, _digits())
    batch = Batch(epoch, 1, 1, line + b"\n")
    error, _ = ending_of(batch)
    _begin(session, state, epoch)
    _add(session, run, state, batch, ended=True)
    _end(session, run, state, error, now)
    session.run(sql.LEAVE_EARLY, run)
    return True


def end_idle(session: Session, run: str, now: float) -> bool:
    """End an orphan in which nothing has happened for too long; whether it was one."""
    state = _state(session, run)
    if not is_idle(state.last, now):
        return False
    epoch = next_epoch(state.epochs, _digits())
    batch = ending_batch(epoch, state.tail, now)
    _begin(session, state, epoch)
    _add(session, run, state, batch, ended=True)
    _end(session, run, state, ending_of(batch)[0], now)
    return True


def touch(session: Session, run: str, now: float) -> None:
    if not session.run(sql.TOUCH, run):
        raise _no_run(run)
    session.run(sql.HEAR, run, now)


def drop(session: Session, run: str) -> None:
    session.run(sql.LEAVE_QUEUE, run)
    session.run(sql.DROP, run)
    clear(session)


# --- logs ------------------------------------------------------------------------------------------------------------


def append(session: Session, run: str, batch: Batch, end: bool, now: float) -> Cursor:
    state = _state(session, run)
    if not continues(batch, epoch=state.epoch, tail=state.tail, ended=state.ended):
        check_repeat(batch, end=end, epoch=state.epoch, ended=state.ended, last=state.last)
        # Perhaps it was stored a moment ago, in one step with others: then nobody was told yet.
        session.told.append((run, Notice(batch, state.ended)))
        return batch.cursor
    error = ending_of(batch)[0] if end else None
    _add(session, run, state, batch, ended=end)
    if end:
        _end(session, run, state, error, now)
    return batch.cursor


def send(session: Session, run: str, message: bytes, sender: str, id: str) -> Cursor:
    number, epoch, ended, tail, size = _found(session.one(sql.INBOX, run), run)
    seq = session.value(sql.SEQ_OF_MESSAGE, number, sender, id)
    if seq is not None:
        return Cursor(epoch, seq)
    if ended:
        raise LogEnded("the run has ended: nothing reads its inbox")
    check_room(message, sender, messages=tail, size=size)
    place = tail + 1
    batch = Batch(epoch, place, place, message + b"\n")
    session.run(sql.ADD_MESSAGE, number, sender, id, place)
    _store(session, 2 * number + 1, batch)
    session.tell(inbox_of(run), batch)
    return batch.cursor


def read(session: Session, log: str, after: Cursor | None, limit: int) -> Page:
    run = run_of(log)
    inbox = log != run
    behind = after.seq if after else 0
    limit = min(max(limit, 1), limits.READ_LIMIT)
    row = _found(session.one(sql.READ, run, inbox, behind, limit, limits.PAGE_BYTES), run)
    epochs, inbox_epoch, first, ended, tail, epoch, edge, stored = row
    known = ((inbox_epoch, 1),) if inbox else epochs_of(run, epochs)
    tail = tail or 0
    start = start_after(after, epochs=known, first=1 if inbox else first, tail=tail)
    batches = () if stored is None else (batch_of(run, epoch, edge, stored, inbox=inbox),)
    check_whole(run, batches, start, tail)
    return page_of(batches, start, after=after, tail=tail, ended=bool(ended), limit=limit)


def trim(session: Session, run: str, before: int) -> int:
    number, first, kept = _found(session.one(sql.FIRST_KEPT, run, before), run)
    if kept is None or kept <= first:
        return int(first)
    session.run(sql.TRIM, number, kept)
    session.run(sql.ADD_DEBRIS, 2 * number, kept)
    clear(session)
    return int(kept)


# --- readers' marks --------------------------------------------------------------------------------------------------


def mark(session: Session, run: str, reader: str, seq: int | None, now: float) -> None:
    number = _id(session, run)
    if seq is None:
        session.run(sql.UNMARK, number, reader)
    else:
        found = session.one(sql.BEAT_OF, number, reader)
        if found is None:
            _admit_reader(session, run, number, now)
        session.run(sql.MARK, number, reader, seq, beat_after(None if found is None else found[0], now))
    session.run(sql.ADD_CHANGE, schema.MARKS, run)


def marks(session: Session, run: str, now: float) -> list[Mark]:
    return [mark for mark in _marks(session, run) if not is_forgotten(mark.beat, now)]


def _admit_reader(session: Session, run: str, number: int, now: float) -> None:
    """Clears away the marks of forgotten readers when their place is needed."""
    if session.value(sql.COUNT_MARKS, number) < limits.READERS:
        return
    there = _marks(session, run)
    silent = [mark.reader for mark in there if is_forgotten(mark.beat, now)]
    for reader in silent:
        session.run(sql.UNMARK, number, reader)
    if len(there) - len(silent) >= limits.READERS:
        raise too_many_readers(run)


def _marks(session: Session, run: str) -> list[Mark]:
    rows = session.all(sql.MARKS_OF, run)
    if not rows:
        raise _no_run(run)
    return [Mark(*row) for row in rows if row[0] is not None]


# --- inside ----------------------------------------------------------------------------------------------------------


def _no_run(run: str) -> LogNotFound:
    return LogNotFound(f"there is no run {run!r}")


def _found(row: tuple[Any, ...] | None, run: str) -> tuple[Any, ...]:
    if row is None:
        raise _no_run(run)
    return row


def _digits() -> int:
    return secrets.randbelow(EPOCH_DIGITS)


def _id(session: Session, run: str) -> int:
    return int(_found(session.one(sql.RUN_ID, run), run)[0])


def _state(session: Session, run: str) -> _State:
    number, epoch, epochs, ended, *last = _found(session.one(sql.STATE, run), run)
    return _State(number, epoch, epochs_of(run, epochs), bool(ended), None if last[0] is None else Batch(*last))


def _head(row: tuple[Any, ...]) -> Head:
    run, meta, epochs, first, tail, state, error, started, ended, beat, heard, input, ending = row
    return Head(
        meta=join(run, meta, input),
        epochs=epochs_of(run, epochs),
        first=first,
        tail=tail or 0,
        ended=ended is not None,
        state=state,
        error=error_of(run, error),
        result=result_of(run, tail or 0, ending),
        started=started,
        ended_at=ended,
        beat=beat,
        heard=heard,
    )


def _begin(session: Session, state: _State, epoch: int) -> None:
    session.run(sql.BEGIN_EPOCH, state.id, epoch, encode(add_epoch(state.epochs, epoch, state.tail)))


def _store(session: Session, log: int, batch: Batch) -> None:
    session.run(sql.ADD_BATCH, log, batch.epoch, batch.first, batch.last, batch.payload)


def _add(session: Session, run: str, state: _State, batch: Batch, *, ended: bool = False) -> None:
    _store(session, state.log, batch)
    session.tell(run, batch, ended=ended)


def _end(session: Session, run: str, state: _State, error: ErrorInfo | None, now: float) -> None:
    name = state_of(attempted=True, error=error, ended=True)
    session.run(sql.END, state.id, name, None if error is None else encode(error), now, limits.LEAST_RETENTION)
    session.run(sql.ADD_CHANGE, schema.LOOK, inbox_of(run))
