"""The queue: what its calls do in a session. Order, keys and readiness are kept by the file's own triggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from loom.model import limits
from loom.model.errors import Conflict, Damaged, Fenced
from loom.model.lease import Beat, Observed
from loom.model.run import Claim, Meta
from loom.wire.json import encode

from . import sql
from .calls import Session
from .rows import join, split

__all__ = ["Desk", "Taken", "ack", "put", "release", "renew", "seize"]

_log = logging.getLogger("loom.store")
_held = msgspec.json.Decoder(list[tuple[str, int, int, float, bool, int, str]])

Taken = tuple[Claim | None, float | None]
"""A claim, and how many seconds from now the next held entry may become claimable."""


def put(session: Session, meta: Meta) -> None:
    session.run(sql.PUT, meta.run, meta.queue, meta.actor, meta.key, *split(meta))


def seize(session: Session, meta: Meta, worker: str, lease: float) -> Claim:
    queue = session.value(sql.QUEUE_OF, meta.run)
    if queue is not None and queue != meta.queue:
        raise Conflict(f"run {meta.run!r} is in queue {queue!r}", details={"run": meta.run})
    put(session, meta)
    held = session.one(sql.SEIZE, meta.run, worker, lease)
    assert held is not None, "the entry was put in this very transaction"
    number, crashes = held
    return Claim(meta=meta, worker=worker, number=number, crashes=crashes)


def renew(session: Session, claim: Claim) -> None:
    if not session.run(sql.RENEW, claim.run, claim.worker, claim.number):
        raise _lost(claim)


def ack(session: Session, claim: Claim) -> None:
    holder = session.one(sql.HOLDER, claim.run)
    if holder is None:
        return
    if holder != (claim.worker, claim.number):
        raise _lost(claim)
    session.run(sql.LEAVE_QUEUE, claim.run)


def release(session: Session, claim: Claim, delay: float) -> None:
    if session.one(sql.HOLDER, claim.run) != (claim.worker, claim.number):
        raise _lost(claim)
    session.run(sql.RELEASE, claim.run, max(delay, 0.0))
    session.run(sql.ADD_CHANGE, sql.QUEUE, "")


def _lost(claim: Claim) -> Fenced:
    return Fenced(f"run {claim.run!r} is no longer claimed by {claim.worker!r} as {claim.number}")


class Desk:
    """Where workers of this process claim: it has seen how long others' heartbeats stand still."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._observed = Observed()
        self._looked = self._noted = float("-inf")
        self._damaged: set[int] = set()
        """Entries that cannot be read. Left as they are: a newer Loom, or a repaired file, may be read again."""

    def claim(self, session: Session, queues: Sequence[str], worker: str, lease: float) -> Taken:
        """The entry put first of those in `queues` that are free, or whose lease or delay has passed.

        One that cannot be read is held back, with what stands behind it in its key's line: the others go on.
        """
        while (found := self._next(session, queues)) is not None:
            claim = self._take(session, found, worker, lease)
            if claim is not None:
                return claim, None
        due = self._observed.due
        return None, None if due is None else max(due - self._clock(), 0.0)

    def renew(self, session: Session, claim: Claim) -> None:
        """Looks at the others', too: a worker without room claims nothing, and has to know who lapsed when it has."""
        renew(session, claim)
        now = self._clock()
        if now - max(self._looked, self._noted) >= limits.OBSERVE:
            self._noted = now
            self._look(session, now)

    def _next(self, session: Session, queues: Sequence[str]) -> int | None:
        found: int | None = self._free(session, encode(list(queues)).decode())
        lapsed = self._lapsed(session, queues) if found is None or self._time_to_look() else None
        if found is None or lapsed is None:
            return lapsed if found is None else found
        return min(found, lapsed)

    def _free(self, session: Session, queues: str) -> Any:
        if not self._damaged:
            return session.value(sql.FREE, queues)
        return session.value(sql.FREE_BUT, queues, encode(sorted(self._damaged)).decode())

    def _time_to_look(self) -> bool:
        return self._clock() - self._looked >= limits.OBSERVE

    def _lapsed(self, session: Session, queues: Sequence[str]) -> int | None:
        self._looked = self._clock()
        lapsed = self._look(session, self._looked)
        return min((id for id, queue in lapsed if queue in queues and id not in self._damaged), default=None)

    def _look(self, session: Session, now: float) -> list[tuple[int, str]]:
        """The entries, with their queues, whose lease or delay has passed."""
        held = _held.decode(session.value(sql.HELD, limits.HELD))
        lapsed = {beat.run for beat in self._observed.look([Beat(*entry[:5]) for entry in held], now)}
        return [(id, queue) for run, *_, id, queue in held if run in lapsed]

    def _take(self, session: Session, id: int, worker: str, lease: float) -> Claim | None:
        row = session.one(sql.CLAIM, id, worker, lease)
        assert row is not None, "the entry was seen in this very transaction"
        run, number, crashes, meta, input = row
        try:
            return Claim(meta=join(run, meta, input), worker=worker, number=number, crashes=crashes)
        except Damaged as damage:
            session.run(sql.PUT_BACK, id)
            if len(self._damaged) >= limits.HELD_BACK:
                raise
            self._damaged.add(id)
            _log.error("held back from every worker of this process: %s", damage)
            return None
