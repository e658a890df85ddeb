"""One connection to one server. What is asked in one turn of the loop goes out in one write; replies come in order."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis

from loom.model import limits
from loom.model.errors import HandleClosed, Unavailable
from loom.tasks import cancel_and_wait, spawn

__all__ = ["Link", "Pushed", "Reply", "ReplyError", "Wire"]

Reply = Any
Pushed = Callable[[list[Any]], None]
"""Takes what a server sends of its own accord. Must not raise."""

ReplyError = hiredis.ReplyError


class Wire(asyncio.Protocol):
    """Commands to bytes, bytes to replies, for as long as the connection lasts. hiredis does both."""

    def __init__(self, name: str, pushed: Pushed | None = None) -> None:
        self._name = name
        self._pushed = pushed
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._barrier: asyncio.Future[Reply] | None = None
        self._barriers = 0
        self._heard = True
        self._watch: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def ask(self, *command: str | bytes | int) -> asyncio.Future[Reply]:
        """The reply to a command; `ReplyError` for one that the server refuses, `Unavailable` when it never comes."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.lost.done():
            future.set_exception(self._gone())
            return future
        self.tell(*command)
        self._waiting.append(future)
        return future

    def tell(self, *command: str | bytes | int) -> None:
        """A command that has no reply."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(cast(Any, command)))

    def barrier(self, *command: str | bytes | int) -> asyncio.Future[Reply]:
        """The reply to a command that goes out once, behind everything that is asked in this turn of the loop, or while
        `limits.BARRIERS` of them have not been answered: each holds up what comes behind it."""
        if self._barrier is None or self._barrier.done():
            self._barrier = self._loop.create_future()
            self._barrier.add_done_callback(_seen)
            self._loop.call_soon(self._raise_barrier, command)
        return self._barrier

    def _raise_barrier(self, command: tuple[str | bytes | int, ...]) -> None:
        if self._barrier is None or self._barriers == limits.BARRIERS:
            return
        barrier, self._barrier = self._barrier, None
        self._barriers += 1

        def answered(asked: asyncio.Future[Reply]) -> None:
            self._barriers -= 1
            _pass_on(asked, barrier)
            self._raise_barrier(command)

        self.ask(*command).add_done_callback(answered)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.lost.done():
            self._transport.writelines(out)

    def close(self) -> None:
        """Let go; what was asked is not answered any more."""
        if not self.lost.done():
            self._transport.abort()
            self._lose()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but not by its type
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._watch = self._loop.call_later(limits.REDIS_SILENCE / 2, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError):  # it speaks something else, or answers what nobody asked
            self.close()

    def _take(self, reply: Reply) -> None:
        if type(reply) is hiredis.PushNotification:
            if self._pushed is not None:
                self._pushed(reply)
            return
        future = self._waiting.popleft()
        if future.done():
            return
        if type(reply) is ReplyError:
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._lose()

    def _lose(self) -> None:
        if self.lost.done():
            return
        self.lost.set_result(None)
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(self._gone())

    def _gone(self) -> Unavailable:
        return Unavailable(f"the connection to {self._name} was lost")

    def _look(self) -> None:
        """Twice without a byte while something is asked for: it is dead. Once may be ours, who stood still."""
        if self._waiting and not self._heard:
            self.close()
            return
        self._heard = not self._waiting
        self._watch = self._loop.call_later(limits.REDIS_SILENCE / 2, self._look)


def _seen(future: asyncio.Future[Reply]) -> None:
    """Whoever waited for it may have left, or have met a failure of his own."""
    if not future.cancelled():
        future.exception()


def _pass_on(asked: asyncio.Future[Reply], to: asyncio.Future[Reply]) -> None:
    error = asked.exception()
    if to.done():
        return
    if error is None:
        to.set_result(asked.result())
    else:
        to.set_exception(error)


class Link:
    """A server's wire, made when it is needed and made anew after it was lost."""

    def __init__(self, dial: Callable[[], Awaitable[Wire]]) -> None:
        self._dial = dial
        self._dialing: asyncio.Task[Wire] | None = None
        self._closed = False
        self.wire: Wire | None = None

    @property
    def is_up(self) -> bool:
        """Whether there is a wire just now."""
        return self.wire is not None and not self.wire.lost.done()

    async def up(self) -> Wire:
        """The wire. Whoever needs it at the same time shares the attempt and its outcome."""
        if self.wire is not None and self.is_up:
            return self.wire
        if self._closed:
            raise HandleClosed("this store is not open")
        if self._dialing is None or self._dialing.done():
            self._dialing = spawn(self._dialed(), "loom-redis-dial")
        return await asyncio.shield(self._dialing)

    async def _dialed(self) -> Wire:
        self.wire = await self._dial()
        return self.wire

    async def ask(self, *command: str | bytes | int) -> Reply:
        """As `Wire.ask`; raises what dialing raises besides."""
        wire = self.wire
        if wire is None or wire.lost.done():
            wire = await self.up()
        return await wire.ask(*command)

    async def aclose(self) -> None:
        self._closed = True
        if self._dialing is not None:
            await cancel_and_wait(self._dialing)
        if self.wire is not None:
            self.wire.close()
