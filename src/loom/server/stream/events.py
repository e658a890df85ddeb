"""A run's pages as an event stream: raw ASGI, everything that is ready in one send.

Alone, a viewer costs two tasks: one moves pages to the connection, one watches the connection. It holds a cursor (the
iterator's), one page, and what the server below buffers; while its `send` waits, nothing more is read for it. For a
viewer that is caught up no task is woken: what is said is written right where it was appended. Caught up and in
company, it is left to the audience to move its pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import aclosing

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loom.model import limits
from loom.model.chunk import Page
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed, LoomError, Unavailable
from loom.server.http.answers import empty
from loom.server.http.connection import CONNECTION, cut
from loom.tasks import cancel_and_wait, spawn
from loom.wire.dialect import Encoder
from loom.wire.headers import AHEAD
from loom.wire.sse import HEARTBEAT, fault

from .audience import Key
from .sink import FrameSink, SendFailed
from .streams import Streams, renew

__all__ = ["BEGINNING", "EVENT_HEADERS", "STREAM_HEADERS", "EventStream", "Viewing", "open_events", "parting"]

log = logging.getLogger("loom.server")

STREAM_HEADERS = (
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)
"""Of every stream. Nothing of HTTP/1.1's framing: it is the server's, and HTTP/2 forbids it."""

EVENT_HEADERS = (
    (b"content-type", b"text/event-stream"),  # no charset: it is always UTF-8 (HTML, section 9.2.4)
    *STREAM_HEADERS,
)
"""Of every event stream."""

BEGINNING = Page((), None, caught_up=True, ended=False)
"""What is read of a run that has only just been started."""


class Viewing(msgspec.Struct, frozen=True, kw_only=True):
    """How one viewer is told a run."""

    named: bool = True
    """With `event:` lines."""
    prefix: bytes = b""
    """Stands before the cursor in each event's id."""
    opening: bytes = b""
    """Goes out at once."""
    owned: bool = False
    """The viewer is the run's owner, on whose behalf the connection renews it."""
    attach: bool = True
    """A run that is kept ahead of its readers waits for this connection."""
    ahead: int | None = None
    """Told to a viewer that is not attached, which then says itself how far it has read."""
    encoder: Encoder | None = None
    """In a dialect; it was given what lies before the first page, if it needs that."""
    resumable: bool = True
    """The viewer knows how to go on elsewhere when the server stops."""
    location: str | None = None
    headers: Iterable[tuple[bytes, bytes]] = EVENT_HEADERS
    status: int = 200

    def start(self) -> Message:
        """The message that begins the answer."""
        headers = [*self.headers]
        if self.location is not None:
            headers.append((b"location", self.location.encode()))
        if self.ahead is not None:
            headers.append((AHEAD.encode(), b"%d" % self.ahead))
        return {"type": "http.response.start", "status": self.status, "headers": headers}


