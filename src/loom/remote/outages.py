"""When a server is out of reach, told once: to the log, and to whoever asked to be told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from loom.model.text import escaped

__all__ = ["Outages", "Told"]

Told = Callable[[bool], object]
"""Called with True when the server is out of reach, with False when it answers again. Must not raise or wait."""

_log = logging.getLogger("loom.client")


class Outages:
    """One server's: however many followers find it out, an outage is told once, and once that it is over.

    A stream that is cut is none: proxies do it all day. An outage begins when the next one cannot be had.
    """

    def __init__(self, place: str, told: Told | None = None) -> None:
        self._place = place
        self._told = told
        self._under_way = False

    def begin(self, error: Exception) -> None:
        """A stream could not be had. Idempotent."""
        if not self._under_way:
            self._under_way = True
            _log.warning("connection lost; trying again: %s", escaped(str(error)))
            self._tell()

    def end(self) -> None:
        """The server answers. Idempotent."""
        if self._under_way:
            self._under_way = False
            _log.warning("%s answers again", self._place)
            self._tell()

    def _tell(self) -> None:
        if self._told is not None:
            self._told(self._under_way)
