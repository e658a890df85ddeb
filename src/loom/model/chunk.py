"""Chunks, batches and pages: what a run says, how it is written together, what one read returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

import msgspec

from .cursor import Cursor
from .parts import Usage
from .root_error import ErrorInfo

__all__ = ["CANCEL", "Batch", "Chunk", "Message", "Page", "Progress", "Result"]

T = TypeVar("T")


class Progress(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """How far a run is: `current` of `total` (in units of the producer's choice), with a word on it."""

    current: float
    total: float | None = None
    message: str | None = None


class Result(msgspec.Struct, Generic[T], frozen=True):
    """Yielded once, last: the run's result. A coroutine function returns it instead."""

    value: T


class Chunk(msgspec.Struct, Generic[T], frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """One immutable thing a run says.

    `type` is an open word; `start`, `complete` and `error` are reserved for the life of the run.
    `time` is in Unix seconds. `seq` and `epoch` are its position, set by the reader: they are never stored.
    `usage` stands in the chunk that ends the run, and in the `start` of later attempts: what the run's models have used
    up to there; None if none was asked.
    """

    type: str
    data: T = cast(Any, None)
    progress: Progress | None = None
    error: ErrorInfo | None = None
    source: str | None = None
    time: float = 0.0
    seq: int = 0
    epoch: int = 0
    usage: Usage | None = None

    @property
    def cursor(self) -> Cursor:
        """Give this to `after=` to read on behind this chunk."""
        return Cursor(self.epoch, self.seq)


class Message(msgspec.Struct, Generic[T], frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """One thing a run is told, through its inbox. `sender` and `id` make sending it twice the same as once."""

    type: str
    data: T = cast(Any, None)
    sender: str = ""
    id: str = ""
    time: float = 0.0


CANCEL = "cancel"
"""Type, sender and id of the message that ends a run; reserved. There is one of it, and a full inbox takes it still."""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Consecutive chunks that are written together: chunks `first` to `last` of `epoch`.

    `payload` is their JSON, one line each, each line ended by LF, `type` always the first key of a line.
    Position gives the seq; the lines hold none.
    """

    epoch: int
    first: int
    last: int
    payload: bytes

    @property
    def cursor(self) -> Cursor:
        """The position behind the batch's last chunk."""
        return Cursor(self.epoch, self.last)

    def __len__(self) -> int:
        return self.last - self.first + 1

    def lines(self) -> list[bytes]:
        """The chunks' JSON, in order, without line ends."""
        lines = self.payload.split(b"\n")
        lines.pop()
        return lines

    def slice(self, first: int, last: int) -> Batch:
        """The part of this batch from chunk `first` to chunk `last`, both included and both inside."""
        if first == self.first and last == self.last:
            return self
        assert self.first <= first <= last <= self.last
        lines = self.lines()[first - self.first : last - self.first + 1]
        return Batch(self.epoch, first, last, b"\n".join(lines) + b"\n")


class Page(msgspec.Struct, frozen=True, gc=False):
    """What one read returns: batches that continue at `after` + 1 without a gap.

    `cursor` is where to read on (the `after` that was given, if there was nothing). `caught_up`: the page reached
    the tail as it was. `ended`: the log has ended and this page reaches its end; "caught up" is not "ended".
    """

    batches: tuple[Batch, ...]
    cursor: Cursor | None
    caught_up: bool
    ended: bool

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    @property
    def size(self) -> int:
        """Payload bytes, line ends included."""
        return sum([len(batch.payload) for batch in self.batches])

    def lines(self) -> Iterator[tuple[Cursor, bytes]]:
        """Each chunk's cursor and JSON, in order."""
        for batch in self.batches:
            for seq, line in enumerate(batch.lines(), batch.first):
                yield Cursor(batch.epoch, seq), line
