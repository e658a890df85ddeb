"""A run as the answer of somebody else's route: our own event stream, behind their address and their login."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from loom.engine.follow.run import OwnedRun, Run
from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed, LoomError, RemoteProtocolError, Unauthorized, Unavailable, UsageError
from loom.model.numbers import seconds
from loom.model.text import escaped
from loom.wire.sse import bookmark

from .http.answers import empty, error_answer
from .http.hosts import told_to_stop
from .http.requests import check_accepts_events, header, resume_at
from .routes.operations import answer_of, fit
from .stream.events import BEGINNING, EVENT_HEADERS, EventStream, Viewing, open_events, parting
from .stream.streams import Streams, Times

__all__ = ["EventSourceResponse", "error_response"]

log = logging.getLogger("loom.server")


class EventSourceResponse(Response):
    """``return loom.EventSourceResponse(run, request)`` from a Starlette or FastAPI route: the run's events.

    Byte for byte what ``GET /runs/{id}/events`` of our own server sends, of a client of any kind. `request` says where
    a reader goes on that was here before (`Last-Event-ID`), and wins over `after`, a cursor or its text. `named=False`
    leaves the `event:` lines out. `heartbeat`: a comment after so many seconds of silence. `headers` are added. An
    `EventSource` takes no other `status_code` than 200.

    A `run` (`client.start`, `client.run(id)`) goes on when its viewer leaves. An owned one (`client.stream`, not yet
    entered) is started by this answer, which alone it belongs to: it is cancelled when the viewer leaves, and the
    viewer's reconnect is answered 204, so that it never starts another.

    Nothing is raised to the route: what goes wrong before the first byte is a JSON answer with its status (404, 410,
    503 …), later an event `!error`. Making one does no I/O and may be done in any thread. Raises `UsageError` for what
    is no run of an async client.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        run: Run[Any, Any] | OwnedRun[Any, Any],
        request: Request,
        *,
        after: Cursor | str | None = None,
        named: bool = True,
        heartbeat: float | timedelta = limits.HEARTBEAT,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        if not isinstance(run, (Run, OwnedRun)):
            raise UsageError(f"{run!r} is no run of a loom.Client (loom.sse_events takes those of connect_sync)")
        self._run = run
        self._request = request
        self._after = None if after is None else str(after)
        self._named = named
        self._times = Times(heartbeat=_checked(heartbeat))
        self.status_code = status_code
        self.background = background
        self.raw_headers = list(EVENT_HEADERS)
        self.headers.update(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as owning:
            answer = await answer_of(self._open(owning), scope)
            await fit(answer, scope)(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _open(self, owning: AsyncExitStack) -> ASGIApp:
        check_accepts_events(self._request)
        streams = Streams(self._run.transport, self._times, told_to_stop)
        if (end := parting(streams, self._request.method, self._viewing())) is not None:
            return end  # nothing was started
        if isinstance(self._run, OwnedRun):
            return await self._begin(self._run, streams, owning)
        after = resume_at(self._request, self._run.id, self._after)
        with _blaming():
            return await open_events(streams, self._run.id, after, self._viewing())

    async def _begin(self, owned: OwnedRun[Any, Any], streams: Streams, owning: AsyncExitStack) -> ASGIApp:
        if header(self._request, "last-event-id"):
            return empty()
        if self._request.method == "HEAD":  # safe: it starts nothing
            return EventStream(streams, "-", BEGINNING, self._viewing())
        with _blaming():
            run = await owning.enter_async_context(owned)
        mark = f"{run.id}:"  # from the first byte on a reconnect says that it is one
        viewing = self._viewing(prefix=mark.encode(), opening=bookmark(mark))
        return EventStream(streams, run.id, BEGINNING, viewing)

    def _viewing(self, *, prefix: bytes = b"", opening: bytes = b"") -> Viewing:
        return Viewing(
            named=self._named,
            prefix=prefix,
            opening=opening,
            headers=self.raw_headers,
            status=self.status_code,
        )


async def error_response(request: Request, error: Exception) -> Response:
    """For ``api.add_exception_handler(loom.LoomError, loom.error_response)``: what a route's own calls raise becomes
    the JSON answer, with the status, that our own server gives."""
    if not isinstance(error, LoomError):
        raise UsageError(
            f"error_response answers loom.LoomError, not {type(error).__name__}: register it for loom.LoomError"
        ) from error
    return error_answer(_blamed(error))


@contextmanager
def _blaming() -> Iterator[None]:
    try:
        yield
    except LoomError as error:
        if (told := _blamed(error)) is error:
            raise
        raise told from error


def _blamed(error: LoomError) -> LoomError:
    """What is told of it to a client of an app that is itself a client: a server behind the app that takes no key of
    the app's, or speaks something else, is not this client's fault, nor is an app that stops."""
    if isinstance(error, HandleClosed):
        return Unavailable("the server is stopping")
    if isinstance(error, (Unauthorized, RemoteProtocolError)):
        log.error("what this app is a client of refuses it: %s", escaped(str(error)))
        return LoomError("internal error")
    return error


def _checked(heartbeat: float | timedelta) -> float:
    every = seconds(heartbeat)
    if every is None or every <= 0:
        raise UsageError(f"heartbeat: {heartbeat!r} is not more than 0 seconds")
    return every
