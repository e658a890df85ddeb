"""Characters that a provider cuts in half: between two events, or for good. Pure.

A server that cuts its text by UTF-16 units sends the halves of an emoji as two escapes ("\\ud83d", then "\\ude00"), one
that cuts it by bytes sends parts of a UTF-8 sequence. RFC 8259, section 8.2, allows the first; msgspec refuses both.
Between decoding and joining, a str holds halves of pairs as they are, and bytes that are no UTF-8 as `surrogateescape`
has them (U+DC80 to U+DCFF).
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from loom.model.parts import Part, ReasoningPart, TextPart

__all__ = ["PartJoiner", "TextJoiner", "decode_cut", "sound_text", "sound_value"]

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]+")
_CUT = re.compile(
    "(?:[\ud800-\udbff]|[\udcc2-\udcdf]|[\udce0-\udcef][\udc80-\udcbf]?|[\udcf0-\udcf4][\udc80-\udcbf]{0,2})\\Z"
)
"""The first half of a pair, or the beginning of a UTF-8 sequence (Unicode 16, table 3-7), at the end of a text."""

_TEXTS = frozenset(
    {"content", "text", "refusal", "reasoning", "reasoning_content", "thinking", "arguments", "partial_json"}
)
"""Fields of both wires whose text comes in pieces; in all others a half stays one."""

_VALUES = frozenset({"arguments", "input"})
"""Fields whose objects are a tool's arguments, whatever their keys."""


def decode_cut(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The value, where texts that come in pieces may hold halves; elsewhere U+FFFD stands for each. Raises as
    `decoder` does."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            value = json.loads(data.decode("utf-8", "surrogateescape"))
        except ValueError:
            value = None  # no JSON either way: the first error stands
        if value is None:
            raise
        try:
            return msgspec.convert(_settled(value, ""), decoder.type)
        except UnicodeEncodeError:  # its error's text would quote a half
            raise msgspec.ValidationError("a text is none of those expected") from None


def _settled(value: Any, field: str) -> Any:
    match value:
        case str():
            return value if field in _TEXTS else sound_text(value)
        case list():
            return [_settled(item, field) for item in value]
        case dict():
            inside = "input" if field in _VALUES else None
            return {sound_text(name): _settled(item, inside or name) for name, item in value.items()}
    return value


def sound_value(value: Any) -> Any:
    """`sound_text` of all texts in a value of JSON's types, whatever their fields."""
    return _settled(value, "input")


def sound_text(text: str) -> str:
    """The text with halves joined where they meet; U+FFFD for those that are alone."""
    if not _SURROGATE.search(text):
        return text
    return _SURROGATE.sub("\ufffd", _BYTES.sub(_decoded, _paired(text)))


def _paired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _decoded(match: re.Match[str]) -> str:
    return match[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class TextJoiner:
    """Text that comes in pieces: half a character at the end of one is kept until the next piece, or the end."""

    def __init__(self) -> None:
        self._cut = ""

    def feed(self, piece: str) -> str:
        """The text that is known by now; "" if that is nothing."""
        if not self._cut and (piece.isascii() or not _SURROGATE.search(piece)):
            return piece
        text = _paired(self._cut + piece)
        match = _CUT.search(text)
        self._cut = match[0] if match else ""
        return sound_text(text[: match.start()] if match else text)

    def end(self) -> str:
        """U+FFFD for what was cut and never went on, else ""."""
        cut, self._cut = self._cut, ""
        return sound_text(cut)


class PartJoiner:
    """The texts of an answer's parts, each made whole: text and reasoning apart."""

    def __init__(self) -> None:
        self._text = TextJoiner()
        self._thought = TextJoiner()

    def feed(self, part: Part) -> list[Part]:
        """The parts to be given for it. A signature ends the reasoning before it."""
        match part:
            case TextPart():
                text = self._text.feed(part.text)
                return [TextPart(text)] if text else []
            case ReasoningPart(signature=""):
                thought = self._thought.feed(part.text)
                return [ReasoningPart(thought)] if thought else []
            case ReasoningPart():
                return [*self.end(), part]
        return [part]

    def end(self) -> list[Part]:
        """Parts with U+FFFD for halves that never went on, where an answer or a block of it ends."""
        thought, text = self._thought.end(), self._text.end()
        return [*([ReasoningPart(thought)] if thought else []), *([TextPart(text)] if text else [])]
