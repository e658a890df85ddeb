"""Makes the bytes of one connection: requests whose bodies hold another request, some of them with a framing trick."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import NamedTuple

__all__ = ["Plan", "make_plan"]

Trick = Callable[[Random, bytes, bytes], tuple[bytes, bytes]]
"""Changes a head, which ends with its last field's CRLF, or a body as it goes over the wire."""

_UPGRADES = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    b"upgrade: x\r\nCONNECTION: keep-alive , upgrade\r\n",
    b"Upgrade: TLS/1.0, HTTP/2.0\r\nConnection: Upgrade\r\n",
    b"Upgrade: x\r\n",
    b"Connection: upgrade\r\n",
)
_EXTRAS = (
    b"X: \t a b \t\r\n", b"X:\r\n", b"Cookie: a=\xff\x80\r\n", b"TE: trailers\r\n", b"Content_Length: 3\r\n",
    b"X-Transfer-Encoding: chunked\r\n", b"Connection: keep-alive\r\n", b"Trailer: X\r\n",
)  # fmt: skip
_LENGTHS = (
    b"Content-Length: 0\r\n", b"Content-Length: 3\r\n", b"Content-Length: +0\r\n", b"Content-Length: 0, 0\r\n",
    b"Content-Length: 0x1\r\n", b"Content-Length: 1 0\r\n", b"Content-Length:\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length : 0\r\n", b"Content-Length\t: 0\r\n",
    b" Content-Length: 0\r\n", b"X: y\r\n Content-Length: 0\r\n", b"X: y\nContent-Length: 0\r\n",
    b"X: y\rContent-Length: 0\r\n", b"X: y\0\r\nContent-Length: 0\r\n", b"Content-Length: 0\n",
    b"content-length: 1\r\n",
    b"Content-Length: 0\x0b\r\n", b"\0Content-Length: 0\r\n", b"Content-Length: \xb2\r\n",
)  # fmt: skip
_CODINGS = (
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding:\r\n",
    b"Transfer-Encoding: chunked;a=b\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding: chunked\0\r\n", b'Transfer-Encoding: "chunked"\r\n', b"Transfer-Encoding:\r\n chunked\r\n",
    b"Transfer-Encoding: ,chunked\r\n", b"Transfer-Encoding: chunked,\r\n", b"Transfer-Encoding\n: chunked\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: CHUNKED\t\r\n", b"\tTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"Transfer-Encoding: ch\xc3\xbcnked\r\n",
)  # fmt: skip
_SIZES = (
    b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%x\t", b"%xg", b"1%016x", b"%x_0", b"%x;", b"%x;a\nb", b"%x;a\rb",
    b'%x;a="\n"', b"%x;\0", b"%x;=", b"\r\n%x", b"%x\n", b"%x\r", b"%x,1",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTP/1.1\t", b"HTTP/01.1", b"HTTP/1.1\n",
    b"http/1.1", b"HTTP/1,1", b"RTSP/1.0", b"", b"HTTP/1.1 HTTP/1.1",
)  # fmt: skip


class Plan(NamedTuple):
    """One connection: the pieces it is sent in, the number of requests in them, and whether all of these are sound."""

    pieces: list[bytes]
    requests: int
    sound: bool


def make_plan(dice: Random, name: str) -> Plan:
    """The last request closes the connection."""
    messages, sound = [], True
    count, tricks = dice.randint(1, 9), dice.choice((0.0, 0.35))
    for index in range(count):
        head, body = _message(dice, f"{name}.{index}")
        if dice.random() < tricks:
            head, body = dice.choice(_TRICKS)(dice, head, body)
            sound = False
        messages.append(head + b"\r\n" + body)
    messages.append(b"GET /runs/%b.end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % name.encode())
    data = b"".join(messages)
    if tricks and dice.random() < 0.1:
        data, sound = _spoil(dice, data), False
    return Plan(_cut(dice, data), count + 1, sound)


def _message(dice: Random, name: str) -> tuple[bytes, bytes]:
    run = f"/runs/{name}".encode()
    line = dice.choice((
        b"GET " + run, b"POST " + run + b"/cancel", b"POST " + run + b"/renew", b"POST " + run + b"/inbox",
        b"DELETE " + run, b"OPTIONS " + run, b"GET http://localhost" + run,
    ))  # fmt: skip
    fields = [b"Host: localhost\r\n", b"Content-Type: application/json\r\n"]
    if dice.random() < 0.3:
        fields.append(dice.choice(_UPGRADES))
    if dice.random() < 0.3:
        fields.append(dice.choice(_EXTRAS))
    framing, body = _framed(dice, _content(dice, name))
    fields.append(framing)
    dice.shuffle(fields)
    return line + b" HTTP/1.1\r\n" + b"".join(fields), body


def _content(dice: Random, name: str) -> bytes:
    """A request that starts a run, at the beginning of the body or behind what could end it."""
    start = b'{"actor":"canary","id":"canary.%b"}' % name.encode()
    canary = (
        b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(start), start)
    )
    before = dice.choice((b"", b"", b"\r\n", b"0\r\n\r\n", b"x", b"1\r\nx\r\n0\r\n\r\n", b"\r\n\r\n"))
    return before + canary * dice.randint(1, 2)


