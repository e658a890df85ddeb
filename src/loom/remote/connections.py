"""Connections to one server: each carries one request at a time and is kept for the next; all end together."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import httpx2

from loom.affinity import LoopAffinity
from loom.model import limits
from loom.model.errors import HandleClosed, LimitExceeded, Unavailable, UsageError, closed
from loom.wire.urls import BAD_PROXY

__all__ = ["Connections", "Exchange", "Lifetime", "Query"]

IDLE_CONNECTIONS = 20
"""Connections that a client keeps open between requests."""

T = TypeVar("T")

Query = Mapping[str, str | Sequence[str]]
"""What a query says; of a sequence, each under the same name."""

_HEADERS = {"user-agent": "loom-streams", "accept-encoding": "identity"}  # a compressor would hold chunks back
_BROKEN = (httpx2.TransportError, httpx2.DecodingError, httpx2.StreamError)


class Lifetime:
    """What is awaited through it ends with `HandleClosed` when it is closed, wherever it hangs."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._affinity = LoopAffinity()
        self.check_loop = self._affinity.check
        self.closed = False

    async def run(self, call: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """Await `call()`. Raises `TimeoutError` after `timeout` seconds."""
        self.check()
        try:
            async with asyncio.timeout(timeout) as scope:
                self._scopes.add(scope)
                try:
                    return await call()
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            self.check()
            raise

    def check(self) -> None:
        """Raise `HandleClosed` once it is closed, and `UsageError` in another event loop."""
        if self.closed:
            raise closed()
        self.check_loop()

    def close(self) -> None:
        """Idempotent."""
        self.check_loop()
        self.closed = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now)


