"""Server-sent events: bytes to events and batches to bytes, by the WHATWG HTML standard, section 9.2. Pure.

Lines are parsed as bytes: their ends and field names are ASCII, which no part of a longer UTF-8 sequence (nor of a
broken one) can be mistaken for, so parsing first and decoding afterwards gives what the standard's order gives.
"""

from __future__ import annotations

import re

import msgspec

from loom.model import limits
from loom.model.chunk import Batch
from loom.model.errors import ErrorInfo, LimitExceeded, LocalProtocolError

from .views import error_body

__all__ = [
    "FAULT",
    "HEARTBEAT",
    "Decoder",
    "Event",
    "Framer",
    "bookmark",
    "comment",
    "encode_event",
    "fault",
    "frames",
    "retry",
]

FAULT = "!error"
"""The event that tells why a stream of a run breaks off: its data is an error body, ``{"error": {...}}``, it has no id,
and the stream ends behind it. No chunk's type can begin with ``!``: a run's own `error` chunk is another thing."""

HEARTBEAT = b":\n\n"
"""An empty comment: keeps the connection alive and says nothing."""

_BOM = b"\xef\xbb\xbf"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_USUAL = r"(?:id: ?+({}[^\n\0]++)\n)?+(?:event: ?+({}[^\n]++)\n)?+data: ?+({}[^\n]*+)\n\n"
_EVENT = re.compile(_USUAL.replace("{}", "").encode())
_EVENTS = re.compile(f"(?:{_USUAL.replace('{}', '?:')})++".encode())
_LONGEST_RETRY = 10**12