def _framed(dice: Random, content: bytes) -> tuple[bytes, bytes]:
    kind = dice.random()
    if kind < 0.15:
        return b"", b""
    if kind < 0.55:
        return b"Content-Length: %b%d%b\r\n" % (
            dice.choice((b"", b"00")),
            len(content),
            dice.choice((b"", b" \t")),
        ), content
    return dice.choice((b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tChunked \r\n")), _chunked(
        dice, content
    )


def _chunked(dice: Random, content: bytes, size: bytes = b"%x", after: bytes = b"\r\n") -> bytes:
    """`size` and `after`: how one of the chunks is written."""
    pieces = []
    while content:
        count = dice.randint(1, len(content))
        extension = dice.choice((b"", b"", b"", b";a", b';a=b;c="d e"'))
        pieces.append(b"%b%b\r\n%b\r\n" % (dice.choice((b"%x", b"%X", b"0%x")) % count, extension, content[:count]))
        content = content[count:]
    if size != b"%x" or after != b"\r\n":
        where = dice.randrange(len(pieces))
        line, _, rest = pieces[where].partition(b"\r\n")
        pieces[where] = size % int(line.partition(b";")[0], 16) + b"\r\n" + rest[:-2] + after
    trailer = dice.choice((b"", b"", b"X: y\r\n", b"Host: evil\r\nX:\r\n"))
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


# --- tricks ----------------------------------------------------------------------------------------------------------


def _more_length(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return _insert(dice, head, dice.choice(_LENGTHS)), body


def _more_coding(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return _insert(dice, head, dice.choice(_CODINGS)), body


def _other_coding(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """In place of the framing, around a body that could be read in either way."""
    lines = [line for line in head.split(b"\r\n")[:-1] if not line.lower().startswith((b"content-l", b"transfer-e"))]
    return b"\r\n".join([*lines, b""]) + dice.choice((*_CODINGS, *_LENGTHS)), b"0\r\n\r\n" + body


def _odd_chunk(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    lines = [line for line in head.split(b"\r\n")[:-1] if not line.lower().startswith((b"content-l", b"transfer-e"))]
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b""])
    content = _content(dice, f"odd{dice.randrange(10**12)}")
    if dice.random() < 0.5:
        return head, _chunked(dice, content, size=dice.choice(_SIZES))
    return head, _chunked(
        dice, content, after=dice.choice((b"\n", b"\r", b"", b"x\r\n", b"\r\nx", b"\n\r", b"\r\n\r\n"))
    )


def _odd_trailer(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    trailer = dice.choice((*_LENGTHS, *_CODINGS, b"\n", b"\r", b"X: y\n", b"X\r\n"))
    return head, body[:-2] + trailer + b"\r\n"


def _old_or_new(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return head.replace(b"HTTP/1.1", dice.choice(_VERSIONS), 1), body


def _other_method(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    method = dice.choice((b"CONNECT", b"PRI", b"get", b"PO ST", b"POST\t", b"QUERY", b"FOO", b"G\0T", b"", b"HEAD"))
    return method + b" " + head.partition(b" ")[2], body


def _bare_line_end(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    ends = [at for at in range(len(head)) if head.startswith(b"\r\n", at)]
    at = dice.choice(ends)
    return head[:at] + dice.choice((b"\n", b"\r", b"", b"\r\r\n", b"\n\r", b"\r\n\r")) + head[at + 2 :], body


def _expect(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return _insert(dice, head, b"Expect: 100-continue\r\n"), body


def _close(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return _insert(dice, head, dice.choice((b"Connection: close\r\n", b"Connection: Upgrade,\tClose\r\n"))), body


def _shorter(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return head, body[: dice.randint(0, len(body))]


def _longer(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return head, body + dice.choice(
        (b"x", b"\r\n", b"\n", b"0\r\n\r\n", _content(dice, f"behind{dice.randrange(10**12)}"))
    )


def _spoilt(dice: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return _spoil(dice, head), body


_TRICKS: tuple[Trick, ...] = (
    _more_length, _more_coding, _other_coding, _other_coding, _odd_chunk, _odd_chunk, _odd_trailer, _old_or_new,
    _other_method, _bare_line_end, _expect, _close, _shorter, _longer, _spoilt,
)  # fmt: skip


def _insert(dice: Random, head: bytes, field: bytes) -> bytes:
    """As a field of its own, behind the request line or last."""
    at = dice.choice((head.index(b"\r\n") + 2, len(head)))
    return head[:at] + field + head[at:]


def _spoil(dice: Random, data: bytes) -> bytes:
    """One byte is lost, doubled or another."""
    at = dice.randrange(len(data))
    odd = dice.choice((b"", data[at : at + 1] * 2, b"\0", b"\n", b"\r", b" ", b"\t", b":", b"\x0b", b"\xff"))
    return data[:at] + odd + data[at + 1 :]


def _cut(dice: Random, data: bytes) -> list[bytes]:
    """All at once, by messages and heads, or anywhere."""
    kind = dice.random()
    if kind < 0.3:
        return [data]
    if kind < 0.6:
        places = [at for at in range(len(data)) if data.startswith(b"\r\n\r\n", at)]
        places = [at + dice.choice((4, 4, 3, 2)) for at in dice.sample(places, min(4, len(places)))]
    else:
        places = [dice.randrange(len(data)) for _ in range(dice.randint(1, 6))]
    ends = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in pairwise(ends) if end > start]
