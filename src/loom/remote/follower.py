"""Following a run over HTTP: one event stream after another, from the cursor, until the run's end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import msgspec

from loom.backoff import Backoff
from loom.engine.run.readers import Reader, Tell
from loom.model import limits
from loom.model.chunk import Page
from loom.model.cursor import Cursor
from loom.model.errors import LoomError, RemoteProtocolError, Unavailable
from loom.model.history import split
from loom.model.text import escaped
from loom.wire.headers import AHEAD

from .answers import is_final, refusal
from .connections import Connections, Exchange
from .outages import Outages
from .pages import Pages

__all__ = ["Follower", "Patience"]

ANSWER_TIMEOUT = 10.0
"""A server's answer to one call, connecting included: longer than its store may wait for another's write lock."""

RETRY_AFTER = 60.0
"""The longest pause before a reconnect that a server can ask for: a wrong header shall not stop a reader for good."""

SILENCE = 3 * limits.HEARTBEAT
"""An event stream without a byte for this long is taken for dead and reconnected."""

_log = logging.getLogger("loom.client")


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client waits, in seconds. `reconnect`: the first and the longest pause."""

    connect: float = limits.CONNECT_TIMEOUT
    answer: float = ANSWER_TIMEOUT
    silence: float = SILENCE
    reconnect: tuple[float, float] = limits.RECONNECT


class Follower:
    """Reads a run's pages from a server.

    It reads when it is asked and keeps nothing besides: one page, and at most one unfinished event. A stream that
    breaks off, says nothing (not even a heartbeat) for `patience.silence`, or is refused for the server's own reasons
    is taken up again behind the last chunk that was given, after a jittered, doubling pause, for as long as somebody
    waits; `outages` is told when there is no stream to be had. With `tell`, a run with `ahead` waits for this reader.

    Raises what the server refuses for good: `LogNotFound`, `CursorExpired`, `Unauthorized`; `RemoteProtocolError` for
    what does not continue the cursor; `HandleClosed` once closed.
    """

    def __init__(
        self,
        connections: Connections,
        path: str,
        run: str,
        after: Cursor | None,
        *,
        patience: Patience,
        outages: Outages,
        tell: Tell | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        self._connections = connections
        self._path = path
        self._run = run
        self._after = after
        self._cursor = after
        self._patience = patience
        self._outages = outages
        self._tell = tell
        self._limit_bytes = limit_bytes
        self._backoff = Backoff(*patience.reconnect)
        self._exchange: Exchange | None = None
        self._pages = Pages(after)
        self._since = 0.0
        self._reader: Reader | None = None
        self._ended = False

    async def pages(self) -> AsyncGenerator[Page, None]:
        """From `after` to the run's end, one for each read of the network, or several within `limit_bytes` each."""
        try:
            while (read := await self._next()) is not None:
                for page in (read,) if self._limit_bytes is None else split(read, self._limit_bytes):
                    self._cursor, self._ended = page.cursor, page.ended
                    yield page
                    if self._reader is not None and not self._ended:
                        await self._reader.read_through(self._cursor)
        finally:
            await self._release()

    async def _next(self) -> Page | None:
        """The next page; None at the end."""
        while not self._ended:
            try:
                page = await self._step()
            except LoomError as error:
                refused = self._exchange is None
                await self._disconnect()
                if is_final(error):
                    raise
                if refused:
                    self._outages.begin(error)
                await self._pause(error)
            else:
                if page is not None:
                    self._backoff.reset()
                    return page
        return None

    async def _step(self) -> Page | None:
        """One read, of a new stream if there is none: the page that it completes, if any."""
        exchange = self._exchange or await self._connect()
        if exchange is None:
            self._ended = True
            return None
        if self._pages.fault is not None:
            raise self._pages.fault
        data = await exchange.read(self._patience.silence)
        if not data:
            raise Unavailable(f"{exchange.place} ended the stream before the run")
        return self._pages.feed(data)

    async def _connect(self) -> Exchange | None:
        """A stream behind the cursor; None when nothing is left of the run."""
        query = {"attach": "0"}  # the server would count what it has sent: we say what is read
        if self._cursor is not None:
            query["after"] = str(self._cursor)
        exchange = await self._connections.request(
            "GET", self._path, query=query, accept="text/event-stream", timeout=self._patience.answer
        )
        try:
            ended = await self._admit(exchange)
        except BaseException:
            await exchange.aclose()
            raise
        self._outages.end()
        if ended:
            await exchange.finish()
            return None
        self._exchange = exchange
        self._pages = Pages(self._cursor)
        self._since = asyncio.get_running_loop().time()
        await self._attach(exchange)
        return exchange

    async def _admit(self, exchange: Exchange) -> bool:
        """Whether the run has ended and nothing is left. Raises what else an answer means that is no stream."""
        if exchange.status == 204:
            self._check_end(exchange.place)
            return True
        if exchange.status != 200:
            body = await exchange.body()
            raise refusal(exchange.status, exchange.headers, body, exchange.place)
        kind = exchange.headers.get("content-type", "nothing")
        if kind.partition(";")[0].strip().lower() != "text/event-stream":
            raise RemoteProtocolError(f"{exchange.place} answered with {kind[:80]!r}, not with an event stream")
        return False

    def _check_end(self, place: str) -> None:
        """An end is a chunk: nothing can be left only where the caller already had it. Raises `RemoteProtocolError`."""
        if self._after is None or self._cursor != self._after:
            raise RemoteProtocolError(f"{place} says that nothing is left of the run, but no chunk has ended it")

    async def _attach(self, exchange: Exchange) -> None:
        """Before anything is read: from here on the run waits for us."""
        if self._tell is not None and self._reader is None and AHEAD in exchange.headers:
            self._reader = Reader(self._tell, self._run)
            await self._reader.read_through(self._cursor)

    async def _pause(self, error: LoomError) -> None:
        asked = max(float(error.details.get("retry_after", 0.0)), self._pages.retry)
        pause = min(asked, RETRY_AFTER) + self._backoff.draw()
        _log.info("run %s: %s; asking again in %.2f s", self._run, escaped(str(error)), pause)
        await self._connections.lifetime.run(lambda: asyncio.sleep(pause))

    async def _disconnect(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if asyncio.get_running_loop().time() - self._since > self._patience.reconnect[1]:
            self._backoff.reset()  # an idle run's stream that lasted: what has cut it is no server in trouble
        await (exchange.finish() if self._ended else exchange.aclose())

    async def _release(self) -> None:
        try:
            await self._disconnect()
        finally:
            if self._reader is not None:
                await self._reader.aclose()
