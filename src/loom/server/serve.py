"""Serving the app with uvicorn: on a socket of its own, within bounds, until told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from loom.engine.loop import loop_runner
from loom.model import limits
from loom.model.errors import LimitExceeded, LoomError, RemoteProtocolError, Unavailable, UsageError, code_of
from loom.tasks import cancel_and_wait, spawn, wait_out
from loom.wire.views import error_body

from .app import Gateway
from .security import is_loopback
from .streams import CONNECTION

__all__ = ["Address", "serve", "serving"]

log = logging.getLogger("loom.server")

_TICK = 1.0  # uvicorn renews its Date header so often, and a cut request may take so long to notice


class Address(NamedTuple):
    """Where a server listens; `port` is the real one when 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def serve(
    app: Gateway,
    *,
    host: str = "127.0.0.1",
    port: int = 8700,
    sock: socket.socket | None = None,
    announce: Callable[[Address], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; then stop as `serving` does. `announce` is told when connections are accepted.

    Raises `UsageError` when the address cannot be had, and beyond loopback without keys.
    """

    async def until_told() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        async with serving(app, host=host, port=port, sock=sock) as address:
            if announce is not None:
                announce(address)
            await told.wait()

    with loop_runner() as runner:
        runner.run(until_told())


@asynccontextmanager
async def serving(
    app: Gateway, *, host: str = "127.0.0.1", port: int = 8700, sock: socket.socket | None = None
) -> AsyncIterator[Address]:
    """Serve in this event loop for as long as the block lasts; `sock` is a listening socket to be used and closed.

    Leaving stops: no new connections, event streams end at once, other requests have `limits.SHUTDOWN` seconds. No
    signal is handled here. Raises `UsageError` when the address cannot be had, and beyond loopback without keys.
    """
    with sock or _listen(host, port, keyed=app.keyed) as listener:
        address = _address_of(listener)
        _check_exposure(address.host, keyed=app.keyed)
        _tune(listener)
        async with app.lifespan():
            server = _Server(app)
            task = spawn(server.serve([listener]), "loom-server")
            try:
                await server.wait_started(task)
                yield address
            finally:
                server.stop()
                await wait_out(task)
            task.result()


class _Server(uvicorn.Server):
    """uvicorn's server without its signals, its polling, and its patience with event streams."""

    def __init__(self, app: Gateway) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                loop="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=limits.KEEP_ALIVE,
            )
        )
        self.server_state = self._state = _State()
        self._app = app
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they belong to who runs the loop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started.set()

    async def wait_started(self, task: asyncio.Task[None]) -> None:
        """Until connections are accepted, or the server has failed."""
        started = spawn(self._started.wait(), "loom-server-start")
        await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(started)
        if task.done():
            await task

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            try:
                async with asyncio.timeout(_TICK):
                    await self._stopped.wait()
            except TimeoutError:
                counter += 10  # uvicorn counts tenths of seconds

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listeners first, so that nothing that ends here comes again; idle connections and event streams at once;
        then whatever else is under way, for `limits.SHUTDOWN` seconds."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self._app.end_streams()
        try:
            async with asyncio.timeout(limits.SHUTDOWN):
                await self._state.wait_empty()
        except TimeoutError:
            log.warning("stopped with %d requests under way", len(self.server_state.tasks))
        for connection in list(self.server_state.connections):
            cast("BoundedProtocol", connection).transport.abort()
        await self._state.wait_empty()
        if self.server_state.tasks:  # most end by themselves, their clients having gone
            await asyncio.wait(self.server_state.tasks, timeout=_TICK)
            await cancel_and_wait(*self.server_state.tasks)
        await self._app.wait_streams()


