"""A request that starts a run and is answered by it, in any dialect.

The status waits for the first output. The run belongs to the client: it is renewed while the client waits, and
cancelled when it has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.errors import ErrorInfo, LoomError, RunFailed, Unavailable, revive
from loom.model.ports import Transport
from loom.model.run import Head
from loom.server.http.answers import raw, refusing
from loom.server.http.connection import wait_gone
from loom.server.stream.events import BEGINNING, STREAM_HEADERS, EventStream, Viewing
from loom.server.stream.streams import Streams, renew
from loom.tasks import cancel_and_wait, spawn, wait_out
from loom.wire.dialect import Dialect, Encoder, StartRun
from loom.wire.dialects.lines import RetractedRanges

from .operations import answer_of

__all__ = ["Exchange", "read_retracted", "run_headers", "surviving", "viewing_of"]

log = logging.getLogger("loom.server")


class Exchange:
    """The answer to `start` of `dialect`, whose run is `head`. A `repeatable` request may come again, and is then
    answered from the run's beginning: such a run goes on for a while without its client."""

    def __init__(
        self, streams: Streams, dialect: Dialect, start: StartRun, head: Head, location: str, *, repeatable: bool
    ) -> None:
        self._streams = streams
        self._transport = streams.transport
        self._dialect = dialect
        self._start = start
        self._head = head
        self._run = head.meta.run
        self._headers = run_headers(self._run, location)
        self._repeatable = repeatable
        self._retracted: RetractedRanges | None = None
        self._run_ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = spawn(renew(self._streams, self._run), f"loom-owner {self._run}")
        answer: ASGIApp | None = None
        try:
            answer = await self._begun(scope, receive)
            if answer is not None:
                await answer(scope, receive, send)
        finally:
            leave = [spawn(self._leave(), f"loom-leave {self._run}")] if self._is_abandoned(answer) else []
            try:
                await cancel_and_wait(owner)
            finally:
                await wait_out(*leave)

    def _is_abandoned(self, answer: ASGIApp | None) -> bool:
        """True if the run goes on and its client has no way to get the rest."""
        ended = self._run_ended or (isinstance(answer, EventStream) and answer.run_ended)
        return not (ended or self._repeatable or self._dialect.resumable)

    async def _leave(self) -> None:
        """Cancel the run, in bounded time: the request waits for it, even when cancelled."""
        try:
            async with asyncio.timeout(limits.OWNER_LEAVE):
                await self._transport.cancel(self._run)
        except (LoomError, TimeoutError) as error:  # the lapsing lease cancels it
            log.debug("cancelling run %s: %r", self._run, error)

    # --- until there is a status ---

    async def _begun(self, scope: Scope, receive: Receive) -> ASGIApp | None:
        """The answer; None if the client has left before there was one."""
        task = spawn(self._answer(scope), f"loom-exchange {self._run}")
        gone = spawn(wait_gone(receive), f"loom-exchange-gone {self._run}")
        self._streams.open += 1
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            return None if gone.done() else await task
        finally:
            self._streams.open -= 1
            await cancel_and_wait(task, gone)

    async def _answer(self, scope: Scope) -> ASGIApp:
        refuse = partial(refusing(self._dialect.refuse), headers=self._headers)
        try:
            self._streams.enter()
            return await answer_of(self._stream() if self._start.streams else self._whole(), scope, refuse)
        except asyncio.CancelledError:
            if not self._streams.closing:
                raise
            return refuse(Unavailable("the server is stopping"))
        finally:
            self._streams.leave()

    def _pages(self) -> AbstractAsyncContextManager[AsyncGenerator[Page, None]]:
        return aclosing(self._transport.follow(self._run))

    async def _look_back(self) -> None:
        """Find the output that earlier restarts took back."""
        if self._head.attempt > 1:
            self._retracted = await read_retracted(self._transport, self._run)

    def _encoder(self) -> Encoder:
        return surviving(self._start.encoder(self._run, self._head.meta.created), self._retracted)

    async def _stream(self) -> ASGIApp:
        """Its status waits for the first output, but not for ever: then the stream begins with a silence."""
        await self._look_back()
        preview = self._encoder()
        opening, first = preview.heartbeat, BEGINNING
        try:
            async with asyncio.timeout(self._streams.times.first_output), self._pages() as pages:
                async for page in pages:
                    self._run_ended = page.ended
                    if _speaks(preview, page):
                        opening, first = b"", page if page.batches[0].first == 1 else BEGINNING
                        break
        except TimeoutError:
            pass
        if preview.error is not None and not preview.spoken:
            raise revive(preview.error)
        self._run_ended = False  # it is read again from the beginning, to be sent
        viewing = viewing_of(self._encoder(), self._headers, opening=opening, resumable=self._dialect.resumable)
        return EventStream(self._streams, self._run, first, viewing)

    async def _whole(self) -> ASGIApp:
        await self._look_back()
        encoder = self._encoder()
        parts, size = list[bytes](), 0
        async with self._pages() as pages:
            async for page in pages:
                self._run_ended = page.ended
                for batch in page.batches:
                    parts.append(encoder.frames(batch))
                    size += len(parts[-1])
                if encoder.ended:
                    break
                if size > limits.COMPLETION_BYTES:
                    most = f"an answer larger than {limits.COMPLETION_BYTES} bytes: stream it"
                    raise RunFailed(most, code="invalid_output")
                if not page.caught_up:
                    await asyncio.sleep(0)
        if encoder.error is not None:
            raise revive(encoder.error)
        return raw(b"".join(parts), 200, {**encoder.headers, **self._headers})


def _speaks(preview: Encoder, page: Page) -> bool:
    """True once the answer has begun, or has ended without output."""
    for batch in page.batches:
        preview.frames(batch)
        if preview.spoken or preview.ended:
            return True
    return False


def run_headers(run: str, location: str) -> dict[str, str]:
    """Headers of every answer that is about the run, also of an error."""
    return {"Location": location, "X-Request-Id": run}


def viewing_of(encoder: Encoder, headers: Mapping[str, str], **options: Any) -> Viewing:
    """A stream that `encoder` writes, with its headers and these."""
    more = [(name.lower().encode(), value.encode()) for name, value in {**encoder.headers, **headers}.items()]
    return Viewing(encoder=encoder, headers=(*more, *STREAM_HEADERS), **options)


# --- restarts ---


async def read_retracted(transport: Transport, run: str) -> RetractedRanges:
    """The chunks that the run has taken back by now."""
    found = RetractedRanges()
    page = BEGINNING
    while True:
        page = await transport.read(run, page.cursor, limit=limits.PAGE_CHUNKS, wait=0.0)
        for batch in page.batches:
            found.feed(batch)
        if page.caught_up:
            return found


def surviving(encoder: Encoder, retracted: RetractedRanges | None) -> Encoder:
    """`encoder`, given only the chunks that stand."""
    return encoder if retracted is None else _Surviving(encoder, retracted)


class _Surviving:
    """An encoder that is given only the chunks that stand."""

    def __init__(self, encoder: Encoder, retracted: RetractedRanges) -> None:
        self._encoder = encoder
        self._retracted = retracted
        self.headers: Mapping[str, str] = encoder.headers
        self.heartbeat: bytes = encoder.heartbeat
        self.fault = encoder.fault

    @property
    def spoken(self) -> bool:
        return self._encoder.spoken

    @property
    def ended(self) -> bool:
        return self._encoder.ended

    @property
    def error(self) -> ErrorInfo | None:
        return self._encoder.error

    def frames(self, batch: Batch) -> bytes:
        return b"".join(map(self._encoder.frames, self._retracted.surviving(batch)))
