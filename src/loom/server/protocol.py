"""uvicorn's HTTP/1.1, with the bounds that it lacks."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from loom.model import limits
from loom.model.errors import LimitExceeded, LoomError, RemoteProtocolError, Unavailable, code_of
from loom.wire.views import error_body

from .connection import CONNECTION

__all__ = ["BoundedProtocol", "Connections"]


class Connections(ServerState):
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
        cast("Connections", self.server_state).connection_lost()

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
        """See `loom.server.connection.CONNECTION`: as uvicorn's `send`, but it never waits."""
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
