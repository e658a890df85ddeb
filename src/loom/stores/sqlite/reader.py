"""The reading thread: a connection of its own, which no writer holds up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw

from loom.model.errors import LoomError

from .calls import Call, Session
from .database import fault_of, open_for_reading
from .place import Guard, Place

__all__ = ["Reader"]


class Reader:
    """Works in the reading lane. `deliver` is called, in this thread, with calls that have their outcome."""

    pause: float | None = None

    def __init__(self, place: Place, busy: float, deliver: Callable[[Sequence[Call]], None]) -> None:
        self._place = place
        self._guard = Guard(place)
        self._busy = busy
        self._deliver = deliver

    def open(self) -> None:
        self._db = open_for_reading(self._place.path, self._busy)

    def close(self) -> None:
        self._db.close()

    def idle(self) -> None:
        raise AssertionError("its pause is for ever")

    def perform(self, group: Sequence[Call]) -> None:
        for call in group:
            if not call.future.done():  # who was cancelled reads nothing
                call.outcome = self._outcome(call)
        self._deliver(group)

    def _outcome(self, call: Call) -> object:
        fault = self._guard.fault()
        if fault is not None:
            return fault
        try:
            return call.perform(Session(self._db))
        except LoomError as refusal:
            return refusal
        except apsw.Error as error:
            return fault_of(error, self._db) or error
        except Exception as error:  # a value that cannot be looked up, or a fault of ours: its caller gets it
            return error
