"""A strict reader of HTTP/1.1 requests (RFC 9112): the requests in some bytes, up to the first doubt. Pure, and apart
from every parser that the server uses."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

__all__ = ["End", "Head", "Reading", "read_requests"]

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) +([!-~]+) +(?:HTTP|RTSP|ICE)/1\.([01])")
"""Protocols that llhttp takes for HTTP are framed like it."""
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class End(Enum):
    """Why reading ended."""

    ALL = "all bytes are read"
    CLOSED = "the last request closes the connection"
    CUT = "the next request is incomplete"
    DOUBT = "the next request is malformed"


class Head(NamedTuple):
    """What a request asks for."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    old: bool
    """HTTP/1.0."""
    body: bytes = b""
    """As it goes over the wire."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    @property
    def closes(self) -> bool:
        options = b",".join(self.values(b"connection")).lower().split(b",")
        return self.old or b"close" in [option.strip(b" \t") for option in options]


class Reading(NamedTuple):
    """Whole requests, why there are no more, and the head of the one at which reading ended, if it is whole."""

    requests: list[Head]
    end: End
    begun: Head | None = None


class _Malformed(Exception):
    pass


class _Incomplete(Exception):
    pass


def read_requests(data: bytes) -> Reading:
    """Reads until the bytes end, or could be read in two ways."""
    requests: list[Head] = []
    at = 0
    while True:
        while data[at : at + 1] in (b"\r", b"\n"):  # section 2.2
            at += 1
        if at == len(data):
            return Reading(requests, End.ALL)
        head = None
        try:
            head, at = _read_head(data, at)
            end = _skip_body(head, data, at)
        except _Malformed:
            return Reading(requests, End.DOUBT, head)
        except _Incomplete:
            return Reading(requests, End.CUT, head)
        requests.append(head._replace(body=data[at:end]))
        at = end
        if head.closes:
            return Reading(requests, End.CLOSED)


def _read_line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    line = data[at:] if end < 0 else data[at:end]
    if b"\n" in line or b"\r" in (line[:-1] if end < 0 else line):
        raise _Malformed
    if end < 0:
        raise _Incomplete
    return line, end + 2


def _read_head(data: bytes, at: int) -> tuple[Head, int]:
    line, at = _read_line(data, at)
    start = _LINE.fullmatch(line)
    if start is None or start[1] == b"CONNECT":
        raise _Malformed
    fields, at = _read_fields(data, at)
    return Head(start[1], start[2], fields, start[3] == b"0"), at


def _read_fields(data: bytes, at: int) -> tuple[list[tuple[bytes, bytes]], int]:
    fields: list[tuple[bytes, bytes]] = []
    while True:
        line, at = _read_line(data, at)
        if not line:
            return fields, at
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _Malformed
        fields.append((field[1].lower(), field[2].strip(b" \t")))


def _skip_body(head: Head, data: bytes, at: int) -> int:
    """Section 6.3."""
    codings, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    if codings:
        if head.old or lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise _Malformed
        return _skip_chunks(data, at)
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]+", length) for length in lengths):
        raise _Malformed
    return _skip(data, at, int(lengths[0]) if lengths else 0)


def _skip_chunks(data: bytes, at: int) -> int:
    """Section 7.1."""
    while True:
        line, at = _read_line(data, at)
        chunk = _CHUNK.fullmatch(line)
        if chunk is None:
            raise _Malformed
        size = int(chunk[1], 16)
        if not size:
            return _read_fields(data, at)[1]
        at = _skip(data, at, size)
        if not b"\r\n".startswith(data[at : at + 2]):
            raise _Malformed
        at = _skip(data, at, 2)


def _skip(data: bytes, at: int, count: int) -> int:
    if at + count > len(data):
        raise _Incomplete
    return at + count
