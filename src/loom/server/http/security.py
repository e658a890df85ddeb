"""Who may talk to the server at all: Host and Origin allow-lists, bearer keys, CORS. Decided before routing.

A page on the web can make a browser send requests to a server on this machine (and by DNS rebinding even read the
answers); it cannot make it lie about Host, Origin or Sec-Fetch-Site. What it may not know is a key.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection, Iterable
from hmac import compare_digest
from typing import NamedTuple

from starlette.types import Scope

from loom.model.errors import LoomError, RemoteProtocolError, Unauthorized, UsageError
from loom.wire.headers import OWS

__all__ = ["ANY_HOST", "LOOPBACK_HOSTS", "Admission", "Guard", "hosts_for", "is_loopback"]

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""What this machine calls itself. Allowed at any port."""

ANY_HOST = "*"
"""Every Host is allowed: for servers whose keys protect them (a page that rebinds its name has no key)."""

Headers = dict[bytes, bytes]

_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_BEARER = re.compile(rb"bearer +([\x21-\x7e]+) *", re.IGNORECASE)
_READ = frozenset({
    b"host", b"origin", b"authorization", b"sec-fetch-site", b"sec-fetch-mode", b"access-control-request-method",
})  # fmt: skip
_CORS = ((b"access-control-expose-headers", b"location, retry-after, x-request-id"), (b"vary", b"origin"))
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, idempotency-key, last-event-id"),
    (b"access-control-max-age", b"600"),
)


def is_loopback(host: str) -> bool:
    """Whether a name or address to listen on is this machine's alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def hosts_for(host: str) -> tuple[str, ...]:
    """The Hosts to allow when listening on `host`: this machine's own names, and `host`; any for a wildcard address."""
    if host in ("", "0.0.0.0", "::", "[::]"):
        return (ANY_HOST,)
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host.lower()
    return LOOPBACK_HOSTS if name in LOOPBACK_HOSTS else (*LOOPBACK_HOSTS, name)


class Admission(NamedTuple):
    """What is to become of a request: refused, answered as a preflight, or let go on; and what the answer must say."""

    refusal: LoomError | None = None
    preflight: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    caller: bytes | None = None
    """The digest of the request's key, empty where none is needed. None: it was refused, or its path is public."""


class Guard:
    """Admits requests, or refuses them with `Unauthorized` (401, 403) or `RemoteProtocolError` (400, malformed).

    `allowed_hosts`: names (any port), ``name:port`` (that one), or ``*``. `allowed_origins`: exact, as
    ``https://app.example.com``; the server's own origin is always allowed, and needs no CORS headers. `keys`: with any,
    every path but the `public` ones needs one of them. Raises `UsageError` for what is none of these.
    """

    def __init__(
        self,
        *,
        keys: Iterable[str] = (),
        allowed_hosts: Iterable[str] = LOOPBACK_HOSTS,
        allowed_origins: Iterable[str] = (),
        public: Collection[str] = (),
    ) -> None:
        self._hosts = frozenset(_checked_host(host) for host in allowed_hosts)
        self._origins = frozenset(_checked_origin(origin) for origin in allowed_origins)
        self._digests = [hashlib.sha256(_checked_key(key).encode()).digest() for key in keys]
        self._public = frozenset(public)

    @property
    def keyed(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def admit(self, scope: Scope, path: str) -> Admission:
        """Where a request comes from is checked before its key: a page of another site learns nothing about keys."""
        headers: Headers = {}
        cors: tuple[tuple[bytes, bytes], ...] = ()
        try:
            headers = _collect(scope)
            self._check_source(headers, path)
            cors = self._cors(headers)
            if cors and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return Admission(preflight=True, headers=cors + _PREFLIGHT)  # browsers ask it without a key
            caller = None if self._digests and path in self._public else self._caller(headers)
        except LoomError as refusal:
            return Admission(refusal, headers=cors)
        return Admission(headers=cors, caller=caller)

    def _check_source(self, headers: Headers, path: str) -> None:
        host = self._check_host(headers)
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(origin.decode("latin-1"), host)
        elif headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            _check_navigation(headers, path)

    def _check_host(self, headers: Headers) -> str:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        match = _HOST.fullmatch(host)
        if match is None:
            raise RemoteProtocolError(f"malformed Host header: {host[:80]!r}")
        if self._hosts.isdisjoint((ANY_HOST, match[1], host)):
            raise _forbidden(f"Host {host[:80]!r} is not allowed (--allow-host, allowed_hosts)")
        return host

    def _check_origin(self, origin: str, host: str) -> None:
        """The server's own, or a configured one. Schemes are not compared: a proxy may have ended TLS."""
        if origin not in self._origins and origin.partition("://")[2].lower() != host:
            raise _forbidden(f"Origin {origin[:80]!r} is not allowed (--allow-origin, allowed_origins)")

    def _caller(self, headers: Headers) -> bytes:
        """The digest of the request's key; digests are compared, so that neither a key's content nor its length shows
        in the time that it takes."""
        if not self._digests:
            return b""
        match = _BEARER.fullmatch(headers.get(b"authorization", b""))
        if match is None:
            raise Unauthorized("a key is needed: Authorization: Bearer <key>")
        given = hashlib.sha256(match[1]).digest()
        matches = [compare_digest(given, digest) for digest in self._digests]  # all of them, whichever fits
        if not any(matches):
            raise Unauthorized("the key is not valid")
        return given

    def _cors(self, headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
        """What lets the page of a configured origin read the answer (Fetch, section 3.2)."""
        origin = headers.get(b"origin")
        if origin is None or origin.decode("latin-1") not in self._origins:
            return ()
        return (b"access-control-allow-origin", origin), *_CORS


def _check_navigation(headers: Headers, path: str) -> None:
    """Another site's page makes the browser ask without an Origin (an image, a link): only `/` may be opened so, as a
    GET may start a run."""
    if path != "/" or headers.get(b"sec-fetch-mode") != b"navigate":
        raise _forbidden("a page of another site may not use this server (--allow-origin, allowed_origins)")


def _collect(scope: Scope) -> Headers:
    found: Headers = {}
    for name, value in scope["headers"]:
        if name in _READ:
            if name in found:
                raise RemoteProtocolError(f"{name.decode()} is given twice")
            found[name] = value.strip(OWS)
    return found


def _forbidden(message: str) -> Unauthorized:
    return Unauthorized(message, code="forbidden")


def _checked_key(key: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise UsageError("a key must be printable ASCII without spaces, and not empty")
    return key


def _checked_host(host: str) -> str:
    name = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    if name != ANY_HOST and _HOST.fullmatch(name.lower()) is None:
        raise UsageError(f"allowed_hosts: {host!r} is no host (a name, an address, name:port, or *)")
    return name.lower()


def _checked_origin(origin: str) -> str:
    if _ORIGIN.fullmatch(origin) is None:
        raise UsageError(f"allowed_origins: {origin!r} is no origin (as https://app.example.com, no path, lower case)")
    return origin
