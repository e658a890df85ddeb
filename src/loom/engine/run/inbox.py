"""What a running run is told: its inbox, read from the start by each attempt."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from loom.backoff import Backoff
from loom.model.chunk import CANCEL, Message, Page
from loom.model.cursor import Cursor
from loom.model.errors import Damaged, LogNotFound, RemoteProtocolError
from loom.model.ports import LogStore, Notice
from loom.model.run import inbox_of
from loom.wire.json import decode_message

__all__ = ["Inbox", "Wait"]

Wait = Callable[[Coroutine[Any, Any, bool]], Coroutine[Any, Any, bool]]
"""Awaits what blocks, as a run does that gives back its slot meanwhile."""


class Inbox:
    """Reads a run's inbox as it grows: cancels call `on_cancel`, everything else waits for `receive`."""

    def __init__(self, logs: LogStore, run: str, on_cancel: Callable[[], None]) -> None:
        self._logs = logs
        self._log = inbox_of(run)
        self._on_cancel = on_cancel
        self._messages: list[Message[Any]] = []
        self._left: deque[Message[Any]] = deque()
        self._after: Cursor | None = None
        self._news = asyncio.Event()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the first page was read: a cancel that was sent before is known by then."""
        self._arrived = asyncio.Event()

    async def follow(self, created: asyncio.Event | None = None) -> None:
        """Read for ever; the owner cancels it. `created`: set once the log is there, which may be missing until then.
        Raises `LogNotFound` when the run was dropped."""
        unwatch = self._logs.watch(self._log, self._notice)
        backoff = Backoff.of_store()
        try:
            while True:
                self._news.clear()
                early = created is not None and not created.is_set()
                try:
                    caught_up = await backoff.attempt(self._read)
                except LogNotFound:
                    if created is None or not early:
                        raise
                    await created.wait()
                    continue
                if not self.begun.done():
                    self.begun.set_result(None)
                if caught_up:
                    await self._news.wait()
        finally:
            unwatch()

    async def _read(self) -> bool:
        """Take one page; whether it reached the end of what is there. Raises `Damaged`."""
        page = await self._logs.read(self._log, self._after)
        messages = _decoded(page)
        self._after = page.cursor
        for message in messages:
            if message.type == CANCEL:
                self._on_cancel()
            else:
                self._messages.append(message)
                self._left.append(message)
        if page.batches:
            arrived, self._arrived = self._arrived, asyncio.Event()
            arrived.set()
        return page.caught_up

    def rewind(self) -> None:
        """A new attempt begins: it gets every message anew."""
        self._left = deque(self._messages)

    async def receive(self, type: str | None, timeout: float | None = None, wait: Wait | None = None) -> Message[Any]:
        """The first message (of `type`) that this attempt has not taken yet; `wait` waits for it. Raises
        `TimeoutError` if none has arrived within `timeout` seconds."""
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        arrived = True
        while (message := self._take(type)) is None:
            if not arrived:
                raise TimeoutError
            arrival = self._arrival(until)
            arrived = await (arrival if wait is None else wait(arrival))
        return message

    async def _arrival(self, until: float | None) -> bool:
        """Wait for new messages; False: the time is over."""
        try:
            async with asyncio.timeout_at(until):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def _take(self, type: str | None) -> Message[Any] | None:
        for index, message in enumerate(self._left):
            if type is None or message.type == type:
                del self._left[index]
                return message
        return None

    def _notice(self, notice: Notice) -> None:
        self._news.set()


def _decoded(page: Page) -> list[Message[Any]]:
    messages = []
    for cursor, line in page.lines():
        try:
            messages.append(decode_message(line))
        except RemoteProtocolError as error:
            raise Damaged(f"the inbox cannot be read: {error}", details={"seq": cursor.seq}) from None
    return messages
