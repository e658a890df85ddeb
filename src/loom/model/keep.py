"""What of a log that never ends is kept: its bounds, and the account of what lies where. Pure."""

from __future__ import annotations

from collections import deque
from datetime import timedelta

import msgspec

from . import limits
from .errors import UsageError
from .numbers import is_duration, is_whole, seconds

__all__ = ["Keep", "Ledger"]


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a run's log is kept while it goes on: its newest `chunks`, its newest `bytes`, what is younger than
    `age` (seconds or a timedelta). With several of them the narrowest counts.

    Older chunks are forgotten by whole batches, an eighth of the bound at a time: up to that much more is kept, but
    never less, and the newest batch always. Readers behind what is kept get `CursorExpired`. Raises `UsageError`
    for bounds that are none.
    """

    chunks: int | None = None
    bytes: int | None = None
    age: float | timedelta | None = None

    def __post_init__(self) -> None:
        if self.chunks is None and self.bytes is None and self.age is None:
            raise UsageError("Keep(): say how much, as Keep(chunks=10_000), Keep(bytes=1 << 20) or Keep(age=3600)")
        for name in ("chunks", "bytes"):
            value = getattr(self, name)
            if value is not None and not is_whole(value):
                raise UsageError(f"Keep({name}={value!r}): a whole number, more than 0")
        if self.age is not None and not is_duration(self.age):
            raise UsageError(f"Keep(age={self.age!r}): seconds or a timedelta, more than 0")

    @property
    def seconds(self) -> float:
        """`age` in seconds; 0 without one."""
        return seconds(self.age) or 0.0


class _Part:
    """Consecutive batches that are forgotten together: up to chunk `last`, the newest of them stored at `time`."""

    __slots__ = ("chunks", "last", "since", "size", "time")

    def __init__(self, now: float) -> None:
        self.chunks = self.size = self.last = 0
        self.since = self.time = now

    def add(self, last: int, chunks: int, size: int, now: float) -> None:
        self.last = last
        self.chunks += chunks
        self.size += size
        self.time = now


class Ledger:
    """What a log holds, in about `limits.TRIM_PARTS` parts a bound, oldest first. What was there before counts as of
    now: it is kept longer, never shorter. `tail` and `size` are its last seq and its bytes; times are monotonic."""

    def __init__(self, keep: Keep, tail: int, size: int, now: float) -> None:
        self._keep = keep
        self._parts: deque[_Part] = deque()
        self._chunks = 0
        self.size = 0
        """The bytes that the log holds."""
        if tail:
            self.add(tail, tail, size, now)

    def add(self, last: int, chunks: int, size: int, now: float) -> None:
        """A batch up to chunk `last` was stored."""
        if not self._parts or self._complete(self._parts[-1], now):
            self._parts.append(_Part(now))
        self._parts[-1].add(last, chunks, size, now)
        self._chunks += chunks
        self.size += size

    def _complete(self, part: _Part, now: float) -> bool:
        keep, parts = self._keep, limits.TRIM_PARTS
        return (
            (keep.chunks is not None and part.chunks * parts >= keep.chunks)
            or part.size * parts >= (keep.bytes or limits.LOG_BYTES)
            or (keep.age is not None and (now - part.since) * parts >= keep.seconds)
        )

    def cut(self, now: float) -> int | None:
        """The first seq to keep, if some parts may be forgotten now: they are, in this account."""
        kept = None
        while len(self._parts) > 1 and self._beyond(self._parts[0], now):
            part = self._parts.popleft()
            self._chunks -= part.chunks
            self.size -= part.size
            kept = part.last + 1
        return kept

    def _beyond(self, part: _Part, now: float) -> bool:
        """Whether what is kept without it is still all that is to be kept."""
        keep = self._keep
        return (
            (keep.chunks is not None and self._chunks - part.chunks >= keep.chunks)
            or (keep.bytes is not None and self.size - part.size >= keep.bytes)
            or (keep.age is not None and now - part.time >= keep.seconds)
        )
