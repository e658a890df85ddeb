"""JSON, encoded once and decoded with care: msgspec, with the depth of what comes from outside bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from loom.model import limits
from loom.model.chunk import Batch, Chunk, Message
from loom.model.errors import ErrorInfo, InvalidInput, LimitExceeded, RemoteProtocolError

from .values import written

__all__ = [
    "check_depth",
    "check_size",
    "decode",
    "decode_as",
    "decode_batch",
    "decode_chunk",
    "decode_message",
    "encode",
    "ending_of",
    "escape_line_ends",
    "make_batch",
    "mended",
    "sound",
    "type_of",
]

T = TypeVar("T")


_encode = msgspec.json.Encoder(enc_hook=written).encode
_any = msgspec.json.Decoder()
_skip = msgspec.json.Decoder(msgspec.Raw)
_chunk: msgspec.json.Decoder[Chunk[Any]] = msgspec.json.Decoder(Chunk)
_message: msgspec.json.Decoder[Message[Any]] = msgspec.json.Decoder(Message)
_place = msgspec.structs.force_setattr
_MISSING = re.compile(r"Object missing required field `(.+)`")
_TYPE = re.compile(rb'\{"type":"([!#-\[\]-~]*)"')
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_LINE_ENDS = {end: (end.encode(), b"\\u%04x" % ord(end)) for end in "\u2028\u2029\x85"}
"""Line ends to Unicode (UAX #14), though not to JSON (RFC 8259, section 7): `str.splitlines`, and with it the line
readers of httpx and requests, would cut an event in two there. As escapes they are the same JSON."""


def encode(value: Any) -> bytes:
    """The value's JSON, on one line by any reader's count; of a user's data see `data.encode_data`. Raises `TypeError`
    for what has none."""
    data = _encode(value)
    return data if data.isascii() else escape_line_ends(data)


def escape_line_ends(data: bytes) -> bytes:
    """The same JSON with `_LINE_ENDS` as escapes."""
    # First by single bytes, some GB/s; then in the text, where a search takes a third of its time in bytes.
    if not ((0x80 in data and (0xA8 in data or 0xA9 in data)) or (0x85 in data and 0xC2 in data)):
        return data
    text = str(data, "utf-8", "replace")
    for end, (raw, escape) in _LINE_ENDS.items():
        if end in text:
            data = data.replace(raw, escape)
    return data


# Possessive, and content with a string that never ends: each byte is looked at once, whatever an attacker sends.
# Compiled when it is first needed, as the one below: few processes ever need either.
_BRACKETS = rb'(?s)"(?:[^"\\]++|\\.)*+"?|([\[{])|([\]}])'


def check_depth(data: bytes | bytearray | memoryview) -> None:
    """Raise `RemoteProtocolError` when JSON nests deeper than `limits.JSON_DEPTH`.

    Cheap for what is innocent: only data with that many opening brackets is looked at closely.
    """
    data = bytes(data)
    if data.count(b"[") + data.count(b"{") <= limits.JSON_DEPTH:
        return
    depth = 0
    for match in re.finditer(_BRACKETS, data):
        if match[1]:
            depth += 1
            if depth > limits.JSON_DEPTH:
                raise RemoteProtocolError(f"JSON nested deeper than {limits.JSON_DEPTH}")
        elif match[2]:
            depth -= 1


def sound(data: bytes) -> bytes:
    """Our own encoder's output, once it is known to be one JSON value on one line, in UTF-8.

    The encoder passes a `msgspec.Raw` inside a value on as it is: cut off, on several lines, in any encoding. What is
    valid is put on one line. Raises `ValueError` for what is not.
    """
    try:
        _skip.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"a msgspec.Raw in it is no JSON: {error}") from None
    if not data.isascii():
        data.decode()
    return data if b"\n" not in data and b"\r" not in data else encode(_any.decode(data))


# A pair of surrogates, one half alone (the group), or another escape (RFC 8259, section 7).
_ESCAPE = rb"(?s)\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"


def mended(data: bytes) -> bytes:
    """The same JSON with U+FFFD for each half of a surrogate pair that stands alone, and for bytes that are no UTF-8.

    For documents of others' making: RFC 8259, section 8.2, allows such halves, and no decoder of ours takes them.
    """
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()
    return re.sub(_ESCAPE, lambda match: b"\\ufffd" if match[1] else match[0], data)


def _no_json(data: bytes, error: Exception) -> RemoteProtocolError:
    """The decoder's error; where a half of a surrogate pair or a byte that is no UTF-8 is the reason, its place in the
    whole document."""
    try:
        bytes(data).decode()
    except UnicodeDecodeError as fault:
        return RemoteProtocolError(f"JSON that is no UTF-8: {fault.reason} at byte {fault.start}")
    for match in re.finditer(_ESCAPE, data):
        if match[1]:
            half = f"\\{match[1].decode()} at byte {match.start()}"
            return RemoteProtocolError(
                f"a lone surrogate in JSON: {half} is half of a character (RFC 8259, section 8.2)"
            )
    return RemoteProtocolError(f"not JSON: {error}")


def decode(data: bytes) -> Any:
    """The JSON value. Raises `RemoteProtocolError` when it is none, or nests too deeply."""
    check_depth(data)
    try:
        return _any.decode(data)
    except _FAULTS as error:
        raise _no_json(data, error) from None


def decode_as(data: bytes, type: type[T]) -> T:
    """The JSON value as `type`. Raises `RemoteProtocolError` as `decode`, `InvalidInput` naming the field."""
    check_depth(data)
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        place = path.rstrip("`").removeprefix(".")
        missing = _MISSING.fullmatch(message)
        field = ".".join(filter(None, (place, missing[1]))) if missing else place
        raise InvalidInput(f"{place}: {message}" if place else message, details={"field": field}) from None
    except _FAULTS as error:
        raise _no_json(data, error) from None


def decode_chunk(line: bytes) -> Chunk[Any]:
    """One stored line as a chunk, without its position. Raises `RemoteProtocolError`."""
    try:
        return _chunk.decode(line)
    except _FAULTS as error:
        raise RemoteProtocolError(f"not a chunk: {error}") from None


def decode_message(line: bytes) -> Message[Any]:
    """One stored inbox line. Raises `RemoteProtocolError`."""
    try:
        return _message.decode(line)
    except _FAULTS as error:
        raise RemoteProtocolError(f"not a message: {error}") from None


def decode_batch(batch: Batch) -> list[Chunk[Any]]:
    """A batch's chunks, each with its position. Raises `RemoteProtocolError`."""
    try:
        chunks = _chunk.decode_lines(batch.payload)
    except _FAULTS as error:
        raise RemoteProtocolError(f"not chunks: {error}") from None
    seq, epoch = batch.first, batch.epoch
    for chunk in chunks:
        _place(chunk, "seq", seq)
        _place(chunk, "epoch", epoch)
        seq += 1
    if seq != batch.last + 1:
        raise RemoteProtocolError(f"a batch of {len(batch)} chunks holds {len(chunks)}")
    return chunks


def make_batch(epoch: int, first: int, chunks: Iterable[Chunk[Any] | Message[Any]]) -> Batch:
    """The batch of these chunks, encoded (a convenience; the writer encodes as it goes)."""
    lines = [encode(chunk) for chunk in chunks]
    return Batch(epoch, first, first + len(lines) - 1, b"".join(line + b"\n" for line in lines))


def type_of(line: bytes) -> str:
    """A stored line's type, without decoding the line: it is always the first key and a plain word. Raises
    `RemoteProtocolError` where it is not."""
    match = _TYPE.match(line)
    if match is None:
        raise RemoteProtocolError(f"a line begins with {line[:40]!r}, not with its type")
    return match[1].decode()


def ending_of(batch: Batch) -> tuple[ErrorInfo | None, msgspec.Raw | None]:
    """The error, or the result (as JSON), that the last chunk of an ending batch tells."""
    last = decode_chunk(batch.payload[batch.payload.rfind(b"\n", 0, -1) + 1 : -1])
    if last.type == "error":
        return last.error or ErrorInfo("run_failed", ""), None
    return None, msgspec.Raw(encode(last.data))


def check_size(data: bytes | bytearray, most: int, what: str) -> None:
    """Raise `LimitExceeded` (413) when `data` is larger than `most` bytes."""
    if len(data) > most:
        raise LimitExceeded(f"{what} of {len(data)} bytes is larger than {most}", code="too_large")
