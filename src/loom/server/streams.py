"""A run's pages as an event stream: raw ASGI, everything that is ready in one send.

A viewer costs two tasks: one moves pages to the connection, one watches the connection. It holds a cursor (the
iterator's), one page, and what the server below buffers; while its `send` waits, nothing more is read for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from itertools import chain
from typing import cast

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from loom.engine.tasks import cancel_and_wait, spawn
from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.errors import LoomError, Unavailable
from loom.model.ports import Transport
from loom.wire.headers import AHEAD
from loom.wire.sse import HEARTBEAT, Framer, fault

from .answers import error_answer
from .operations import answer_of

__all__ = ["ABORT", "EventStream", "LongPoll", "Streams", "Times"]

log = logging.getLogger("loom.server")

ABORT = "loom.abort"
"""The ASGI extension by which our server cuts a connection whose buffer will never be taken."""

_HEADERS = [
    (b"content-type", b"text/event-stream"),  # no charset: it is always UTF-8 (HTML, section 9.2.4)
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """The server's patience, in seconds."""

    heartbeat: float = limits.HEARTBEAT
    stalled: float = limits.STALLED_VIEWER
    long_poll: float = limits.LONG_POLL
    leave_grace: float = limits.LEAVE_GRACE


class Streams:
    """The connections of one server that last, which end together, and what they share."""

    def __init__(self, transport: Transport, times: Times) -> None:
        self.transport = transport
        self.times = times
        self.closing = False
        self._live: set[asyncio.Task[object]] = set()
        self._slots: dict[tuple[str, bool, bytes], _Slot] = {}

    def __len__(self) -> int:
        return len(self._live)

    def end(self) -> None:
        """End them all, and refuse new ones: the server stops. Viewers resume from their cursors elsewhere."""
        self.closing = True
        for task in self._live:
            task.cancel()

    def enter(self) -> None:
        """The task that calls is now doing something for a connection: `end` cancels it, or has done so."""
        task = asyncio.current_task()
        assert task is not None
        if self.closing:
            raise asyncio.CancelledError
        self._live.add(task)

    def leave(self) -> None:
        """It no longer is. Idempotent."""
        self._live.discard(cast("asyncio.Task[object]", asyncio.current_task()))

    def check_open(self) -> None:
        """Raise `Unavailable` once the server stops."""
        if self.closing:
            raise Unavailable("the server is stopping")

    def slot(self, run: str, named: bool, prefix: bytes) -> _Slot:
        """What the viewers of one run share; to be left by each."""
        key = (run, named, prefix)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(named, prefix, lambda: self._slots.pop(key))
        slot.viewers += 1
        return slot


class _Slot:
    """The frames rendered last for one run. Its viewers are given the very same batches at nearly the same time, so
    that all but the first find them here. What is larger than one send is not kept."""

    __slots__ = ("_data", "_first", "_forget", "_framer", "_last", "viewers")

    def __init__(self, named: bool, prefix: bytes, forget: Callable[[], object]) -> None:
        self._framer = Framer(named=named, prefix=prefix)
        self._forget = forget
        self._first: Batch | None = None
        self._last: Batch | None = None
        self._data: tuple[bytes, ...] = ()
        self.viewers = 0

    def parts(self, batches: tuple[Batch, ...]) -> Iterable[bytes]:
        """Their frames, to be sent one after the other: `limits.SEND_BYTES` each at most, rendered as they are asked
        for, so that a slow viewer holds little."""
        if len(batches) == 1:
            return self._render(batches)
        return chain.from_iterable(map(self._render, _groups(batches)))

    def _render(self, batches: tuple[Batch, ...]) -> Sequence[bytes]:
        """Between the same two batches of one log lie the same."""
        first, last = batches[0], batches[-1]
        if first is self._first and last is self._last:
            return self._data
        render = self._framer.frames
        data = render(first) if first is last else b"".join(map(render, batches))
        if len(data) > limits.SEND_BYTES:
            return [data[start : start + limits.SEND_BYTES] for start in range(0, len(data), limits.SEND_BYTES)]
        if self.viewers > 1:
            self._first, self._last, self._data = first, last, (data,)
        return (data,)

    def leave(self) -> None:
        self.viewers -= 1
        if not self.viewers:
            self._forget()