class _State(ServerState):
    """What uvicorn's connections share, which tells when the last one has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._empty = asyncio.Event()

    async def wait_empty(self) -> None:
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    def connection_lost(self) -> None:
        if not self.connections:
            self._empty.set()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with the bounds that it lacks: of a request's head in bytes and time, of its trailers, of what
    is sent behind it, and of connections.

    Errors have the one JSON form here, too. Every request of a connection that is lost hears of it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._framing_bytes = 0  # behind the head, since the last byte of a body
        self._waiting_bytes = 0  # of requests behind the one that is being answered
        self._discarded = 0  # of a request that was answered before it was read
        self._running: RequestResponseCycle | None = None  # `cycle` is the last one, which may be waiting
        self._deadline: asyncio.TimerHandle | None = None
        self._refusal: LoomError | None = None
        self._lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()
        if len(self.connections) > limits.CONNECTIONS:
            self._refuse(Unavailable(f"{limits.CONNECTIONS} connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)
        self._dismiss()
        cast("_State", self.server_state).connection_lost()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._in_head:
            if self._deadline is None:
                self._begin_head()
            self._head_bytes += len(data)
        else:
            self._framing_bytes += len(data)
        if self.pipeline:
            self._waiting_bytes += len(data)
        super().data_received(data)
        if not self._lingering:
            self._check_bounds()

    def _check_bounds(self) -> None:
        answered = not self._in_head and self.cycle.response_complete
        if (self._head_bytes if self._in_head else self._framing_bytes) > limits.HEAD_BYTES:
            self._drop() if answered else self._refuse(_head_too_large())
        elif len(self.pipeline) > limits.PIPELINED or max(self._waiting_bytes, self._discarded) > limits.DISCARD_BYTES:
            self._drop()
        elif self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # while nothing is read, the client's leaving is not seen

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing_bytes = self._discarded = 0
        offered = {"write": self.write_now, "abort": self.transport.abort}
        cast("dict[str, Any]", self.scope)["extensions"] = {CONNECTION: offered}

    def write_now(self, data: bytes) -> bool:
        """See `loom.server.streams.CONNECTION`: as uvicorn's `send`, but it never waits."""
        if self.flow.write_paused or self._lingering or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers may be dropped (RFC 9110, section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.HEAD_BYTES:
            self._refusal = _head_too_large()
            raise self._refusal  # the parser turns it into its own error, which ends in `send_400_response`
        if not self.url.startswith(b"/") and b"://" in self.url:
            self._resolve_target()
        super().on_headers_complete()

    def _resolve_target(self) -> None:
        """The host of an absolute target counts, and the header's does not (RFC 9112, section 3.2.2), so that whoever
        looks at Host looks at the one that is meant. None, or two, stay what they are: malformed (section 3.2)."""
        rest = self.url.partition(b"://")[2]
        authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
        path = rest[len(authority) :]
        self.url = path if path.startswith(b"/") else b"/" + path
        for place, (name, _) in enumerate(self.headers):
            if name == b"host":
                self.headers[place] = (name, authority)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        old = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, cast("Any", _until_closed(app, cycle)) if old else app)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self.cycle.response_complete:
            self._discarded += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self._waiting_bytes = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head_bytes, self._framing_bytes = True, 0, 0

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or RemoteProtocolError("not HTTP"))

    def _begin_head(self) -> None:
        self._deadline = self.loop.call_later(limits.HEAD_TIME, self._head_late)

    def _end_head(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_late(self) -> None:
        if self._head_bytes:
            self._refuse(RemoteProtocolError("the request came too slowly", code="request_timeout"))
        else:
            self.transport.close()  # a browser's spare connection

    def _refuse(self, error: LoomError) -> None:
        """Answer, unless an answer is under way, and close. What still comes is read and dropped for a moment: closing
        on what is unread would reset the connection, and the answer with it (RFC 9112, section 9.6)."""
        self._end_head()
        if self._lingering:
            return
        running = self._running
        if running is not None and not running.response_complete and (running.response_started or self.pipeline):
            self._drop()
            return
        self._dismiss()
        body = error_body(error.info)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[code_of(error.code).http] + head + body)
        self.transport.write_eof()
        self._lingering = True
        self._deadline = self.loop.call_later(limits.LINGER, self.transport.abort)

    def _drop(self) -> None:
        self._end_head()
        self._dismiss()
        self.transport.close()

    def _dismiss(self) -> None:
        """Tell all requests that the client has gone; uvicorn tells only the last that came."""
        running = [] if self._running is None else [self._running]
        for cycle in (*running, *(waiting for waiting, _ in self.pipeline)):
            if not cycle.response_complete:
                cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()


def _until_closed(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """HTTP/1.0 knows no chunks: a body of unknown length ends with the connection (RFC 9112, section 6.1)."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        sized = True

        async def plain(message: Message) -> None:
            nonlocal sized
            if message["type"] == "http.response.start":
                sized = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                cycle.chunked_encoding = None if sized else False
            elif not sized:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        scope["extensions"] = {CONNECTION: {"abort": cycle.transport.abort}}
        await app(scope, receive, plain)

    return answer


def _head_too_large() -> LoomError:
    return LimitExceeded(f"a request's head may have at most {limits.HEAD_BYTES} bytes", code="headers_too_large")


# --- sockets ---------------------------------------------------------------------------------------------------------


def _listen(host: str, port: int, *, keyed: bool) -> socket.socket:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {host!r}: {error}") from None
    family, _, _, _, address = found[0]
    _check_exposure(str(address[0]), keyed=keyed)
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((str(address[0]), port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UsageError(_why_not(error, host, port)) from None


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use on {host}: stop the other program, or choose another port (0: any free one)"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one from 1024 up"
    reason = (
        os.strerror(error.errno) if error.errno else error
    )  # asyncio's and socket's own words name the address, too
    return f"cannot listen on {host}:{port}: {reason}"


def _check_exposure(host: str, *, keyed: bool) -> None:
    if not keyed and not is_loopback(host):
        raise UsageError(f"listening on {host}, beyond this machine, needs keys: set LOOM_API_KEYS, or use 127.0.0.1")


def _address_of(listener: socket.socket) -> Address:
    name = listener.getsockname()
    return Address(name[0], name[1]) if isinstance(name, tuple) else Address("localhost", 0)


def _tune(listener: socket.socket) -> None:
    """Accepted connections inherit these: a peer that takes or acknowledges nothing for `limits.STALLED_VIEWER` is cut
    by the system, and what the system buffers beyond the wire is bounded."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; RFC 5482
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.STALLED_VIEWER * 1000))
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.UNSENT_BYTES)
