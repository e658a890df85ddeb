"""What a server says of a log, as pages that are known to continue each other. Pure."""

from __future__ import annotations

import msgspec

from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import LoomError, RemoteProtocolError, UsageError
from loom.wire.sse import FAULT, Decoder, Event
from loom.wire.views import PageView

from .answers import DECODING, fault_of

__all__ = ["Assembler", "Pages", "page_of"]

_ENDINGS = frozenset({"complete", "error"})


class _Typed(msgspec.Struct):
    """Of a chunk, its type."""

    type: str


class Assembler:
    """Chunks with their cursors, one after the other, become batches. Raises `RemoteProtocolError` for a gap, for what
    comes twice, and for a chunk that is not one line."""

    def __init__(self, after: Cursor | None) -> None:
        self._epoch = -1 if after is None else after.epoch
        self._seq = 0 if after is None else after.seq
        self._first = self._seq + 1
        self._lines: list[bytes] = []
        self._batches: list[Batch] = []

    def add(self, id: str, line: bytes) -> None:
        """The chunk that `id`, a cursor's text, stands behind."""
        seq = self._seq + 1
        if id != f"{self._epoch}-{seq}":
            self._begin_epoch(id, seq)
        self._seq = seq
        self._lines.append(line)

    def _begin_epoch(self, id: str, seq: int) -> None:
        try:
            given = Cursor.parse(id)
        except UsageError:
            raise RemoteProtocolError(f"a chunk came at {id[:80]!r}, which is no cursor") from None
        if given.seq != seq or given.epoch <= self._epoch:
            raise RemoteProtocolError(f"a chunk came at {id} where the one after {self._epoch}-{seq - 1} was due")
        self._flush()
        self._epoch = given.epoch

    def _flush(self) -> None:
        if self._lines:
            payload = b"\n".join(self._lines) + b"\n"
            if payload.count(b"\n") != len(self._lines):
                raise RemoteProtocolError("a chunk came in several lines")
            self._batches.append(Batch(self._epoch, self._first, self._seq, payload))
            self._lines.clear()
        self._first = self._seq + 1

    def take(self) -> tuple[Batch, ...]:
        """The batches of what was added since the last call."""
        self._flush()
        batches = tuple(self._batches)
        self._batches.clear()
        return batches


class Pages:
    """The pages of one event stream behind `after`, one for each piece of it that completes any event."""

    def __init__(self, after: Cursor | None) -> None:
        self.fault: LoomError | None = None
        """Why the stream breaks off, once it has said so: nothing follows."""
        self._ended = False
        self._decoder = Decoder()
        self._assembler = Assembler(after)

    @property
    def retry(self) -> float:
        """The pause before a reconnect that the server asks for, in seconds."""
        return self._decoder.retry or 0.0

    def feed(self, data: bytes) -> Page | None:
        """Raises `RemoteProtocolError`, and `LimitExceeded` for an event that is too large; of no more use then."""
        for event in self._decoder.feed(data):
            if self._ended or self.fault is not None:
                break  # there is nothing to say behind an end
            self._take(event)
        batches = self._assembler.take()
        # Where the log's tail is, a stream does not say: only its end is known to be the last there is.
        return Page(batches, batches[-1].cursor, self._ended, self._ended) if batches else None

    def _take(self, event: Event) -> None:
        if event.type == FAULT:
            self.fault = fault_of(event.data)
            return
        self._assembler.add(event.id, event.data)
        _check_type(event)
        self._ended = event.type in _ENDINGS


def _check_type(event: Event) -> None:
    """What ends the stream must be what ends the run: the event's type is its chunk's.

    Raises `RemoteProtocolError`. A chunk as Loom stores it is not decoded for that.
    """
    if event.data.startswith(b'{"type":"%b"' % event.type.encode()):
        return
    try:
        type = msgspec.json.decode(event.data, type=_Typed).type
    except DECODING as error:
        raise RemoteProtocolError(f"a chunk came at {event.id} that is none: {error}") from None
    if type != event.type:
        raise RemoteProtocolError(f"a chunk of type {type[:80]!r} came at {event.id} as {event.type[:80]!r}")


def page_of(view: PageView, after: Cursor | None) -> Page:
    """The page that a JSON answer holds. Raises `RemoteProtocolError`."""
    assembler = Assembler(after)
    for item in view.chunks:
        assembler.add(item.cursor, bytes(item.chunk))
    batches = assembler.take()
    return Page(batches, batches[-1].cursor if batches else after, view.caught_up, view.ended)
