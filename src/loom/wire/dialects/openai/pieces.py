"""What the chunks of a run say to a client of OpenAI: pieces of the message, and parts that are told last.

Strings and text deltas are text as they are, typed parts go by their kind, any other value is its JSON on a line of its
own. Everything else (progress, logs, chunks of the producer's own types) has no place on this wire.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from loom.model.chunk import Batch, Chunk
from loom.model.errors import ErrorInfo, RemoteProtocolError
from loom.model.fold import MARKERS, Fold, Retraction
from loom.model.parts import (
    FinishReasonPart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    UsagePart,
)
from loom.wire.json import encode

__all__ = [
    "FIELDS",
    "Last",
    "Line",
    "Piece",
    "RetractedRanges",
    "marker_of",
    "plain_text",
    "read_line",
    "result_of",
    "said_of",
]


class Piece(NamedTuple):
    """A piece of the message: which field of it, and the JSON string that is added."""

    field: bytes
    text: bytes


class Line(msgspec.Struct, gc=False):
    """What of a stored chunk counts here."""

    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorInfo | None = None
    source: str | None = None
    usage: Usage | None = None


Last = ToolCallPart | ToolResultPart | FinishReasonPart | UsagePart
"""What is told at the answer's end, if at all."""

_line = msgspec.json.Decoder(Line)
_TEXT = b'{"type":"data","data":"'
_SOURCE = b',"source"'
_MARKERS = tuple(b'{"type":"%b"' % type.encode() for type in MARKERS)
_part: msgspec.json.Decoder[Part] = msgspec.json.Decoder(Part)
_any = msgspec.json.Decoder()
FIELDS: dict[type[Any], bytes] = {
    TextPart: b"content",
    ReasoningPart: b"reasoning_content",  # as vLLM, DeepSeek and others have it; OpenAI shows none
    RefusalPart: b"refusal",
}


def said_of(line: Line) -> Piece | Last | None:
    """What an output chunk adds to the answer, if anything."""
    if line.type not in ("data", "text-delta"):
        return None
    data = bytes(line.data)
    if data.startswith(b'"'):
        return Piece(b"content", data) if data != b'""' else None
    if line.type == "text-delta" or data == b"null":
        return None
    if b'"part"' in data and (part := _part_of(data)) is not None:
        return part if isinstance(part, Last) else _piece(part)
    return Piece(b"content", encode(data.decode() + "\n"))


def _part_of(data: bytes) -> Part | None:
    try:
        return _part.decode(data)
    except msgspec.ValidationError:  # a value that has a field of that name
        return None


def _piece(part: Part) -> Piece | None:
    field = FIELDS.get(type(part))
    text = getattr(part, "text", "")
    return Piece(field, encode(text)) if field and text else None


def result_of(line: Line) -> Piece | None:
    """The result as text, when nothing else was said."""
    data = bytes(line.data)
    if data in (b"null", b'""'):
        return None
    return Piece(b"content", data if data.startswith(b'"') else encode(data.decode()))


def marker_of(seq: int, line: Line) -> Chunk[Any] | None:
    """The chunk for `Fold.feed`, if the line is one of its markers."""
    if line.type not in MARKERS:
        return None
    return Chunk(line.type, _any.decode(line.data), source=line.source, seq=seq)


def read_line(line: bytes) -> Line:
    """Raises `RemoteProtocolError` for what is no chunk."""
    try:
        return _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a chunk: {error}") from None


def plain_text(line: bytes) -> bytes | None:
    """The JSON string of a data chunk that is a text without escapes and without a source, as nearly every token is:
    found, not decoded."""
    if not line.startswith(_TEXT) or b"\\" in line:
        return None
    end = line.index(b'"', len(_TEXT)) + 1
    return None if line.startswith(_SOURCE, end) else line[len(_TEXT) - 1 : end]


class RetractedRanges:
    """The chunks that later attempts took back, of a log that is read before it is sent."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._retractions: list[Retraction] = []

    def feed(self, batch: Batch) -> None:
        """Look at these chunks."""
        for seq, line in enumerate(batch.lines(), batch.first):
            if line.startswith(_MARKERS) and (marker := marker_of(seq, read_line(line))) is not None:
                retraction = self._fold.feed(marker)
                if retraction is not None:
                    self._retractions.append(retraction)

    def covers(self, seq: int, line: bytes) -> bool:
        """True if the chunk at `seq`, whose JSON this is, was taken back."""
        found = [each for each in self._retractions if each.after < seq < each.before]
        if not found or any(each.step is None for each in found):
            return bool(found)
        source = read_line(line).source
        return any(each.covers(seq, source) for each in found)
