"""Runs: the port, and below it what its calls, and a sweep, do in a session. Each of those checks before it changes
anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from loom.model import limits
from loom.model.chunk import Batch
from loom.model.cursor import attempt_of, make_epoch
from loom.model.errors import Conflict, LogNotFound
from loom.model.history import next_epoch
from loom.model.ports import INBOX, OUTBOX, closing
from loom.model.run import ALL_RUNS, Head, Meta, RunFilter
from loom.stores.orphans import ending_batch, is_idle
from loom.stores.stored import error_of, join, split
from loom.wire.json import decode_chunk, encode

from . import logs, sql
from .calls import Session
from .executor import Executor
from .rows import epochs_of, result_of
from .upkeep import clear

__all__ = ["SqliteRuns", "end_idle"]

_NEWEST = 2**63 - 1
"""An id that lies behind every run's."""

_SPECS = encode(OUTBOX), encode(INBOX)


class SqliteRuns:
    """The `RunStore`."""

    def __init__(self, executor: Executor, wall: Callable[[], float]) -> None:
        self._executor = executor
        self._wall = wall

    async def create(self, meta: Meta) -> Head:
        return await self._executor.write(_create, meta)

    async def get(self, run: str, *, full: bool = True) -> Head:
        return await self._executor.read(_get, run, full)

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        return await self._executor.read(_list_runs, filter, min(max(limit, 1), limits.LIST_LIMIT), before)

    async def heartbeat(self, run: str) -> None:
        await self._executor.write(_heartbeat, run, self._wall())

    async def cancel_unstarted(self, run: str, line: bytes) -> bool:
        return await self._executor.write(_cancel_unstarted, run, line, self._wall())

    async def drop(self, run: str) -> None:
        await self._executor.write(_drop, run)


# --- what the port's calls do ----------------------------------------------------------------------------------------


def _create(session: Session, meta: Meta) -> Head:
    if session.value(sql.LOGS_TAKEN, meta.run) is not None:
        if session.value(sql.RUN_ID, meta.run) is not None:
            return _get(session, meta.run)
        raise Conflict(f"there is a log {meta.run!r}, or its inbox, that belongs to no run", details={"run": meta.run})
    session.run(sql.ADD_LOGS, meta.run, *_SPECS, encode([(make_epoch(1, logs.digits()), 1)]))
    session.run(sql.ADD_RUN, meta.run, meta.actor, meta.parent, meta.root, meta.queue, meta.key, *split(meta))
    if meta.labels:
        session.run(sql.ADD_LABELS, meta.run, encode(meta.labels).decode())
    return Head(meta=meta)


def _get(session: Session, run: str, full: bool = True) -> Head:
    row = session.one(sql.HEAD if full else sql.LIGHT_HEAD, run)
    if row is None:
        raise _no_run(run)
    return _head(row)


def _list_runs(session: Session, filter: RunFilter, limit: int, before: str | None) -> list[Head]:
    bound = _NEWEST if before is None else _id(session, before)
    columns = filter.columns
    values = (*columns.values(), *itertools.chain.from_iterable(filter.labels.items()))
    statement = sql.list_runs(tuple(columns), len(filter.labels))
    return [_head(row) for row in session.all(statement, bound, limit, *values)]


def _heartbeat(session: Session, run: str, now: float) -> None:
    if not session.run(sql.HEARTBEAT, run, now):
        _id(session, run)  # it has ended, if it is there


def _cancel_unstarted(session: Session, run: str, line: bytes, now: float) -> bool:
    _id(session, run)
    log = logs.find(session, run)
    if log.ended or log.epochs:
        return log.ended and attempt_of(log.epoch) == 0
    epoch = make_epoch(0, logs.digits())
    logs.begin_epoch(session, log, epoch)
    logs.add(session, log, Batch(epoch, 1, 1, line + b"\n"), closing(decode_chunk(line)), now)
    session.run(sql.LEAVE_EARLY, run)
    return True


def _drop(session: Session, run: str) -> None:
    session.run(sql.LEAVE_QUEUE, run)
    session.run(sql.DROP_RUN, run)
    clear(session)


def end_idle(session: Session, now: float) -> int:
    """End orphans in which nothing has happened for too long. Returns how many."""
    orphans = [logs.find(session, run) for (run,) in session.all(sql.STARTED_ORPHANS, limits.SWEEP_RUNS)]
    idle = [log for log in orphans if is_idle(logs.last_batch(session, log), now)]
    for log in idle:
        epoch = next_epoch(log.epochs, logs.digits())
        logs.begin_epoch(session, log, epoch)
        logs.add(session, log, *ending_batch(epoch, log.tail, now), now)
    return len(idle)


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
        beat=beat or 0,
        heard=heard,
    )


def _id(session: Session, run: str) -> int:
    id: int | None = session.value(sql.RUN_ID, run)
    if id is None:
        raise _no_run(run)
    return id


def _no_run(run: str) -> LogNotFound:
    return LogNotFound(f"there is no run {run!r}")
