"""Reads that wait (long polls)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from loom.model.errors import Unavailable
from loom.server.http.answers import error_answer
from loom.server.http.connection import wait_gone
from loom.server.stream.streams import Streams
from loom.tasks import cancel_and_wait, spawn

from .operations import answer_of

__all__ = ["LongPoll"]


class LongPoll:
    """The answer to a read that waits: made when there is something to tell, dropped when its client leaves."""

    def __init__(self, streams: Streams, read: Callable[[], Awaitable[ASGIApp]]) -> None:
        self._streams = streams
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = spawn(self._answer(scope, receive, send), "loom-poll")
        self._streams.open += 1
        try:
            await wait_gone(receive)
        finally:
            self._streams.open -= 1
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