class Event(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. `id` is the last event id as of this event: it persists until another is given."""

    type: str
    data: bytes
    id: str = ""

    @property
    def text(self) -> str:
        """The data as text; what is not UTF-8 in it becomes U+FFFD, as the standard's decoder does it."""
        return self.data.decode("utf-8", "replace")


class Decoder:
    """Decodes one event stream, fed in pieces of any size; an unfinished event at the stream's end is discarded.

    Holds at most one event of `limit` bytes; a larger one raises `LimitExceeded`, and the decoder is of no more use.
    """

    def __init__(self, *, limit: int = limits.EVENT_BYTES) -> None:
        self._limit = limit
        self._tail = bytearray()  # the unfinished last line
        self._started = False  # past the place where a BOM may stand
        self._after_cr = False  # a LF that comes next belongs to that CR
        self._data: list[bytes] = []
        self._size = 0
        self._type = ""
        self._id = ""
        self._midway = False  # whether the current event has a field yet
        self.last_event_id = ""
        """What a reconnect sends as ``Last-Event-ID``."""
        self.retry: float | None = None
        """The pause before a reconnect that the server asked for last, in seconds."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order."""
        if not self._started:
            data = self._skip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._keep(data)
            return []
        if self._tail:
            self._tail += data
            data = bytes(self._tail)
            self._tail.clear()
        return self._parse(data)

    def _skip_bom(self, data: bytes) -> bytes:
        """One BOM at the very start is dropped (section 9.2.5); until it is known to be one, nothing goes on."""
        head = bytes(self._tail) + data
        self._tail.clear()
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._tail += head
            return b""
        self._started = True
        return head.removeprefix(_BOM)

    def _parse(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        at = 0
        while True:
            if not self._midway:
                at = self._take_usual(data, at, events)
            end = data.find(b"\n", at)
            if end < 0:
                break
            self._line(data[at:end], events)
            at = end + 1
        self._keep(data[at:])
        return events

    def _take_usual(self, data: bytes, at: int, events: list[Event]) -> int:
        """Take the events in the usual form (at most an id, a type, one line of data, in this order) all at once."""
        match = _EVENTS.match(data, at)
        if match is None:
            return at
        last = self.last_event_id
        for id, type, value in _EVENT.findall(data, at, match.end()):
            if len(value) > self._limit:
                raise self._too_large()
            last = id.decode("utf-8", "replace") if id else last
            events.append(Event(type.decode("utf-8", "replace") if type else "message", value, last))
        self._id = self.last_event_id = last
        return match.end()

    def _line(self, line: bytes, events: list[Event]) -> None:
        """Section 9.2.6: a blank line dispatches; a colon leads a comment or parts a field's name from its value."""
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(line) + 1
            if self._size > self._limit:
                raise self._too_large()
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry":
            self._set_retry(value)
            return
        else:
            return
        self._midway = True

    def _dispatch(self, events: list[Event]) -> None:
        self.last_event_id = self._id
        if self._data:
            events.append(Event(self._type or "message", b"\n".join(self._data), self._id))
            self._data.clear()
            self._size = 0
        self._type = ""
        self._midway = False

    def _set_retry(self, value: bytes) -> None:
        if value.isdigit():  # of bytes: ASCII digits, at least one
            digits = value.lstrip(b"0") or b"0"
            self.retry = (int(digits) if len(digits) <= 12 else _LONGEST_RETRY) / 1000

    def _keep(self, data: bytes) -> None:
        self._tail += data
        if self._size + len(self._tail) > self._limit:
            raise self._too_large()

    def _too_large(self) -> LimitExceeded:
        return LimitExceeded(f"an event larger than {self._limit} bytes", code="too_large")


# --- encoding --------------------------------------------------------------------------------------------------------


def frames(batch: Batch, *, named: bool = True, prefix: bytes = b"") -> bytes:
    """A batch's chunks as events: ``id: <prefix><epoch>-<seq>``, ``event: <type>`` (if `named`), ``data: <the JSON>``.

    Nothing is decoded or checked: types and prefix are words, and JSON lines hold no line end.
    """
    return Framer(named=named, prefix=prefix).frames(batch)


class Framer:
    """`frames` for the batches of one run, which mostly have one epoch and one type: it remembers what both become."""

    def __init__(self, *, named: bool = True, prefix: bytes = b"") -> None:
        self._named = named
        self._prefix = prefix
        self._epoch = -1
        self._id = b""  # up to the seq
        self._mark = b"\n"  # how a line of the remembered type begins; at first no line does
        self._event = b""  # from behind the seq to the JSON

    def frames(self, batch: Batch) -> bytes:
        """See the function."""
        payload = batch.payload
        if batch.epoch != self._epoch:
            self._epoch = batch.epoch
            self._id = b"id: %b%d-" % (self._prefix, batch.epoch)
        if not payload.startswith(self._mark):
            self._remember(payload)
        if batch.first == batch.last:  # a live stream, mostly; the payload brings its own line end
            return b"%b%d%b%b\n" % (self._id, batch.first, self._event, payload)
        same = not self._named or payload.count(b"\n" + self._mark) == len(batch) - 1
        return self._of_one_type(batch) if same else self._of_many_types(batch)

    def _remember(self, payload: bytes) -> None:
        """`type` is always a line's first key."""
        if not self._named:
            self._mark, self._event = b"", b"\ndata: "
            return
        end = payload.index(b'"', 9)
        self._mark = payload[: end + 1]
        self._event = b"\nevent: %b\ndata: " % payload[9:end]

    def _of_one_type(self, batch: Batch) -> bytes:
        lines = batch.lines()
        columns: list[object] = [None] * (2 * len(lines))
        columns[0::2] = range(batch.first, batch.last + 1)
        columns[1::2] = lines
        template = b"%b%%d%b%%b\n\n" % (self._id.replace(b"%", b"%%"), self._event)
        return template * len(lines) % tuple(columns)

    def _of_many_types(self, batch: Batch) -> bytes:
        lines = batch.lines()
        columns: list[object] = [None] * (3 * len(lines))
        columns[0::3] = range(batch.first, batch.last + 1)
        columns[1::3] = [line[9 : line.index(b'"', 9)] for line in lines]
        columns[2::3] = lines
        template = b"%b%%d\nevent: %%b\ndata: %%b\n\n" % self._id.replace(b"%", b"%%")
        return template * len(lines) % tuple(columns)


def encode_event(data: str | bytes, *, type: str | None = None, id: str | None = None) -> bytes:
    """One event. Data may have several lines, whose ends arrive as LF.

    Raises `LocalProtocolError` when `type` or `id` holds a control character: a line end would forge fields.
    """
    if isinstance(data, str):
        data = data.encode()
    head = b"" if id is None else b"id: %b\n" % _field("id", id)
    if type is not None:
        head += b"event: %b\n" % _field("event", type)
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return head + b"".join([b"data: %b\n" % line for line in lines]) + b"\n"


def bookmark(id: str) -> bytes:
    """Sets the reader's last event id without an event: what it reconnects with from now on. Raises as above."""
    return b"id: %b\n\n" % _field("id", id)


def comment(text: str = "") -> bytes:
    """A comment, which readers ignore. Raises as above."""
    return b": %b\n\n" % _field("comment", text) if text else HEARTBEAT


def retry(seconds: float) -> bytes:
    """Asks the reader to pause this long before it reconnects."""
    return b"retry: %d\n\n" % max(0, round(seconds * 1000))


def fault(error: ErrorInfo, *, named: bool = True) -> bytes:
    """The last event of a stream that breaks off (see `FAULT`)."""
    return encode_event(error_body(error), type=FAULT if named else None)


def _field(name: str, text: str) -> bytes:
    if _CONTROL.search(text):
        raise LocalProtocolError(f"{name}: control character in {text[:80]!r}")
    return text.encode()