class EventStream:
    """The answer that follows a run: `first`, a page already read, then what comes behind it, until the log's end.

    `opening` goes out at once. `owned`: the run's owner is the viewer, on whose behalf the connection renews it.
    Without `attach` the viewer says itself how far it has read, when told that the run is kept `ahead` of its readers.
    """

    __slots__ = (
        "_attach", "_clock", "_ended", "_first", "_headers", "_named", "_opening", "_owned", "_prefix", "_run",
        "_sending", "_since", "_streams",
    )  # fmt: skip

    def __init__(
        self,
        streams: Streams,
        run: str,
        first: Page,
        *,
        named: bool = True,
        prefix: bytes = b"",
        opening: bytes = b"",
        location: str | None = None,
        owned: bool = False,
        attach: bool = True,
        ahead: int | None = None,
    ) -> None:
        self._streams = streams
        self._run = run
        self._first: Page | None = first
        self._named = named
        self._prefix = prefix
        self._opening = opening
        self._headers = [*_HEADERS, (b"location", location.encode())] if location else _HEADERS
        if ahead is not None:
            self._headers = [*self._headers, (AHEAD.encode(), b"%d" % ahead)]
        self._attach = attach
        self._owned = owned
        self._sending = False
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()  # when the last send began
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        tasks = [spawn(self._pump(send), f"loom-viewer {self._run}")]
        if self._owned:
            tasks.append(spawn(self._renew(), f"loom-owner {self._run}"))
        try:
            await self._watch(scope, receive, send)
        finally:
            await cancel_and_wait(*tasks)

    # --- one task moves pages to the connection ---

    async def _pump(self, send: Send) -> None:
        slot = self._streams.slot(self._run, self._named, self._prefix)
        last = b""
        try:
            self._streams.enter()
            await self._follow(send, slot)
        except asyncio.CancelledError:
            if not self._streams.closing:
                raise
        except LoomError as error:
            last = fault(error.info, named=self._named)
        except OSError:  # some servers' `send` says so when the client has gone
            return
        except Exception:  # a fault of ours or of the transport: told without its details, which go to the log
            log.exception("following run %s failed", self._run)
            last = fault(LoomError("internal error").info, named=self._named)
        finally:
            self._streams.leave()
            slot.leave()
        self._ended = True
        await self._send(send, last, more=False)

    async def _follow(self, send: Send, slot: _Slot) -> None:
        if self._opening:
            await self._send(send, self._opening)
        page, self._first = self._first, None
        assert page is not None
        if page.batches:
            await self._say(send, page, slot)
        if page.ended:
            return
        pages = self._streams.transport.follow(self._run, page.cursor, attach=self._attach)
        follower = cast("AsyncGenerator[Page, None]", pages)
        del page
        async with aclosing(follower):
            async for page in follower:
                await self._say(send, page, slot)

    async def _say(self, send: Send, page: Page, slot: _Slot) -> None:
        for data in slot.parts(page.batches):
            self._since = self._clock()
            self._sending = True
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self._sending = False
        if not page.caught_up:  # far behind, neither reading nor sending may ever wait: others must run, too
            await asyncio.sleep(0)

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        self._since = self._clock()
        self._sending = True
        await send({"type": "http.response.body", "body": data, "more_body": more})
        self._sending = False

    # --- the other watches the connection ---

    async def _watch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until the client has gone, or was sent all (ASGI: then `receive` says that it has gone, too)."""
        times = self._streams.times
        while self._sending or not self._ended:
            due = self._since + (times.stalled if self._sending else times.heartbeat)
            try:
                async with asyncio.timeout_at(min(due, self._clock() + times.stalled)):  # a send may begin meanwhile
                    message = await receive()
            except TimeoutError:
                if not await self._nudge(send):
                    await _cut(scope, receive)
                    return
            else:
                if message["type"] == "http.disconnect":
                    return

    async def _nudge(self, send: Send) -> bool:
        """A heartbeat if nothing was said for so long. False if the client takes nothing any more."""
        times = self._streams.times
        silence = self._clock() - self._since
        if self._sending:
            return silence < times.stalled
        if silence < times.heartbeat or self._ended:
            return True
        try:
            async with asyncio.timeout(times.stalled):
                await self._send(send, HEARTBEAT)
        except TimeoutError:
            return False
        return True

    async def _renew(self) -> None:
        """The viewer is there: its run's owner lives."""
        while True:
            try:
                await self._streams.transport.touch(self._run)
            except LoomError as error:  # out of reach for now; if for long, the run is cancelled, as it should be
                log.debug("renewing run %s: %s", self._run, error)
            await asyncio.sleep(self._streams.times.leave_grace / limits.RENEW_FRACTION)


class LongPoll:
    """The answer to a read that waits: made when there is something to tell, dropped when its client leaves."""

    def __init__(self, streams: Streams, read: Callable[[], Awaitable[ASGIApp]]) -> None:
        self._streams = streams
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = spawn(self._answer(scope, receive, send), "loom-poll")
        try:
            await _gone(receive)
        finally:
            await cancel_and_wait(task)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._streams.enter()
            answer = await answer_of(self._read(), scope)
        except asyncio.CancelledError:
            if not self._streams.closing:
                raise
            answer = error_answer(Unavailable("the server is stopping"))
        finally:
            self._streams.leave()
        await answer(scope, receive, send)


def _groups(batches: tuple[Batch, ...]) -> list[tuple[Batch, ...]]:
    """Consecutive batches that go out together: about `limits.SEND_BYTES` each, so that a slow viewer holds little."""
    groups = []
    start = size = 0
    for index, batch in enumerate(batches):
        if size and size + len(batch.payload) > limits.SEND_BYTES:
            groups.append(batches[start:index])
            start, size = index, 0
        size += len(batch.payload)
    groups.append(batches[start:])
    return groups


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cut(scope: Scope, receive: Receive) -> None:
    """Close a connection that takes nothing. Where the server below offers no way, ending the answer must do."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort["call"]()
        await _gone(receive)
