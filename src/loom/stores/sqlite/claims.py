"""What the calls of the queue do in a session. Order, keys and readiness are kept by the file's own triggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import msgspec

from loom.model import limits
from loom.model.errors import Conflict, Damaged, Fenced
from loom.model.lease import Beat, Observed
from loom.model.priority import PRIORITIES, order, rank
from loom.model.run import Claim, Entry, Meta, Place
from loom.stores.stored import join, split
from loom.wire.json import encode

from . import schema, sql
from .calls import Session

__all__ = ["Desk", "Taken", "ack", "force_claim", "give_back", "list_entries", "lost", "put", "release", "renew"]

_log = logging.getLogger("loom.store")
_held = msgspec.json.Decoder(list[tuple[str, int, int, float, bool, int, str, str, int]])

HELD = 10_000
"""Claims that are watched for lapsing at a time, oldest first: a hundred workers' worth."""

HELD_BACK = 1000
"""Queue entries that cannot be read and are stepped over; a file with more of them is past that, and says so."""

Taken = tuple[Claim | None, float | None]
"""A claim, and how many seconds from now the next held entry may become claimable."""


def put(session: Session, meta: Meta, now: float) -> None:
    _enter(session, meta, meta.not_before if meta.not_before is not None and meta.not_before > now else None)


def _enter(session: Session, meta: Meta, due: float | None) -> None:
    session.run(sql.PUT, meta.run, meta.queue, meta.actor, meta.key, rank(meta.priority), due, *split(meta))


def force_claim(session: Session, meta: Meta, worker: str, lease: float) -> Claim:
    queue = session.value(sql.QUEUE_OF, meta.run)
    if queue is not None and queue != meta.queue:
        raise Conflict(f"run {meta.run!r} is in queue {queue!r}", details={"run": meta.run})
    _enter(session, meta, None)
    held = session.one(sql.FORCE_CLAIM, meta.run, worker, lease)
    assert held is not None, "the entry was put in this very transaction"
    number, crashes = held
    return Claim(meta=meta, worker=worker, number=number, crashes=crashes)


def renew(session: Session, claim: Claim) -> bool:
    return bool(session.run(sql.RENEW, claim.run, claim.worker, claim.number))


def ack(session: Session, claim: Claim) -> None:
    holder = session.one(sql.HOLDER, claim.run)
    if holder is None:
        return
    if holder != (claim.worker, claim.number):
        raise lost(claim)
    session.run(sql.LEAVE_QUEUE, claim.run)


def release(session: Session, claim: Claim, delay: float = 0.0) -> None:
    if session.one(sql.HOLDER, claim.run) != (claim.worker, claim.number):
        raise lost(claim)
    session.run(sql.RELEASE, claim.run, max(delay, 0.0))
    session.run(sql.ADD_CHANGE, schema.QUEUE, "")


def give_back(session: Session, claim: Claim) -> None:
    with suppress(Fenced):
        release(session, claim)


def list_entries(session: Session, queue: str | None, place: Place | None, limit: int) -> list[Entry]:
    rows = session.all(sql.ENTRIES, queue, place, limit)
    if len(rows) < limit:
        rows += session.all(sql.ENTRIES_DUE, queue, place, limit - len(rows))
    return [_entry(*row) for row in rows]


def _entry(
    run: str, actor: str, queue: str, key: str | None, priority: int, place: Place, worker: str | None, number: int,
    crashes: int, meta: bytes,
) -> Entry:  # fmt: skip
    try:
        told = join(run, meta, None)
    except Damaged:  # shown all the same: it is told by who claims it
        told = Meta(run=run, actor=actor)
    return Entry(
        run=run,
        actor=actor,
        queue=queue,
        key=key,
        priority=PRIORITIES[priority],
        place=place,
        worker=worker,
        number=number,
        crashes=crashes,
        created=told.created,
        not_before=told.not_before,
    )


def lost(claim: Claim) -> Fenced:
    return Fenced(f"run {claim.run!r} is no longer claimed by {claim.worker!r} as {claim.number}")


