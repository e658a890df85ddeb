"""Readers' marks in every store: when a reader is forgotten, and how many there may be.

By the store's clock, not by watching, as leases are: a mark only decides how long a producer waits, also where nobody
has watched it, and a clock that jumps costs one heartbeat.
"""

from __future__ import annotations

from loom.model import limits
from loom.model.errors import LimitExceeded
from loom.model.run import Mark

__all__ = ["Positions", "beat_after", "is_forgotten", "too_many_readers"]


def beat_after(before: int | None, now: float) -> int:
    """The beat of a mark that is made at `now`, by the store's clock in seconds; `before`: the reader's last one.

    It is that time in milliseconds, so that a mark shows its age, but never the same twice: observers see it change.
    """
    beat = _milliseconds(now)
    return beat if before is None or is_forgotten(before, now) else max(beat, before + 1)


def is_forgotten(beat: int, now: float) -> bool:
    """True if the mark is older than a reader may be silent. One from the future is of a clock that was set back."""
    return abs(_milliseconds(now) - beat) > _milliseconds(limits.READER_LEASE)


def too_many_readers(run: str) -> LimitExceeded:
    """Why a new reader is refused."""
    return LimitExceeded(f"{limits.READERS} readers are attached to run {run!r}")


class Positions(dict[str, Mark]):
    """The marks of one log's readers, of a store that holds them in memory."""

    def commit(self, log: str, reader: str, seq: int | None, now: float) -> None:
        """As `LogStore.commit_position`, at `now` by the store's clock."""
        before = self.pop(reader, None)
        if seq is None:
            return
        if before is None and len(self) >= limits.READERS:
            for silent in [mark.reader for mark in self.values() if is_forgotten(mark.beat, now)]:
                del self[silent]
            if len(self) >= limits.READERS:
                raise too_many_readers(log)
        self[reader] = Mark(reader, seq, beat_after(None if before is None else before.beat, now))

    def attached(self, now: float) -> list[Mark]:
        """Without the forgotten ones."""
        return [mark for mark in self.values() if not is_forgotten(mark.beat, now)]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