class EventStream:
    """The answer that follows a run: `first`, a page already read, then what comes behind it, until the log's end."""

    __slots__ = (
        "_audience", "_encoder", "_ended", "_first", "_key", "_streams", "_task", "_viewing", "run_ended", "sink",
    )  # fmt: skip

    def __init__(self, streams: Streams, run: str, first: Page, viewing: Viewing) -> None:
        self._streams = streams
        self._key = Key(run, viewing.named, viewing.prefix, viewing.attach)
        self._first: Page | None = first
        self._viewing = viewing
        self._encoder = viewing.encoder
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self.run_ended = False
        """The run's last chunk was sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._viewing.start())
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        connection = scope.get("extensions", {}).get(CONNECTION)
        self._audience = self._streams.audience(self._key, self._encoder)
        self.sink = FrameSink(self._audience, send, connection and connection.get("write"))
        self._streams.open += 1
        self.follow_alone(None)
        owner = (
            [spawn(renew(self._streams, self._key.run), f"loom-owner {self._key.run}")] if self._viewing.owned else []
        )
        try:
            await self._watch(scope, receive)
        finally:
            self._streams.open -= 1
            self._audience.leave(self)
            await cancel_and_wait(*owner, *([self._task] if self._task else []))

    # --- alone, a task moves pages to the connection ---

    def follow_alone(self, after: Cursor | None) -> None:
        """Start it. What was read before it began comes first."""
        self._task = spawn(self._pump(after, self._task), f"loom-viewer {self._key.run}")

    async def _pump(self, after: Cursor | None, before: asyncio.Task[None] | None) -> None:
        try:
            await self._tell(after, before)
        except SendFailed as gone:  # the connection says so to who watches it, if it can
            log.debug("a viewer of run %s has gone: %r", self._key.run, gone.__cause__)
            self._ended = True

    async def _tell(self, after: Cursor | None, before: asyncio.Task[None] | None) -> None:
        last = b""
        try:
            self._streams.enter()
            if before is not None:  # it joined the audience, but may still be letting go of its iterator
                await before
            if await self._follow(after):
                return
        except asyncio.CancelledError:
            if not self._streams.closing:
                raise
            last = self._farewell()
        except HandleClosed:  # what is served from was closed before its server: the end of a server that stops
            log.debug("following run %s ended: the client was closed", self._key.run)
            last = self._farewell()
        except LoomError as error:
            last = self._fault(error)
        except SendFailed:
            raise
        except Exception:  # a fault of ours or of the transport: told without its details, which go to the log
            log.exception("following run %s failed", self._key.run)
            last = self._fault(LoomError("internal error"))
        finally:
            self._streams.leave()
        self._ended = True
        await self.sink.send(last, more=False)

    def _farewell(self) -> bytes:
        """What a server that stops still says: only to those who know no way to go on elsewhere."""
        if self._viewing.resumable or self._told():
            return b""
        return self._fault(Unavailable("the server is stopping"))

    def _fault(self, error: LoomError) -> bytes:
        if self._encoder is not None:
            return self._encoder.fault(error.info)
        return fault(error.info, named=self._key.named)

    async def _follow(self, after: Cursor | None) -> bool:
        """Send what there is, to the log's end; True if the audience sends the rest."""
        if self._first is not None:
            page, self._first = self._first, None
            if self._viewing.opening:
                await self.sink.send(self._viewing.opening)
            if page.batches:
                await self._say(page)
            if page.ended or self._told():
                return False
            after = page.cursor
            if self._joins(after):
                return True
        # An encoder remembers what it said: it may not render a page that the connection then does not take.
        sink = self.sink if self._encoder is None and self.sink.inline else None
        pages = self._streams.transport.follow(self._key.run, after, attach=self._key.attach, sink=sink)
        async with aclosing(pages) as follower:
            async for page in follower:
                await self._say(page)
                if self._told():
                    return False
                if page.caught_up and not page.ended and self._joins(page.cursor):
                    return True
        return False

    def _told(self) -> bool:
        return self._encoder is not None and self._encoder.ended

    def _joins(self, at: Cursor | None) -> bool:
        return self.sink.inline and self._audience.join(self, at)

    async def _say(self, page: Page) -> None:
        sink = self.sink
        for data in self._audience.parts(page.batches):
            if data and not sink.write(data, sink.clock()):  # an encoder may have no word for it
                await sink.send(data)
        self.run_ended = page.ended
        if not page.caught_up:  # far behind, neither reading nor sending may ever wait: others must run, too
            await asyncio.sleep(0)

    # --- all the while, the connection is watched ---

    async def _watch(self, scope: Scope, receive: Receive) -> None:
        """Until the client has gone, or was sent all (ASGI: then `receive` says that it has gone, too)."""
        streams, times = self._streams, self._streams.times
        sink = self.sink
        while sink.sending or not self._ended:
            due = sink.since + (times.stalled if sink.sending else times.heartbeat)
            look = sink.clock() + streams.look_every  # also, as a send may begin meanwhile
            try:
                async with asyncio.timeout_at(min(due, look)):
                    message = await receive()
            except TimeoutError:
                streams.look()
                if not await self._nudge():
                    await cut(scope, receive)
                    return
            else:
                if message["type"] == "http.disconnect":
                    return

    async def _nudge(self) -> bool:
        """A heartbeat if nothing was said for so long. False if the client takes nothing any more."""
        times, sink = self._streams.times, self.sink
        now = sink.clock()
        silence = now - sink.since
        if sink.sending:
            return silence < times.stalled
        if silence < times.heartbeat or self._ended:
            return True
        heartbeat = HEARTBEAT if self._encoder is None else self._encoder.heartbeat
        if not heartbeat:
            sink.since = now
            return True
        try:
            async with asyncio.timeout(times.stalled):
                await sink.send(heartbeat)
        except (TimeoutError, SendFailed):
            return False
        return True


async def open_events(streams: Streams, run: str, after: Cursor | None, viewing: Viewing) -> ASGIApp:
    """What answers who follows `run` from `after`: its events, or 204 when it has ended and nothing is left.

    Raises what the read raises: `LogNotFound`, `CursorExpired`, `Unavailable`.
    """
    page = await streams.transport.read(run, after, limit=limits.PAGE_CHUNKS, wait=0.0)
    if page.ended and not page.batches:
        return empty()
    return EventStream(streams, run, page, viewing)


def parting(streams: Streams, method: str, viewing: Viewing) -> ASGIApp | None:
    """What answers who asks for an event stream while the server stops; None when it does not.

    By GET it is one that ends at once, as those end that had begun: an `EventSource` opens it again, elsewhere, but
    takes any other status for the last word. Raises `Unavailable` for who asks in another way: they know a 503.
    """
    streams.look()
    if streams.closing and method in ("GET", "HEAD"):
        return EventStream(streams, "-", BEGINNING, viewing)
    streams.check_open()
    return None