class Desk:
    """Where workers of this process claim: it has seen how long others' heartbeats stand still."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._observed = Observed()
        self._looked = self._noted = float("-inf")
        self._damaged: set[int] = set()
        """Entries that cannot be read. Left as they are: a newer Loom, or a repaired file, may be read again."""

    def claim(
        self, session: Session, queues: Sequence[str], worker: str, lease: float, exclude: Collection[str]
    ) -> Taken:
        """The next of those in `queues` that are free, or whose lease or delay has passed.

        One that cannot be read is held back, with what stands behind it in its key's line: the others go on.
        """
        start = self._put_due(session)
        while (found := self._next(session, queues, exclude)) is not None:
            claim = self._take(session, found, worker, lease)
            if claim is not None:
                return claim, None
        lapse = None if self._observed.due is None else self._observed.due - self._clock()
        return None, min((max(due, 0.0) for due in (lapse, start) if due is not None), default=None)

    def _put_due(self, session: Session) -> float | None:
        """Put the entries whose time has come; returns the seconds until the next one's."""
        first: float | None = session.value(sql.FIRST_DUE)
        if first is None:
            return None
        now = self._wall()
        if first <= now:
            session.run(sql.PUT_DUE, now, limits.PUT_DUE)
            first = session.value(sql.FIRST_DUE)
        return None if first is None else first - now

    def renew(self, session: Session, claims: Sequence[Claim]) -> list[bool]:
        """Looks at the others', too: a worker exclude room claims nothing, and has to know who lapsed when it has."""
        held = [renew(session, claim) for claim in claims]
        now = self._clock()
        if now - max(self._looked, self._noted) >= limits.OBSERVE:
            self._noted = now
            self._look(session, now)
        return held

    def _next(self, session: Session, queues: Sequence[str], exclude: Collection[str]) -> int | None:
        turns = [rank(priority) for priority in order(session.value(sql.GIVEN))]
        lapsed = self._lapsed(session, queues, exclude) if self._time_to_look() else {}
        names = encode(list(queues)).decode()
        for priority in turns:
            free = self._free(session, names, priority, exclude)
            if free is not None or priority in lapsed:
                return min(id for id in (free, lapsed.get(priority)) if id is not None)
        lapsed = lapsed or self._lapsed(session, queues, exclude)
        return next((lapsed[priority] for priority in turns if priority in lapsed), None)

    def _free(self, session: Session, queues: str, priority: int, exclude: Collection[str]) -> int | None:
        found: int | None
        if self._damaged or exclude:
            given = (encode(sorted(exclude)).decode(), encode(sorted(self._damaged)).decode())
            found = session.value(sql.FREE_BUT, queues, priority, *given)
        else:
            found = session.value(sql.FREE, queues, priority)
        return found

    def _time_to_look(self) -> bool:
        return self._clock() - self._looked >= limits.OBSERVE

    def _lapsed(self, session: Session, queues: Sequence[str], exclude: Collection[str]) -> Mapping[int, int]:
        """Of each priority the first entry whose lease or delay has passed."""
        self._looked = self._clock()
        first: dict[int, int] = {}
        for id, queue, actor, priority in self._look(session, self._looked):
            if queue in queues and actor not in exclude and id not in self._damaged:
                first[priority] = min(id, first.get(priority, id))
        return first

    def _look(self, session: Session, now: float) -> list[tuple[int, str, str, int]]:
        """The entries whose lease or delay has passed, with their queues, actors and priorities' ranks."""
        held = _held.decode(session.value(sql.HELD, HELD))
        lapsed = {beat.run for beat in self._observed.look([Beat(*entry[:5]) for entry in held], now)}
        return [entry[5:] for entry in held if entry[0] in lapsed]

    def _take(self, session: Session, id: int, worker: str, lease: float) -> Claim | None:
        row = session.one(sql.CLAIM, id, worker, lease)
        session.run(sql.GIVE)
        assert row is not None, "the entry was seen in this very transaction"
        run, number, crashes, meta, input = row
        try:
            return Claim(meta=join(run, meta, input), worker=worker, number=number, crashes=crashes)
        except Damaged as damage:
            session.run(sql.PUT_BACK, id)
            if len(self._damaged) >= HELD_BACK:
                raise
            self._damaged.add(id)
            _log.error("held back from every worker of this process: %s", damage)
            return None
