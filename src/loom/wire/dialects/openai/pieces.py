"""What the chunks of a run say to a client of OpenAI: pieces of the message, and parts that are told last.

Strings and text deltas are text as they are, typed parts go by their kind, any other value is its JSON on a line of its
own. Everything else (progress, logs, chunks of the producer's own types) has no place on this wire.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from loom.model.parts import (
    FinishReasonPart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    UsagePart,
)
from loom.wire.dialects.lines import ChunkFields
from loom.wire.json import encode

__all__ = ["FIELDS", "Last", "Piece", "plain_text", "result_of", "said_of"]


class Piece(NamedTuple):
    """A piece of the message: which field of it, and the JSON string that is added."""

    field: bytes
    text: bytes


Last = ToolCallPart | ToolResultPart | FinishReasonPart | UsagePart
"""What is told at the answer's end, if at all."""

_TEXT = b'{"type":"data","data":"'
_SOURCE = b',"source"'
_part: msgspec.json.Decoder[Part] = msgspec.json.Decoder(Part)
FIELDS: dict[type[Any], bytes] = {
    TextPart: b"content",
    ReasoningPart: b"reasoning_content",  # as vLLM, DeepSeek and others have it; OpenAI shows none
    RefusalPart: b"refusal",
}


def said_of(line: ChunkFields) -> Piece | Last | None:
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


def result_of(line: ChunkFields) -> Piece | None:
    """The result as text, when nothing else was said."""
    data = bytes(line.data)
    if data in (b"null", b'""'):
        return None
    return Piece(b"content", data if data.startswith(b'"') else encode(data.decode()))


def plain_text(line: bytes) -> bytes | None:
    """The JSON string of a data chunk that is a text without escapes and without a source, as nearly every token is:
    found, not decoded."""
    if not line.startswith(_TEXT) or b"\\" in line:
        return None
    end = line.index(b'"', len(_TEXT)) + 1
    return None if line.startswith(_SOURCE, end) else line[len(_TEXT) - 1 : end]
