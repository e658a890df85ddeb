"""Whether the file that was opened is still the one that others find: a deleted one takes writes, and loses them."""

from __future__ import annotations

import os
import time

from loom.model import limits
from loom.model.errors import Unavailable

__all__ = ["Guard", "Place"]


class Place:
    """Where the file lies, and which file was found there when it was opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened: tuple[int, int] | None = None

    def remember(self) -> None:
        """It was opened just now. Raises `Unavailable` if it is gone again."""
        self.path = os.path.abspath(self.path)  # the process may change its folder
        fault = self.fault()
        if fault is not None:
            raise fault

    def fault(self) -> Unavailable | None:
        """What became of the file, if another or none is in its place. Costs a change of threads."""
        try:
            stat = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return self._lost("was deleted or moved away")
        except OSError as error:
            return Unavailable(f"the store's file is out of reach: {error}")
        found = (stat.st_dev, stat.st_ino)
        self._opened = self._opened or found
        return None if found == self._opened else self._lost("was replaced by another file")

    def _lost(self, how: str) -> Unavailable:
        return Unavailable(
            f"the store's file {self.path} {how} while it was open: nothing more is read or written; put it back, or"
            " start this process again"
        )


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
