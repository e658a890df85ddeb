"""Whether the file that was opened is still the one that others find: a deleted one takes writes, and loses them."""

from __future__ import annotations

import os
import time

from loom.model import limits
from loom.model.errors import Unavailable

__all__ = ["Guard", "Place"]


Identity = tuple[int, int]


class Place:
    """Where the file lies, and which file was found there when it was opened; and so of its write-ahead log, which
    holds what was acknowledged last, and lies there for as long as anybody has the file open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._log = path
        self._opened: Identity | None = None
        self._logged: Identity | None = None

    def remember(self) -> None:
        """It was opened just now. Raises `Unavailable` if it is gone again."""
        self.path = os.path.abspath(self.path)  # the process may change its folder
        self._log = os.path.realpath(self.path) + "-wal"  # SQLite puts it beside the file that a link leads to
        fault = self.fault()
        if fault is not None:
            raise fault

    def fault(self) -> Unavailable | None:
        """What became of the file, if another or none is in its place. Costs a change of threads."""
        try:
            found, log = _identity(self.path), _identity(self._log)
        except OSError as error:
            return Unavailable(f"the store's file is out of reach: {error}")
        self._opened = self._opened or found
        self._logged = self._logged or log
        return self._compared(self.path, found, self._opened) or self._compared(self._log, log, self._logged)

    def _compared(self, path: str, found: Identity | None, known: Identity | None) -> Unavailable | None:
        if found is None and (path == self.path or known is not None):
            return self._lost(path, "was deleted or moved away")
        return None if found == known else self._lost(path, "was replaced by another file")

    @staticmethod
    def _lost(path: str, how: str) -> Unavailable:
        return Unavailable(
            f"the store's file {path} {how} while it was open: nothing more is read or written; put it back, or"
            " start this process again"
        )


def _identity(path: str) -> Identity | None:
    """None: there is no such file."""
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_dev, stat.st_ino


class Guard:
    """Looks at a place for one thread, now and then: every look at a file lets go of the interpreter's lock."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._due = 0.0

    def fault(self) -> Unavailable | None:
        """As `Place.fault`, seen at most `limits.PLACE` seconds ago; what is lost is looked for each time."""
        now = time.monotonic()
        if now < self._due:
            return None
        fault = self._place.fault()
        if fault is None:
            self._due = now + limits.PLACE
        return fault
