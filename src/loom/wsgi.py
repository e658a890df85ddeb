"""For Django, Flask and other code that blocks: a run's events as an iterator of bytes, and one client a process.

The answer is that of `EventSourceResponse`, spoken to on the portal's loop as a server would; here it only changes
threads.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol, Self

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from loom.blocking import SyncClient, SyncOwnedRun, SyncRun, connect_sync
from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed, UsageError
from loom.portal import Caller
from loom.server.response import EventSourceResponse
from loom.tasks import cancel_and_wait, spawn
from loom.wire.sse import HEARTBEAT

__all__ = ["SyncEvents", "per_process", "sse_events"]


class Headers(Protocol):
    """A request's headers, found whatever their case."""

    def get(self, name: str, /) -> str | None: ...


class WebRequest(Protocol):
    """What is read of a request: Flask's and Django's are of this shape."""

    @property
    def method(self) -> str | None: ...

    @property
    def headers(self) -> Headers: ...


def sse_events(
    run: SyncRun[Any, Any] | SyncOwnedRun[Any, Any],
    request: WebRequest | str | None = None,
    *,
    after: Cursor | str | None = None,
    named: bool = True,
    heartbeat: float | timedelta = limits.HEARTBEAT,
) -> SyncEvents:
    """A run of `connect_sync` as an answer: `status`, `headers`, and an iterator of bytes that has `close`.

    What it says, and when it cancels an owned run (``client.stream(…)``, not yet entered), is as `EventSourceResponse`
    has it; `request` is Flask's or Django's, or the text of a ``Last-Event-ID`` alone. Returns when it is known whether
    there is a stream; if there is none, `status` is not 200 and the bytes are the JSON that says why. A HEAD starts
    nothing, which only the whole request tells: frameworks call the view of the GET for it.
    """
    scope = _scope_of(request)
    portal, handle = run.behind
    answer = EventSourceResponse(handle, Request(scope), after=after, named=named, heartbeat=heartbeat)
    return SyncEvents(portal, answer, scope)


def _scope_of(request: WebRequest | str | None) -> Scope:
    method, given = "GET", {"last-event-id": request if isinstance(request, str) else None}
    if request is not None and not isinstance(request, str):
        method = request.method or method
        given = {name: request.headers.get(name) for name in ("last-event-id", "accept")}
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in given.items() if value]
    return {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": headers}


class SyncEvents:
    """See `sse_events`. Each piece is what is ready, or a heartbeat: a thread is held for as long as it is iterated.

    A server notices that its client has left when a write fails, and then calls `close`: so heartbeats matter here. One
    that is dropped without it is closed when it is collected.
    """

    def __init__(self, portal: Caller, answer: ASGIApp, scope: Scope) -> None:
        self._portal = portal
        self._exchange, start = portal.call(_Exchange.begin(answer, scope))
        self._dropped = weakref.finalize(self, portal.post, self._exchange.drop)
        self._dropped.atexit = False  # the process that exits takes the loop along
        self.status: int = start["status"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        streams = scope["method"] != "HEAD" and self.headers.get("content-type") == EventSourceResponse.media_type
        self._opening = HEARTBEAT if streams else b""  # servers send the head with the first piece: it may be long yet

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        piece = None
        with suppress(CancelledError, HandleClosed):  # the client is closed: the process stops, and viewers resume
            piece = self._portal.call(self._exchange.piece())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """The reader has left, or has all: end the viewer. Idempotent; every server and framework calls it."""
        self._dropped.detach()
        with suppress(CancelledError, HandleClosed):
            self._portal.call(self._exchange.aclose())


class _Exchange:
    """One request and its answer, on the loop. What the answer sends waits until it is taken."""

    def __init__(self, answer: ASGIApp, scope: Scope) -> None:
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()
        self._taken = asyncio.Semaphore(0)
        self._complete = asyncio.Event()
        self._task = spawn(self._speak(answer, scope), "loom-wsgi")

    @classmethod
    async def begin(cls, answer: ASGIApp, scope: Scope) -> tuple[_Exchange, Message]:
        """With the message that starts the answer."""
        exchange = cls(answer, scope)
        try:
            start = await exchange._take()
        except asyncio.CancelledError:
            await exchange.aclose()
            raise
        assert start is not None
        return exchange, start

    async def piece(self) -> bytes | None:
        """The next bytes; None at the end."""
        while (message := await self._take()) is not None:
            if body := message.get("body", b""):
                return bytes(body)
        await self.aclose()
        return None

    async def aclose(self) -> None:
        await cancel_and_wait(self._task)

    def drop(self) -> None:
        """`aclose`, of which nobody waits for the end: whoever held it is gone."""
        self._task.cancel()

    async def _take(self) -> Message | None:
        if self._task.done() and self._sent.empty():
            return None
        message = await self._sent.get()
        self._taken.release()
        return message

    async def _speak(self, answer: ASGIApp, scope: Scope) -> None:
        try:
            await answer(scope, self._receive, self._send)
        finally:
            self._sent.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self._sent.put_nowait(message)
        if not message.get("more_body", message["type"] == "http.response.start"):
            self._complete.set()
        await self._taken.acquire()

    async def _receive(self) -> Message:
        """A client that leaves is told by cancelling; one that has all is told as ASGI has it."""
        await self._complete.wait()
        return {"type": "http.disconnect"}


class per_process:
    """``clients = loom.per_process(url, app=app)``, at the top of a module; ``clients()`` is this process's client.

    For servers that fork: each process connects when it first asks, and closes at its exit. The arguments are those of
    `connect_sync`. Safe to use from several threads. Raises `UsageError` at once for a URL that names no store; calling
    it raises as entering `connect_sync`, and `UsageError` in a child of a process that had already asked for a store:
    SQLite, for one, would take its parent's locks for its own (sqlite.org/howtocorrupt.html, section 2.6).
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        self._options = options
        self._gates: dict[int, threading.Lock] = {}  # a child cannot wait for a thread of its parent's
        self._asked: set[int] = set()
        self._clients: dict[int, SyncClient] = {}  # a parent's is kept: letting go of it would close it, in its child
        connect_sync(url, **options)

    def __call__(self) -> SyncClient:
        process = os.getpid()
        with self._gates.setdefault(process, threading.Lock()):
            if process not in self._clients:
                self._check_forked()
                self._asked.add(process)
                try:
                    self._clients[process] = self._connect(process)
                except BaseException:
                    self._asked.discard(process)
                    raise
            return self._clients[process]

    def _check_forked(self) -> None:
        if self._asked and not self._url.startswith("http"):
            raise UsageError(
                "this process was forked after its parent had connected to the store: ask for the client in views and"
                " tasks, not while modules are imported (gunicorn --preload)"
            )

    def _connect(self, process: int) -> SyncClient:
        connection = connect_sync(self._url, **self._options)
        client = connection.__enter__()

        def leave() -> None:
            if os.getpid() == process:
                connection.__exit__()

        atexit.register(leave)
        return client
