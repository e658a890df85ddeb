"""What a sweep does, in short steps: others' calls go between them."""

from __future__ import annotations

import time

import apsw
import msgspec

from loom.model import limits

from . import sql
from .calls import Session
from .news import LOOK_ROWS

__all__ = ["KEEP", "Retention", "clear", "expire", "make_room", "requeue", "tidy"]


DROP_RUNS = 100
"""Runs that one transaction of a sweep drops: a few milliseconds of the write lock."""

CLEAR_ROWS = 2000
"""Batches of dropped runs that one transaction deletes: as long."""

SWEEP_STEPS = 100
"""Such transactions in one sweep, between which others' calls go: it keeps pace with 20,000 batches a second."""

FREE_FRACTION = 4
"""A file of which more than 1/4 is free gives room back; below that new runs will need it again."""

SHRINK_TIME = 0.02
"""For so long at a time."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long ended runs are kept: the oldest go first, and never one that the queue still holds.

    `age` in seconds since the end (wall clock; None: for ever; a run's own comes first), `max_runs` ended ones, and
    what the file uses, in bytes, as long as there are ended runs to drop. Dropped runs' room is used again by others; a
    file that is mostly empty gives it back little by little.
    """

    age: float | None = limits.RETENTION
    max_runs: int | None = None
    max_bytes: int | None = None


KEEP = Retention()


def requeue(session: Session, now: float) -> int:
    """Put open runs back that no queue holds. Their put preceded their creation: none is only on its way."""
    return session.run(sql.REQUEUE, limits.SWEEP_RUNS, now)


def expire(session: Session, retention: Retention, now: float) -> int:
    """Drop some of the runs that are too old, by their own retention or the store's, or too many. Returns how many."""
    dropped = session.run(sql.DROP_EXPIRED, now, DROP_RUNS)
    if retention.age is not None:
        age = max(retention.age, limits.LEAST_RETENTION)
        dropped += session.run(sql.DROP_AGED, now - age, DROP_RUNS)
    if retention.max_runs is not None:
        surplus = session.value(sql.ENDED_RUNS) - retention.max_runs
        if surplus > 0:
            dropped += session.run(sql.DROP_OLDEST, min(surplus, DROP_RUNS))
    return dropped


def clear(session: Session) -> bool:
    """Delete some of what is left of dropped runs and trimmed logs. Whether there is more."""
    debris = session.one(sql.DEBRIS)
    if debris is None:
        return False
    log, before = debris
    if session.run(sql.CLEAR, log, before, CLEAR_ROWS) < CLEAR_ROWS:
        session.run(sql.CLEARED, log)
    return True


def make_room(session: Session, retention: Retention) -> bool:
    """Drop the oldest ended run if the file uses too much. Its room is free when `clear` is through."""
    pages, free, size = _pages(session)
    if retention.max_bytes is None or (pages - free) * size <= retention.max_bytes:
        return False
    return bool(session.run(sql.DROP_OLDEST, 1))


def tidy(session: Session, now: float) -> None:
    """Forget changes that everybody has seen and workers that fell silent, and give room back while much of the file is
    free."""
    session.run(sql.FORGET_CHANGES, LOOK_ROWS)
    session.run(sql.FORGET_WORKERS, now - limits.WORKER_SEEN)
    pages, free, _ = _pages(session)
    if free * FREE_FRACTION > pages:
        _shrink(session.db)


def _shrink(db: apsw.Connection) -> None:
    """A page a step, for a moment."""
    end = time.monotonic() + SHRINK_TIME
    pages = db.execute(sql.VACUUM)
    for _ in pages:
        if time.monotonic() > end:
            break
    pages.close()


def _pages(session: Session) -> tuple[int, int, int]:
    row = session.one(sql.PAGES)
    assert row is not None
    return row[0], row[1], row[2]
