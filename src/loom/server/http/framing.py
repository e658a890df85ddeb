"""HTTP/1.1's framing: checks of a request's, from its parsed head, and the chunked coding of answers. Pure; the bytes
of requests are checked by llhttp, in its strict mode."""

from __future__ import annotations

from collections.abc import Iterable

from loom.model.errors import RemoteProtocolError

__all__ = ["ChunkedCoding", "check_framing", "without_upgrade"]

Headers = Iterable[tuple[bytes, bytes]]


def check_framing(version: str, method: bytes, headers: Headers) -> None:
    """Raises `RemoteProtocolError` if two parsers could disagree on where the request ends (RFC 9112, section 6.3):
    nothing behind it can be parsed. Names are lower case, values without surrounding blanks."""
    if version not in ("1.0", "1.1"):
        raise RemoteProtocolError(f"HTTP/{version} is not supported: use HTTP/1.1")
    if method == b"CONNECT":  # what follows it is no longer HTTP (RFC 9110, section 9.3.6)
        raise RemoteProtocolError("CONNECT is refused: this server is not a proxy")
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (lengths or version == "1.0"):  # section 6.1: an old proxy may have read past it
        raise RemoteProtocolError("Transfer-Encoding with Content-Length, or in HTTP/1.0")
    if codings and codings != [b"chunked"]:
        raise RemoteProtocolError("Transfer-Encoding: only chunked is supported, given once")
    if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
        raise RemoteProtocolError("Content-Length must be one number, given once")


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request, written again as if `Upgrade` were not in it (RFC 9110, section 7.8)."""
    fields = [b"%b: %b" % field for field in headers if field[0] != b"upgrade"]
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, target, version.encode()), *fields, b"", b""])


class ChunkedCoding:
    """The chunked coding of a part of an answer (RFC 9112, section 7.1), kept until another part is coded: fan-out
    writes the very same bytes to a thousand connections, one after the other. They look at `data` for themselves, which
    saves a call each."""

    __slots__ = ("chunk", "data")

    def __init__(self) -> None:
        self.data = b""
        self.chunk = b""

    def code(self, data: bytes) -> None:
        """Make `chunk` of `data`, which is not empty: an empty chunk is the last one."""
        self.data, self.chunk = data, b"%x\r\n%b\r\n" % (len(data), data)
