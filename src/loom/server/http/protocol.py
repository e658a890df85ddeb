"""uvicorn's HTTP/1.1, with the bounds that it lacks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from loom.model import limits
from loom.model.errors import LimitExceeded, LoomError, RemoteProtocolError, Unavailable, code_of
from loom.wire.headers import OWS
from loom.wire.views import error_body

from .connection import CONNECTION
from .connections import Connections, network_of
from .framing import check_framing, without_upgrade

__all__ = ["BoundedProtocol"]

PIPELINED = 1000
"""Requests that may wait behind the one that is being answered, some kilobytes each; no client sends so many."""

HEAD_TIME = 10.0
"""A request's line and headers must have come within this time of its first byte, or of the connection."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with the bounds that it lacks: of a request's head in bytes and time, of its trailers, of what
    is sent behind it, and of connections.

    Upgrade is ignored, and nothing is parsed behind a request that closes, or whose framing is in doubt. Errors
    have the one JSON form here, too. Every request of a connection that is lost hears of it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.network = ""
        self._coding = self._state.coding
        self._in_head = True
        self._head_bytes = 0
        self._framing_bytes = 0  # behind the head, since the last byte of a body
        self._waiting_bytes = 0  # of requests behind the one that is being answered
        self._discarded = 0  # of a request that was answered before it was read, or behind the last one
        self._running: RequestResponseCycle | None = None  # `cycle` is the last one, which may be waiting
        self._deadline: asyncio.TimerHandle | None = None
        self._refusal: LoomError | None = None
        self._input_ended = False  # further input is discarded unparsed
        self._final_error: LoomError | None = None  # the last answer, after those under way
        self._lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.network = network_of(self.client[0] if self.client else "")
        self._set_deadline(HEAD_TIME, self._head_late)
        if not self._state.admit(self):
            self._refuse(Unavailable(f"{len(self.connections) - 1} connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._dismiss()
        self._state.remove(self)

    @property
    def _state(self) -> Connections:
        return cast("Connections", self.server_state)

    # --- what comes ---

    def data_received(self, data: bytes) -> None:
        if self._input_ended:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            if self._deadline is None:
                self._set_deadline(HEAD_TIME, self._head_late)
            self._head_bytes += len(data)
        else:
            self._framing_bytes += len(data)
        if self.pipeline:
            self._waiting_bytes += len(data)
        self._parse(data)
        if not self._input_ended:
            self._check_bounds()
        elif not self.transport.is_closing():
            self.flow.resume_reading()

    def _parse(self, data: bytes | memoryview) -> None:
        """Feeds the parser. llhttp takes a request with Upgrade for the end of HTTP, and skips its body: such a head is
        fed again without Upgrade (RFC 9110, section 7.8)."""
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    data = memoryview(data)[upgrade.args[0] :]
                    head = self._without_upgrade()
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.feed_data(head)
        except httptools.HttpParserError:
            if not self._input_ended:  # `on_message_begin` stops it
                self._fail_parsing(self._refusal or RemoteProtocolError("not HTTP"))

    def _without_upgrade(self) -> bytes:
        """The head just parsed, to be parsed again. A WebSocket route would take over the connection here."""
        return without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)

    def _check_bounds(self) -> None:
        if (self._head_bytes if self._in_head else self._framing_bytes) > limits.HEAD_BYTES:
            self._fail_parsing(_head_too_large())
        elif len(self.pipeline) > PIPELINED or max(self._waiting_bytes, self._discarded) > limits.DISCARD_BYTES:
            self._drop()
        elif self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # while nothing is read, the client's leaving is not seen

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > limits.DISCARD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        if self._input_ended:
            raise RemoteProtocolError("the last request was read")  # stops the parser
        super().on_message_begin()
        self._state.begin(self)
        self._framing_bytes = self._discarded = 0
        offered = {"write": self.write_now, "abort": self.transport.abort, "hold": self._hold}
        cast("dict[str, Any]", self.scope)["extensions"] = {CONNECTION: offered}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers may be dropped (RFC 9110, section 6.5.1)
            super().on_header(name, value.strip(OWS))

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if self.parser.should_upgrade() and method != b"CONNECT":
            return  # it is parsed again without Upgrade
        try:
            self._check_head(version, method)
        except LoomError as refusal:
            self._refusal = refusal
            raise  # the parser turns it into its own error, which `_parse` sees
        if not self.url.startswith(b"/") and b"://" in self.url:
            self._resolve_target()
        self.expect_100_continue &= version == "1.1"  # an older client would not know the answer
        super().on_headers_complete()  # raises, too, for a target that is none
        self._in_head = False
        self._end_deadline()
        self._unset_keepalive_if_required()
        if self.expect_100_continue:  # answered without a 100, it sends its body or not (RFC 9110, section 10.1.1)
            self.cycle.keep_alive = False

    def _check_head(self, version: str, method: bytes) -> None:
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.HEAD_BYTES:
            raise _head_too_large()
        check_framing(version, method, self.headers)

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

    def write_now(self, data: bytes) -> bool:
        """See `loom.server.http.connection.CONNECTION`: as uvicorn's `send`, but it never waits."""
        if self.flow.write_paused or self._lingering or self.transport.is_closing():
            return False
        coding = self._coding
        if data is not coding.data:
            coding.code(data)
        self.transport.write(coding.chunk)
        return True

    def _hold(self) -> None:
        self._state.hold(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        cycle.transport = cast("Any", _CycleTransport(self.transport, self._linger))
        old = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, cast("Any", _until_closed(app, cycle)) if old else app)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self.cycle.response_complete:
            self._discarded += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is parsed again without Upgrade
        super().on_message_complete()
        self._in_head, self._head_bytes, self._framing_bytes = True, 0, 0
        if not self.cycle.keep_alive:
            self._input_ended = True
        elif self.cycle.response_complete:
            self._end_deadline()
            self.timeout_keep_alive_task = self.loop.call_later(limits.KEEP_ALIVE, self.timeout_keep_alive_handler)

    def on_response_complete(self) -> None:
        self._state.release(self)
        if self._lingering or self.transport.is_closing():
            return
        super().on_response_complete()
        if not self.pipeline:
            self._waiting_bytes = 0
        if self._running is None or not self._running.response_complete:
            return  # the next one was started
        if self._final_error is not None:
            self._refuse(self._final_error)
        elif not self._in_head:  # the rest of the body gets no more time than one that is waited for
            self._set_deadline(limits.BODY_TIME, self._linger)

    # --- the end ---

    def _set_deadline(self, seconds: float, late: Callable[[], object]) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(seconds, late)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_late(self) -> None:
        if self._head_bytes:
            self._fail_parsing(RemoteProtocolError("the request came too slowly", code="request_timeout"))
        else:
            self.transport.close()  # a browser's spare connection

    def _fail_parsing(self, error: LoomError) -> None:
        """Ends parsing at a malformed or oversized request. Requests before it are answered first; an answer that has
        begun is cut off instead, as it may be an event stream without end, and an error must not break into it."""
        self._end_deadline()
        self._input_ended = True
        own = not self._in_head  # a request whose head is not complete has no cycle yet
        if own and self.pipeline:
            _mark_disconnected(self.pipeline.popleft()[0])
            own = False
        running = self._running
        if running is None or running.response_complete:
            self._linger() if own else self._refuse(error)
        elif running.response_started:
            self._drop()
        elif own:
            self._refuse(error)
        else:
            self._final_error = error

    def _refuse(self, error: LoomError) -> None:
        self._dismiss()
        body = error_body(error.info)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[code_of(error.code).http] + head + body)
        self._linger()

    def _linger(self) -> None:
        """Closes the sending side, and discards input for `limits.LINGER`: closing with unread input would reset the
        connection and could lose the answer (RFC 9112, section 9.6)."""
        if self._lingering or self.transport.is_closing():
            return
        self._dismiss()
        self._unset_keepalive_if_required()
        self._input_ended = self._lingering = True
        self.flow.resume_reading()
        self.transport.write_eof()
        self._set_deadline(limits.LINGER, self.transport.abort)

    def _drop(self) -> None:
        self._end_deadline()
        self._input_ended = True
        self._dismiss()
        self.transport.close()

    def evict(self) -> None:
        """Aborts the connection; unsent data is lost."""
        self.transport.abort()

    def _dismiss(self) -> None:
        """Tell all requests that the client has gone; uvicorn tells only the last that came."""
        running = [] if self._running is None else [self._running]
        for cycle in (*running, *(waiting for waiting, _ in self.pipeline)):
            _mark_disconnected(cycle)
        self.pipeline.clear()


class _CycleTransport:
    """The transport as uvicorn's cycle uses it, with a `close` of ours."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _mark_disconnected(cycle: RequestResponseCycle) -> None:
    if not cycle.response_complete:
        cycle.disconnected = True
    cycle.message_event.set()


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

        del scope["extensions"][CONNECTION]["write"]
        await app(scope, receive, plain)

    return answer


def _head_too_large() -> LoomError:
    return LimitExceeded(f"a request's head may have at most {limits.HEAD_BYTES} bytes", code="headers_too_large")
