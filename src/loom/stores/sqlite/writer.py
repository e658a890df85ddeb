"""The writing thread: one transaction for all that waits, one word to the loop for all that it did.

The thread pays for each step of a statement: the interpreter's lock goes to the loop and has to come back, which takes
long when the loop is busy. So appends, which are nearly all there is, are one statement, that commits by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import apsw

from loom.model import limits
from loom.model.errors import LoomError, Unavailable
from loom.model.ports import Durability

from . import sql
from .calls import Append, Call, Session
from .database import fault_of, open_for_writing, transaction
from .news import Changes, News
from .place import Guard, Place

__all__ = ["Writer"]

Deliver = Callable[[Sequence[Call], News | None], None]


class Writer:
    """Works in the writing lane. `deliver` is called, in this thread, with calls that have their outcome and with news.

    `watched` says whether anybody wants news.
    """

    def __init__(
        self, place: Place, durability: Durability, busy: float, watched: Callable[[], bool], deliver: Deliver
    ) -> None:
        self._place = place
        self._guard = Guard(place)
        self._durability = durability
        self._busy = busy
        self._watched = watched
        self._deliver = deliver
        self._looked = 0.0
        self._told = False

    def open(self) -> None:
        self._db = open_for_writing(self._place.path, self._durability, self._busy)
        try:
            self._place.remember()
            self._changes = Changes(Session(self._db))
        except (apsw.Error, Unavailable) as error:
            fault = fault_of(error, self._db) if isinstance(error, apsw.Error) else None
            self._db.close()
            if fault is None:
                raise
            raise fault from error

    def close(self) -> None:
        self._db.close()

    @property
    def pause(self) -> float | None:
        return limits.POLL if self._watched() else None

    def idle(self) -> None:
        """Look for what other processes committed."""
        news = self._look(ours=False) if self._fault() is None else self._tell_once()
        if news is None or news:
            self._deliver((), news)

    def perform(self, group: Sequence[Call]) -> None:
        """All of it: also a call whose caller was cancelled meanwhile, so that it does not depend on the moment."""
        fault = self._fault()
        if fault is None:
            self._try(group)
            news = self._news(group)
        else:
            self._fail(group, fault)
            news = self._tell_once()
        self._deliver(group, news)

    def _fault(self) -> Unavailable | None:
        fault = self._guard.fault()
        self._told = self._told and fault is not None
        return fault

    def _tell_once(self) -> News | None:
        """Of a lost file nothing new is ever told: who waits has to look, and is told of the fault."""
        told, self._told = self._told, True
        return [] if told else None

    def _news(self, calls: Sequence[Call]) -> News | None:
        ours = any(not isinstance(call, Append) for call in calls)
        if not self._watched() or not (ours or time.monotonic() - self._looked > limits.POLL):
            return []
        return self._look(ours=ours)

    def _look(self, *, ours: bool) -> News | None:
        self._looked = time.monotonic()
        try:
            return self._changes.look(ours=ours)
        except apsw.Error:
            return None  # what changed is unknown: whoever watches looks for himself, and is told of the fault

    # --- a group -----------------------------------------------------------------------------------------------------

    def _try(self, calls: Sequence[Call]) -> None:
        try:
            self._commit(calls)
        except apsw.Error as error:
            fault = fault_of(error, self._db)
            if fault is not None:
                self._fail(calls, fault)
            else:
                self._part(calls, error)
        except Exception as error:
            # A value that cannot be stored, or a fault of ours: whosever call it is gets it, and nobody else.
            self._part(calls, error)

    @staticmethod
    def _fail(calls: Sequence[Call], fault: LoomError) -> None:
        for call in calls:
            call.told = ()
            call.outcome = type(fault)(fault.message)

    def _part(self, calls: Sequence[Call], error: Exception) -> None:
        """The group failed by one of its calls: each has a transaction of its own."""
        if len(calls) == 1:
            calls[0].told = ()
            calls[0].outcome = error
            return
        for call in calls:
            self._try([call])

    def _commit(self, calls: Sequence[Call]) -> None:
        session = Session(self._db)
        appends, others = _sort(calls)
        if appends and not others and len(appends) <= sql.GROUP_ROWS and self._append(session, appends):
            self._note(session)
            return
        # If some of these appends were refused, the others stand: taken again they are repeats, and success.
        with transaction(self._db):
            for start in range(0, len(appends), sql.GROUP_ROWS):
                self._append_all(session, appends[start : start + sql.GROUP_ROWS])
            self._one_by_one(session, others)
        self._note(session)

    def _append_all(self, session: Session, appends: Sequence[Append]) -> None:
        if not self._append(session, appends):
            self._one_by_one(session, appends)

    @staticmethod
    def _append(session: Session, appends: Sequence[Append]) -> bool:
        """Appends to different logs in one step. False: not all were stored."""
        values: list[object] = []
        for call in appends:
            batch = call.batch
            values += (call.log, batch.epoch, batch.first, batch.last, batch.payload)
        count = session.run(sql.appends(len(appends)), *values)
        if count:
            last = session.db.last_insert_rowid()
            session.added.append((last - count + 1, last))
        if count < len(appends):
            return False
        for call in appends:
            call.added()
        return True

    @staticmethod
    def _one_by_one(session: Session, calls: Sequence[Call]) -> None:
        for call in calls:
            session.told = []
            try:
                call.outcome = call.perform(session)
            except LoomError as refusal:
                call.outcome = refusal
            call.told = session.told

    def _note(self, session: Session) -> None:
        """What was committed is ours."""
        for first, last in session.added:
            self._changes.batches.own(first, last)
        session.added = []


def _sort(calls: Sequence[Call]) -> tuple[list[Append], list[Call]]:
    """Each log's first append, and the rest in order. None has returned yet: any order between logs is right."""
    appends: dict[str, Append] = {}
    others: list[Call] = []
    for call in calls:
        if isinstance(call, Append) and call.log not in appends:
            appends[call.log] = call
        else:
            others.append(call)
    return list(appends.values()), others
