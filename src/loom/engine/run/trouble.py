"""A store that refuses or fails, as loops meet it that go on all the same: one line of the log, and slower tries."""

from __future__ import annotations

import logging

from loom.backoff import REPEATABLE
from loom.model import limits
from loom.model.errors import LoomError
from loom.model.text import escaped

__all__ = ["Trouble"]

TROUBLES = 100
"""Different errors of a store that are remembered as logged: far more than come in turn, unless each has a text of its
own."""


class Trouble:
    """The store's errors that the loops of one owner meet. Each is logged once, however often and in however many loops
    it is met, and its end is logged once."""

    def __init__(self, log: logging.Logger, owner: str) -> None:
        self._log = log
        self._owner = owner
        self._met: dict[str, set[object]] = {}

    def met(self, loop: object, error: Exception) -> None:
        """`loop` met `error`, and will try again."""
        told = f"{type(error).__name__}: {error}"
        if told not in self._met:
            self._tell(error)
        for loops in self._met.values():
            loops.discard(loop)
        self._met.setdefault(told, set()).add(loop)
        if len(self._met) > TROUBLES:
            del self._met[next(iter(self._met))]

    def _tell(self, error: Exception) -> None:
        if isinstance(error, REPEATABLE):
            self._log.warning("%s: the store is out of reach: %s", self._owner, escaped(str(error)))
        elif isinstance(error, LoomError):
            self._log.error(
                "%s: the store refuses it; trying again, at last every %.0f s: %s",
                self._owner, limits.REFUSED_RETRY, escaped(str(error)),
            )  # fmt: skip
        else:  # a fault of ours or of the store's: where it happened is worth knowing, once
            self._log.error("%s: the store failed", self._owner, exc_info=error)

    def over(self, loop: object) -> None:
        """`loop` has what it wanted."""
        if not self._met:
            return
        for told, loops in list(self._met.items()):
            loops.discard(loop)
            if not loops:
                del self._met[told]
        if not self._met:
            self._log.warning("%s: the store answers again", self._owner)
