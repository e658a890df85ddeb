"""The connection on which one server tells: made anew when it is lost, and subscribed again to all.

Whether it hears is known by an echo: one message each half second, however many channels there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from typing import Any, Protocol

from loom.backoff import Backoff
from loom.model import limits
from loom.model.errors import LoomError, Unauthorized, UsageError
from loom.model.text import escaped

from .address import Host
from .link import Wire
from .servers import Servers

__all__ = ["Ear", "Hearer"]

_log = logging.getLogger("loom.store")


class Hearer(Protocol):
    """Whom an ear tells what it hears."""

    def subscribed(self, channel: str) -> None:
        """From now on the server tells what is said there."""
        ...

    def published(self, channel: str, text: bytes) -> None: ...

    async def sort_anew(self) -> None:
        """A connection was lost: its server may have other slots now, or none. Called before the next is made."""
        ...


class Ear:
    """What one server tells of some channels. `spare` names its echo while there is no channel."""

    def __init__(self, servers: Servers, host: Host | None, hearer: Hearer, spare: str) -> None:
        self._servers = servers
        self._host = host
        self._hearer = hearer
        self._spare = spare
        self._channels: set[str] = set()
        self._leaving: Counter[str] = Counter()
        self._wanted = asyncio.Event()
        self._echo = ""
        self._said = self._heard_back = self._missed = 0
        self._wire: Wire | None = None

    def add(self, channel: str) -> None:
        if channel not in self._channels:
            self._channels.add(channel)
            self._wanted.set()
            self._say("SSUBSCRIBE", channel)

    def remove(self, channel: str) -> None:
        if channel in self._channels:
            self._channels.discard(channel)
            self._leaving[channel] += self._say("SUNSUBSCRIBE", channel)

    def change(self, channels: set[str]) -> None:
        for channel in self._channels - channels:
            self.remove(channel)
        for channel in channels - self._channels:
            self.add(channel)

    @property
    def hears(self) -> bool:
        """Whether notices come, as far as is known."""
        return not self._channels or (self._wire is not None and not self._wire.lost.done() and not self._missed)

    async def call_out(self) -> None:
        """Say something on the echo's channel, if it is subscribed to that. Twice unheard, it is given up."""
        if self._wire is None or self._wire.lost.done() or not self._heard_back:
            return
        self._missed = self._missed + 1 if self._heard_back < self._said else 0
        if self._missed > 1:
            self.close()
            return
        self._said += 1  # each time another number
        with contextlib.suppress(LoomError):  # nothing is known of an ear that nobody spoke to
            await self._servers.ask(self._echo, "SPUBLISH", self._echo, self._said)

    def _say(self, *command: str) -> bool:
        if self._wire is None or self._wire.lost.done():
            return False
        self._wire.tell(*command)
        return True

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    async def listen(self) -> None:
        """For ever: connected and subscribed, as far as the server lets us."""
        loop, said = asyncio.get_running_loop(), ""
        outage, refusal = Backoff.of_store(), Backoff.of_refusals()
        while True:
            if not self._channels:  # perhaps its server is gone for good, and others have its slots
                self._wanted.clear()
                await self._wanted.wait()
            began, pauses = loop.time(), outage
            try:
                self._wire = await self._servers.listen(self._host, self.heard)
                await self._subscribe(self._wire)
                await self._stay(self._wire)
            except LoomError as error:
                if isinstance(error, (Unauthorized, UsageError)):
                    pauses = refusal
                if str(error) != said:  # once, until it is another
                    said = str(error)
                    _log.info("no notices: %s", escaped(said))
            if loop.time() - began > limits.REDIS_STAYED:
                said = ""
                outage.reset()
                refusal.reset()
            await pauses.pause()
            await self._hearer.sort_anew()

    async def _subscribe(self, wire: Wire) -> None:
        """Some at a time: each makes its viewers read, and the server has others to serve."""
        self._leaving.clear()
        self._echo = f"{next(iter(self._channels), self._spare)}:echo:{uuid.uuid4().hex}"
        self._said = self._heard_back = self._missed = 0
        wire.tell("SSUBSCRIBE", self._echo)
        for number, channel in enumerate(list(self._channels), 1):
            if channel in self._channels:
                wire.tell("SSUBSCRIBE", channel)
            if number % limits.REDIS_LOOK_SLICE == 0:
                await asyncio.sleep(0)

    async def _stay(self, wire: Wire) -> None:
        """Until it is lost. Asked now and then whether it is still there, for a peer that is gone says nothing."""
        while not wire.lost.done():
            wire.ask("PING").add_done_callback(lambda asked: asked.exception())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.REDIS_SILENCE):
                    await asyncio.shield(wire.lost)

    def heard(self, push: list[Any]) -> None:
        kind, channel = push[0], push[1].decode() if push[1] is not None else ""
        if channel == self._echo:
            self._echoed(kind, push[2])
        elif kind == b"smessage":
            self._hearer.published(channel, push[2])
        elif kind == b"ssubscribe":
            self._hearer.subscribed(channel)
        elif kind == b"sunsubscribe":
            self._left(channel)

    def _echoed(self, kind: bytes, said: bytes | int) -> None:
        if kind == b"smessage":
            self._heard_back = int(said)
        elif kind == b"ssubscribe":
            self._said = self._heard_back = 1
        else:
            self.close()

    def _left(self, channel: str) -> None:
        if self._leaving[channel]:
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]
        elif channel in self._channels:
            self.close()  # the slot has moved to another node: `listen` goes on from there