class Connections:
    """As many as there are requests under way: nobody waits for a connection that another holds. A followed run holds
    one for as long as it is followed (HTTP/1.1). Up to `IDLE_CONNECTIONS` stay open in between, the one used
    last first.

    `url`: ``http://`` or ``https://``, a host, perhaps a path that the server is mounted at. `api_key` is sent as a
    bearer and shown nowhere. `trust_env`: whether the environment may name a proxy (default: not for this machine).
    Raises `UsageError` for a URL or key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        trust_env: bool | None = None,
        connect: float = limits.CONNECT_TIMEOUT,
    ) -> None:
        self._url = _check_url(url)
        self._key = _check_key(api_key)
        self._trust_env = not _is_near(self._url.host) if trust_env is None else trust_env
        self._timeout = httpx2.Timeout(None, connect=connect)
        self._tls: ssl.SSLContext | None = None
        self._idle: list[httpx2.AsyncClient] = []
        self._all: set[httpx2.AsyncClient] = set()
        self.lifetime = Lifetime()

    def __repr__(self) -> str:
        return f"<Connections {self.place}: {len(self._all) - len(self._idle)} in use, {len(self._idle)} idle>"

    @property
    def place(self) -> str:
        """The server, as messages name it."""
        return str(self._url)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        accept: str = "application/json",
        timeout: float | None = None,
    ) -> Exchange:
        """The head of the answer, whatever its status; close it. `path` is escaped already.

        Raises `Unavailable` when there is none within `timeout` seconds (which bound `Exchange.body` as well),
        `HandleClosed`.
        """
        self.lifetime.check()
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        line = self._idle.pop() if self._idle else self._make()
        try:
            request = self._build(line, method, path, query, body, accept)
            response = await self.lifetime.run(partial(line.send, request, stream=True), timeout)
        except BaseException as error:
            await self._give(line)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"{self.place} gave no answer for {timeout:g} s") from None
            if isinstance(error, _BROKEN):
                raise Unavailable(f"{self.place}: {_reason(error)}") from None
            raise
        return Exchange(self, response, partial(self._give, line), deadline)

    def _build(
        self,
        line: httpx2.AsyncClient,
        method: str,
        path: str,
        query: Query | None,
        body: bytes | None,
        accept: str,
    ) -> httpx2.Request:
        headers = {"accept": accept}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["content-type"] = "application/json"
        url = self._url.copy_with(raw_path=self._url.raw_path.rstrip(b"/") + path.encode())
        return line.build_request(method, url, params=query or None, content=body, headers=headers)

    def _make(self) -> httpx2.AsyncClient:
        try:
            line = httpx2.AsyncClient(
                headers=_HEADERS,
                timeout=self._timeout,
                limits=httpx2.Limits(max_connections=1, keepalive_expiry=limits.KEEP_ALIVE / 2),
                verify=self._context(),
                trust_env=self._trust_env,
            )
        except (ValueError, httpx2.InvalidURL):  # whose words are parts of the URL
            raise UsageError(BAD_PROXY) from None
        self._all.add(line)
        return line

    def _context(self) -> ssl.SSLContext:
        """Made once, as it takes 0.1 s to load the known authorities. Plain HTTP without a proxy needs none."""
        if self._tls is None:
            plain = self._url.scheme == "http" and not self._trust_env
            self._tls = _trusting_none() if plain else httpx2.create_ssl_context(trust_env=self._trust_env)
        return self._tls

    async def _give(self, line: httpx2.AsyncClient) -> None:
        """The line is free again. What broke has closed its connection, and will make another."""
        if len(self._idle) >= IDLE_CONNECTIONS:
            self._all.discard(line)
            await line.aclose()
        else:
            self._idle.append(line)

    async def aclose(self) -> None:
        """Close all at once. Idempotent; whatever is under way raises `HandleClosed`."""
        self.lifetime.close()
        while self._all:
            await self._all.pop().aclose()


class Exchange:
    """The answer to one request. Its connection is free for the next when it is closed."""

    def __init__(
        self,
        connections: Connections,
        response: httpx2.Response,
        release: Callable[[], Awaitable[None]],
        deadline: float | None,
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._connections = connections
        self._response = response
        self._release = release
        self._deadline = deadline
        self._blocks = response.aiter_bytes()
        self._closed = False

    @property
    def place(self) -> str:
        """The server, as messages name it."""
        return self._connections.place

    async def read(self, timeout: float | None = None) -> bytes:
        """What comes next; b"" at the answer's orderly end. Raises `Unavailable` when it breaks off, or no byte came
        for `timeout` seconds, and `HandleClosed`."""
        try:
            return await self._connections.lifetime.run(self._next, timeout)
        except TimeoutError:
            raise Unavailable(f"{self.place} was silent for {timeout:g} s") from None
        except _BROKEN as error:
            self._connections.lifetime.check()
            raise Unavailable(f"{self.place}: {_reason(error)}") from None

    async def _next(self) -> bytes:
        async for block in self._blocks:
            if block:
                return block
        return b""

    async def body(self) -> bytes:
        """All of it. Raises as `read`, `Unavailable` when the request's time is over (however steadily bytes come), and
        `LimitExceeded` beyond `limits.ANSWER_BYTES`."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._whole()
        except TimeoutError:
            raise Unavailable(f"{self.place} did not finish its answer in time") from None

    async def _whole(self) -> bytes:
        body = bytearray()
        while block := await self.read():
            body += block
            if len(body) > limits.ANSWER_BYTES:
                raise LimitExceeded(f"an answer larger than {limits.ANSWER_BYTES} bytes", code="too_large")
        return bytes(body)

    async def finish(self) -> None:
        """Close, but let the body's end come that is expected now: only then can the connection be used again."""
        with contextlib.suppress(Unavailable, HandleClosed, TimeoutError):
            async with asyncio.timeout(limits.CLOSING):
                while await self.read():
                    pass
        await self.aclose()

    async def aclose(self) -> None:
        """Let go: a connection whose answer is not at its end is closed. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._blocks.aclose()
            await self._response.aclose()
        finally:
            await self._release()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _trusting_none() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _is_near(host: str) -> bool:
    """Whether it is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise UsageError("the server's URL is none: http://host:port") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535:
        raise UsageError("the server's URL begins with http:// or https:// and a host, perhaps with a port")
    if url.userinfo or url.query or url.fragment or b"@" in url.raw_path:  # a password with a slash makes a path
        raise UsageError("the server's URL holds no credentials, query or fragment: give the key as api_key=")
    return url


def _check_key(key: str | None) -> str:
    """Checked here, because a header that is refused further down would be shown whole in the error."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the API key holds characters that no key has")
    return key
